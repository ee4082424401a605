# SPDX-License-Identifier: Apache-2.0
"""Weights to start a training run from: a classical network's state_dict, or this package's own files."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmhw.models.errors import ModelError
from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.network import Network

from .float_weights import parts

__all__ = ["initial_states"]

States = dict[str, Tensor]
COUNTER = "num_batches_tracked"


def initial_states(path: Path, architecture: Architecture, layouts: Mapping[str, str]) -> dict[str, States]:
    """Phase -> state_dict of its network: ``classical``, and ``bm`` if the file has one of these layouts.

    A ``NAME-float.safetensors`` file of this package holds both, or lies beside the files with the rest of them (see
    ``float_weights``). Any other file (safetensors, or a PyTorch
    file without code) must be a classical state_dict whose convolutions, dense layers and batch
    normalisations come in the order of the architecture's, whatever their names (safetensors files keep no
    order: there, that of the names, numbers by their value); a dense layer that the file lays out as
    (outputs, inputs) may stand for one over a whole map. Raises ModelError that names the first layer that
    doesn't fit.
    """
    tensors = _read(path)
    own = _by_network(tensors)
    if own["bm"] and not own["classical"]:
        for part in parts(path):
            for kind, state in _by_network(_read(part)).items():
                own[kind] |= state
    if not own["classical"]:
        return {"classical": _match(path, tensors, architecture)}
    result = {"classical": _match(path, own["classical"], architecture)}
    expected = {key: value.shape for key, value in _floats(Network(architecture, layouts)).items()}
    found = {key: value.shape for key, value in own["bm"].items()}
    if found and found.items() < expected.items():
        missing = min(expected.keys() - found.keys())
        raise ModelError(f"Weights file {path} and the files beside it lack {missing} of the BM network")
    # a signed BM layer has the shape of a classical one, but its weights are those of maxima
    if found == expected and set(layouts.values()) != {"mac"}:
        result["bm"] = {key: value.float() for key, value in own["bm"].items()}
    return result


def _by_network(tensors: States) -> dict[str, States]:
    """The tensors of each network of this package's own files, under their names there."""
    own: dict[str, States] = {"classical": {}, "bm": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind in own:
            own[kind][rest] = value
    return own


def _floats(network: Network) -> States:
    return {key: value for key, value in network.state_dict().items() if not key.endswith(COUNTER)}


def _read(path: Path) -> States:
    if not path.is_file():
        raise ModelError(f"Weights file {path} doesn't exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded = load_file(path)
            tensors: Any = {key: loaded[key] for key in sorted(loaded, key=_by_number)}
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a broken or foreign file
        raise ModelError(f"Weights file {path} can't be read: {str(error).splitlines()[0]}") from None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"Weights file {path} must hold a state_dict: names and tensors only")
    return dict(tensors)


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    """A sorting key by which layer2 comes before layer10."""
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", name)]


def _modules(tensors: States) -> Iterator[tuple[str, States]]:
    """The tensors of each module, in the order of the file."""
    modules: dict[str, States] = {}
    for key, value in tensors.items():
        module, _, part = key.rpartition(".")
        if part != COUNTER:
            modules.setdefault(module, {})[part] = value
    yield from modules.items()


def _match(path: Path, tensors: States, architecture: Architecture) -> States:
    """A file's state_dict under the names of a classical Network of the architecture."""
    network = Network(architecture, architecture.layouts("mac"))
    expected, found = dict(_modules(_floats(network))), dict(_modules(tensors))
    same_names = set(expected) == set(found)
    result: States = {}
    for step, name in itertools.zip_longest(expected, expected if same_names else found):
        if step is None or name is None:
            raise ModelError(
                f"Weights file {path} has {len(found)} layers, not {len(expected)}; the first that can't be "
                f"converted: {name or 'none for ' + step.removeprefix('steps.')}"
            )
        parts = dict(found[name])
        if "bias" in expected[step]:
            parts.setdefault("bias", torch.zeros(expected[step]["bias"].shape))
        for part, like in expected[step].items():
            value = parts.pop(part, None)
            if value is not None and value.ndim == 2 and like.ndim == 4 and value.numel() == like.numel():
                value = value.reshape(like.shape)
            if value is None or value.shape != like.shape or not value.is_floating_point():
                what = "no " + part if value is None else f"{part} of shape {tuple(value.shape)}"
                raise ModelError(
                    f"Layer {name} of {path} can't be converted to {step.removeprefix('steps.')}: it has "
                    f"{what}, not {part} of shape {tuple(like.shape)}"
                )
            result[f"{step}.{part}"] = value.float()
        if parts:
            raise ModelError(
                f"Layer {name} of {path} can't be converted to {step.removeprefix('steps.')}: it has a "
                f"{min(parts)}"
            )
    return result
