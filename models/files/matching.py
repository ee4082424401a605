# SPDX-License-Identifier: Apache-2.0
"""Which layer of somebody else's network becomes which layer of an architecture.

By name where the names are this package's own; by an order that the user gives; else by kind and shape. Layers of the
same kind and shape come in the order of the file, where that is the architecture's from the first layer to the last,
or in that of the numbers in their names, where these differ in nothing else. What is left is ambiguous and refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bmhw.hdl.checks import nearest
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.network import Network

from .foreign import WeightsFile, by_number

__all__ = ["Match", "match"]

COUNTER = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")
Key = tuple[str, tuple[int, ...]]
States = dict[str, Tensor]


@dataclass(frozen=True)
class Match:
    """``target``: a layer or normalisation of the architecture, ``source``: the file's; ``shape`` of the file's weight
    (of a normalisation: its channels); ``note``: what was added or changed, for people."""

    target: str
    source: str
    shape: tuple[int, ...]
    note: str


@dataclass(frozen=True)
class _Layer:
    """A module of the file, or a place for one in the architecture; ``key``: its kind and shape; ``dense``: whether a
    place takes (outputs, inputs) too: of a dense layer or a convolution of 1x1."""

    name: str
    key: Key
    tensors: dict[str, Tensor]
    dense: bool = False

    @property
    def short(self) -> str:
        return self.name.removeprefix("steps.")


def match(file: WeightsFile, architecture: Architecture, order: Path | None = None) -> tuple[States, list[Match], bool]:
    """The state_dict of a classical Network of the architecture (counters aside), what became what, and whether the
    names were this package's own.

    Weights are single precision whatever they were; a convolution without bias gets zeros, a normalisation without
    gamma and beta ones and zeros; (outputs, inputs) of a dense layer may stand for one over a whole map. ``order``: a
    file with one name a line, of a layer or of one of its tensors, in the order of the architecture; what it doesn't
    name is left out. ModelError names the first tensor or layer that doesn't fit.
    """
    places = _places(architecture)
    modules = dict(_modules(file.tensors))
    names = _stripped([place.name for place in places])
    own = order is None and sorted(_stripped([*modules])) == sorted(names)
    if own:
        source = dict(zip(_stripped([*modules]), modules, strict=True))
        chosen = [source[name] for name in names]
    else:
        chosen = [*modules] if order is None else _chosen(file, [*modules], order, places)
    found = [_layer(file.path, name, modules[name], places) for name in chosen]
    pairs = zip(places, found if own or order else _by_shape(file, places, found), strict=True)
    state: States = {}
    matches = []
    for place, layer in pairs:
        tensors, note = _converted(file.path, place, layer)
        state |= {f"{place.name}.{part}": value for part, value in tensors.items()}
        matches.append(Match(place.short, layer.name, layer.key[1], note))
    return state, matches, own


def _places(architecture: Architecture) -> list[_Layer]:
    result = []
    for name, step in Network(architecture, architecture.layouts("mac")).steps.items():
        tensors = {key: value for key, value in step.state_dict().items() if key != COUNTER}
        if isinstance(step, nn.BatchNorm2d):
            result.append(_Layer(f"steps.{name}", ("norm", (step.num_features,)), tensors))
        else:
            node, shape = architecture[name], tuple(step.weight.shape)
            dense = node.operation == "dense" or node.kernel == (1, 1)
            result.append(_Layer(f"steps.{name}", ("weight", shape), tensors, dense))
    return result


def _modules(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, States]]:
    """The tensors of each module, in the order of the file."""
    modules: dict[str, States] = {}
    for key, value in tensors.items():
        module, _, part = key.rpartition(".")
        if part != COUNTER:
            modules.setdefault(module, {})[part] = value
    yield from modules.items()


def _stripped(names: Sequence[str]) -> list[str]:
    """Names without what all of them begin with, such as ``module.``; their last part stays."""
    split = [name.split(".") for name in names]
    common = 0
    while split and all(len(parts) > common + 1 and parts[common] == split[0][common] for parts in split):
        common += 1
    return [".".join(parts[common:]) for parts in split]


# -- one module of the file


def _layer(path: Path, name: str, parts: States, places: Sequence[_Layer]) -> _Layer:
    """A module with its kind; its tensors dense and in single precision. ModelError for what no place can take."""
    parts = _unmasked(parts)
    full = {part: f"{name}.{part}" if name else part for part in parts}
    if not {"weight", *STATISTICS} & set(parts):
        raise ModelError(f"Tensor {full[min(parts)]} of {path} belongs to no convolution, dense layer or batch "
                         "normalisation; --order FILE can name the layers that count")
    tensors = {part: _single(path, full[part], value) for part, value in parts.items()}
    if not {*STATISTICS} & set(parts):
        weight = tensors["weight"]
        if weight.ndim not in (2, 4):
            what = ("a normalisation without running statistics" if weight.ndim == 1
                    else f"a weight of {weight.ndim} axes")
            raise ModelError(f"Layer {name} of {path} can't be converted: it is {what}; convolutions in two "
                             "dimensions, dense layers and batch normalisations can")
        return _Layer(name, ("weight", _shape_there(weight, places)), tensors)
    for part in STATISTICS:
        if part not in tensors:
            raise ModelError(f"Layer {name} of {path} can't be converted: it has no {part}")
    variance = tensors["running_var"]
    for part in ("weight", "bias", *STATISTICS):
        value = tensors.get(part, variance)
        if value.shape != variance.shape or value.ndim != 1:
            raise ModelError(f"Tensor {full[part]} of {path} must have one value a channel, as many as "
                             f"{full['running_var']}, not shape {tuple(value.shape)}")
    if variance.min() < 0:
        raise ModelError(f"Tensor {full['running_var']} of {path} must hold variances of 0 or more, not "
                         f"{float(variance.min()):g}")
    return _Layer(name, ("norm", tuple(variance.shape)), tensors)


def _unmasked(parts: States) -> States:
    """What PyTorch's pruning holds as ``weight_orig`` and ``weight_mask``, multiplied."""
    result = dict(parts)
    for part in parts:
        base, mask = part.removesuffix("_orig"), f"{part.removesuffix('_orig')}_mask"
        whole = base != part and mask in parts and parts[part].shape == parts[mask].shape
        if whole and parts[part].is_floating_point():
            result[base] = result.pop(part) * result.pop(mask)
    return result


def _single(path: Path, name: str, tensor: Tensor) -> Tensor:
    """A tensor dense and in single precision; ModelError for what are no finite floating-point numbers."""
    tensor = tensor.detach()
    if tensor.is_meta or tensor.is_nested:
        raise ModelError(f"Tensor {name} of {path} must hold numbers, not be {'meta' if tensor.is_meta else 'nested'}")
    if tensor.is_quantized or not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(f"Tensor {name} of {path} holds {kind} numbers, not floating-point ones; save the weights "
                         "as they are before they are quantised")
    whole = tensor if tensor.layout == torch.strided else tensor.to_dense()
    single = whole.float()
    if single.numel() == 0:
        raise ModelError(f"Tensor {name} of {path} is empty")
    finite = torch.isfinite(single)
    if not finite.all():
        raise ModelError(f"Tensor {name} of {path} must hold finite numbers of single precision, not "
                         f"{whole.double()[~finite][0].item():g}")
    return single


def _shape_there(weight: Tensor, places: Sequence[_Layer]) -> tuple[int, ...]:
    """The shape of a weight; of (outputs, inputs) that of the place that takes it."""
    shape = tuple(weight.shape)
    if weight.ndim == 2:
        for place in places:
            there = place.key[1]
            if place.dense and there[0] == shape[0] and torch.Size(there).numel() == weight.numel():
                return there
    return shape


def _converted(path: Path, place: _Layer, layer: _Layer) -> tuple[States, str]:
    """A layer's tensors in the shapes of its place, and what was added or changed."""
    tensors, notes, result = dict(layer.tensors), [], {}
    usual = {"weight": torch.ones, "bias": torch.zeros} if place.key[0] == "norm" else {"bias": torch.zeros}
    if layer.key != place.key:
        raise ModelError(f"Layer {layer.name} of {path} can't be converted to {place.short}: it has "
                         f"{_shown(layer.key)}, not {_shown(place.key)}")
    for part, like in place.tensors.items():
        if part not in tensors and part in usual:
            names = {"weight": "gamma 1", "bias": "beta 0"} if place.key[0] == "norm" else {"bias": "bias 0"}
            notes.append(names[part])
            tensors[part] = usual[part](like.shape)
        value = tensors.pop(part)
        if value.ndim == 2 and like.ndim == 4:
            notes.append(f"from {' x '.join(map(str, value.shape))}")
        elif value.shape != like.shape:
            raise ModelError(f"Layer {layer.name} of {path} can't be converted to {place.short}: it has {part} of "
                             f"shape {tuple(value.shape)}, not {part} of shape {tuple(like.shape)}")
        result[part] = value.reshape(like.shape)
    if tensors:
        raise ModelError(f"Layer {layer.name} of {path} can't be converted to {place.short}: it has a {min(tensors)}")
    return result, ", ".join(notes)


def _shown(key: Key) -> str:
    kind, shape = key
    return f"a normalisation of {shape[0]} channels" if kind == "norm" else f"weight of shape {shape}"


# -- several


def _by_shape(file: WeightsFile, places: Sequence[_Layer], found: list[_Layer]) -> list[_Layer]:
    """The layers in the order of the places."""
    found = _without_copies(places, found)
    here, there = _groups(places), _groups(found)
    if {key: len(group) for key, group in here.items()} != {key: len(group) for key, group in there.items()}:
        raise _misfit(file.path, places, found)
    in_order = file.ordered and [layer.key for layer in found] == [place.key for place in places]
    ordered = {}
    for key, group in there.items():
        if len(group) == 1:
            ordered[key] = group
            continue
        numbered = len({re.sub("[0-9]+", "#", layer.name) for layer in group}) == 1
        by_numbers = sorted(group, key=lambda layer: by_number(layer.name))
        # numbers that contradict the order of the file leave nothing to go by
        if not (in_order or numbered) or (in_order and numbered and by_numbers != group):
            raise ModelError(
                f"Layers of {file.path} are ambiguous: {', '.join(layer.name for layer in group)} have the same kind "
                f"and shape, and each can be {', '.join(place.short for place in here[key])}; say the order of all "
                "layers with --order FILE, one name a line"
            )
        ordered[key] = group if in_order else by_numbers
    return [ordered[place.key].pop(0) for place in places]


def _groups(layers: Sequence[_Layer]) -> dict[Key, list[_Layer]]:
    result: dict[Key, list[_Layer]] = {}
    for layer in layers:
        result.setdefault(layer.key, []).append(layer)
    return result


def _without_copies(places: Sequence[_Layer], found: list[_Layer]) -> list[_Layer]:
    """Without layers that hold what one before them holds (the same module under two names), where a kind and shape
    has more layers than places."""
    here, kept = _groups(places), list(found)
    for key, group in _groups(found).items():
        for index, layer in reversed(list(enumerate(group))):
            surplus = len(_groups(kept).get(key, ())) > len(here.get(key, ()))
            if surplus and any(_same(layer, other) for other in group[:index]):
                kept.remove(layer)
    return kept


def _same(one: _Layer, other: _Layer) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(value, other.tensors[part]) for part, value in one.tensors.items()
    )


def _misfit(path: Path, places: Sequence[_Layer], found: Sequence[_Layer]) -> ModelError:
    """The first layer without a place, and the first place without a layer."""
    left, empty = list(found), []
    for place in places:
        layer = next((layer for layer in left if layer.key == place.key), None)
        if layer is None:
            empty.append(place)
        else:
            left.remove(layer)
    if len(found) == len(places):
        return ModelError(f"Layer {left[0].name} of {path} can't be converted to {empty[0].short}: it has "
                          f"{_shown(left[0].key)}, not {_shown(empty[0].key)}")
    first = (f"{left[0].name}, which has {_shown(left[0].key)}" if left
             else f"none for {empty[0].short}, which has {_shown(empty[0].key)}")
    return ModelError(f"Weights file {path} has {len(found)} layers, not {len(places)}; the first that can't be "
                      f"converted: {first}")


def _chosen(file: WeightsFile, modules: list[str], order: Path, places: Sequence[_Layer]) -> list[str]:
    """The modules that an order file names; several tensors of one, line after line, count once."""
    try:
        lines = [line.strip() for line in order.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ModelUsageError(f"Order file {order} can't be read: {reason}") from None
    by_name: dict[str, tuple[str, bool]] = {}
    for names in ([key.rpartition(".")[0] for key in file.tensors], [*file.tensors]):
        for name, short in zip(names, _stripped(names), strict=True):
            module = name.rpartition(".")[0] if name in file.tensors else name
            by_name |= {form: (module, name in file.tensors) for form in (name, short) if form not in by_name}
    chosen, last = [], ("", False)
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if line not in by_name or by_name[line][0] not in modules:
            raise ModelUsageError(f"Line {number} of {order} must name a layer of {file.path}, not {line!r}"
                                  f"{nearest(line, by_name)}")
        if not (by_name[line] == last and last[1]):
            chosen.append(by_name[line][0])
        last = by_name[line]
    if len(chosen) != len(places):
        following = f"; the next is {places[len(chosen)].short}" if len(chosen) < len(places) else ""
        raise ModelUsageError(f"Order file {order} must name {len(places)} layers, not {len(chosen)}{following}")
    return chosen
