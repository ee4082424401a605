# SPDX-License-Identifier: Apache-2.0
"""Weights to start a training run from: a classical network's state_dict, or this package's own files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.groups import Groups, has_groups
from bmhw.models.networks.layers import larger_of_pair
from bmhw.models.networks.network import NORM_EPSILON, Network

from .conventions import PYTORCH_EPSILON, Conventions
from .float_weights import GROUPS, border_of, groups_of_file, layouts_of, parts
from .foreign import WeightsFile, read_weights
from .matching import COUNTER, Match, match
from .writing import sha256

__all__ = ["Initial", "read_initial"]

States = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Initial:
    """What a run starts from.

    ``states``: phase -> state_dict of its network, ``classical``, and ``bm`` if the file has one that the run can use;
    ``groups`` of that one, ``regrouped_from``: those that it had before, where it was trained in others, and its
    ``layouts``, where some of its layers are BM ones and multiply-accumulate in the run (None: all are as in the run);
    ``merged``: whether its weights are the larger ones of pairs; ``checksum``: the file's SHA-256; ``border``: see
    ``Node``; ``conventions``: what was folded into the classical network's weights, None for this package's own files;
    ``matches``: which layer became which; ``teacher``: the file that the classical network is from, with its SHA-256,
    where it is another one.
    """

    path: Path
    states: Mapping[str, States]
    checksum: str
    groups: Groups = 1
    regrouped_from: Groups | None = None
    layouts: Mapping[str, str] | None = None
    merged: bool = False
    border: tuple[float, ...] = ()
    conventions: Conventions | None = None
    matches: list[Match] = field(default_factory=list)
    teacher: tuple[Path, str] | None = None

    @property
    def is_trained(self) -> bool:
        """Whether there is a BM network whose maxima are those that its weights were trained in."""
        return "bm" in self.states and not self.merged and self.regrouped_from is None

    def lines(self) -> Iterator[str]:
        """What was read and assumed, for people."""
        if self.teacher is not None or self.conventions is None:
            whose = "this program's own, " if self.conventions is None else ""
            phases = "bm" if self.teacher is not None else " and ".join(self.states)
            yield f"{self.path}: {whose}{phases} by name"
        if self.conventions is not None:
            if self.teacher is not None:
                yield f"Classical network: {self.teacher[0]}"
            rows = [("layer", "from", "shape", "")]
            rows += [(m.target, m.source, " x ".join(map(str, m.shape)), m.note) for m in self.matches]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            epsilon = self.conventions.norm_epsilon
            whose = {NORM_EPSILON: " (as here)", PYTORCH_EPSILON: " (PyTorch's default)"}.get(epsilon, "")
            yield f"Normalisations: epsilon {epsilon:g}{whose}; images: {self.conventions}"
        if "bm" in self.states and (has_groups(self.groups) or not self.is_trained):
            merged = ", the larger weight of each pair" if self.merged else ""
            before = "" if self.regrouped_from is None else f", the weights of groups {self.regrouped_from}, scaled"
            yield f"Bipolar morphological network: groups {self.groups}{merged}{before}"
        if self.layouts is not None:
            yield "Multiply-accumulate layers have the weights of the BM layers in whose place they are, scaled"
        if self.border:
            pixels = ", ".join(f"{pixel:g}" for pixel in self.border)
            yield f"Padding of the image: pixel {pixels}, in the integer network the nearest whole one"


def read_initial(
    path: Path,
    architecture: Architecture,
    layouts: Mapping[str, str],
    *,
    groups: Groups | None = None,
    conventions: Conventions | None = None,
    order: Path | None = None,
    teacher: Path | None = None,
) -> Initial:
    """The networks in a file.

    A ``NAME-float.safetensors`` file of this package holds both, or lies beside the files with the rest of them (see
    ``float_weights``). Any other file (see ``foreign``) must hold the classical network, with other names than here
    or not (see ``matching``; ``order`` is explained there), which is changed to what this package computes
    (``conventions``); or, if ``teacher`` is a file with the classical network, a BM network under this package's names
    alone, whose ``groups`` are those given where its metadata don't say them. A BM network, in whatever groups, is used
    if it has the run's layouts, but that layers of the run may be multiply-accumulate which are BM there; of one with
    groups and two weights an input, ``signed`` and ``wired`` layers take the larger ones.
    Raises ModelError that names the first tensor or layer that doesn't fit.
    """
    file = read_weights(path)
    checksum = sha256(path.read_bytes())
    own = _by_network(file.tensors)
    if own["bm"] and not own["classical"]:
        for part in parts(path):
            for kind, state in _by_network(read_weights(part).tensors).items():
                own[kind] |= state
    if teacher is not None:
        if own["classical"]:
            raise ModelUsageError(f"--teacher {teacher} is for a file without a classical network, which {path} or a "
                                  "file beside it holds")
        return _with_teacher(file, checksum, architecture, layouts, groups, conventions, order, teacher)
    if not own["classical"]:
        pairs = min((key for key, value in file.tensors.items() if value.ndim == 5), default=None)
        if pairs is not None:
            raise ModelUsageError(f"Weights file {path} holds a bipolar morphological network ({pairs} has two weights "
                                  "an input), which learns from a classical one: name its file with --teacher")
        return _classical(file, checksum, architecture, conventions, order)
    if order is not None or conventions not in (None, Conventions()):
        raise ModelUsageError(f"Weights file {path} is this program's own, which --norm-epsilon, --mean, --std, "
                              "--pixel-scale and --order can't change")
    states = {"classical": match(WeightsFile(path, own["classical"], file.ordered), architecture)[0]}
    theirs = groups_of_file(path, file.metadata)
    said = layouts_of(path, file.metadata)
    wanted = layouts if said is None or set(layouts.values()) == {"mac"} else {
        name: said[name] if layout == "mac" and name in said else layout for name, layout in layouts.items()}
    expected = _shapes(architecture, wanted)
    found = {key: value.shape for key, value in own["bm"].items()}
    if found and found.items() < expected.items():
        missing = min(expected.keys() - found.keys())
        raise ModelError(f"Weights file {path} and the files beside it lack {missing} of the BM network")
    # a signed BM layer has the shape of a classical one, but its weights are those of maxima
    alike = said is not None and _classical_layers(said) == _classical_layers(wanted)
    if said is None:  # of a quantised classical network both are the same
        alike = any(not torch.equal(value, own["classical"].get(key, value[:0])) for key, value in own["bm"].items())
    state, merged = own["bm"], False
    if found != expected and has_groups(theirs):
        state, merged = _merged(own["bm"], expected)
        found = {key: value.shape for key, value in state.items()}
    if found == expected and set(layouts.values()) != {"mac"} and alike:
        states["bm"] = {key: _finite(path, f"bm.{key}", value) for key, value in state.items()}
    return Initial(path=path, states=states, checksum=checksum, groups=theirs if "bm" in states else 1,
                   layouts=wanted if wanted != layouts and "bm" in states else None, merged=merged and "bm" in states,
                   border=border_of(path, file.metadata))  # fmt: skip


def _classical(
    file: WeightsFile, checksum: str, architecture: Architecture, conventions: Conventions | None, order: Path | None
) -> Initial:
    """Somebody else's classical network."""
    state, matches, own_names = match(file, architecture, order)
    complete = (conventions or Conventions()).completed(architecture.image.channels, own_names)
    state = complete.fold(state, architecture)
    return Initial(path=file.path, states={"classical": state}, checksum=checksum, border=complete.border,
                   conventions=complete, matches=matches)  # fmt: skip


def _with_teacher(
    file: WeightsFile,
    checksum: str,
    architecture: Architecture,
    layouts: Mapping[str, str],
    groups: Groups | None,
    conventions: Conventions | None,
    order: Path | None,
    teacher: Path,
) -> Initial:
    """A BM network by itself, and the classical one of another file."""
    path = file.path
    taught = read_initial(teacher, architecture, architecture.layouts("mac"), conventions=conventions, order=order)
    if set(layouts.values()) == {"mac"}:
        raise ModelUsageError(f"--teacher {teacher} is for a bipolar morphological network, not for layout mac")
    theirs = groups_of_file(path, file.metadata) if GROUPS in file.metadata else groups
    if theirs is None:
        raise ModelUsageError(f"Weights file {path} doesn't say how many groups of input channels its network has: "
                              "say it with --groups or --group-inputs")
    # nothing says what its layers are: none is multiply-accumulate
    pairs, usual = {key for key, value in file.tensors.items() if value.ndim == 5}, architecture.layouts("auto")
    wanted = {name: layout if layout != "mac" else usual[name] if f"steps.{name}.weight" in pairs else "signed"
              for name, layout in layouts.items()}
    expected = _shapes(architecture, wanted)
    # counters, and what isn't of a layer, are left out
    state, merged = _merged({key: value for key, value in file.tensors.items() if key in expected}, expected)
    for key, shape in expected.items():
        if key not in state or state[key].shape != shape:
            found = f"of shape {tuple(state[key].shape)}" if key in state else "missing"
            raise ModelError(f"Weights file {path} has no BM network of these layouts: {key} must be of shape "
                             f"{tuple(shape)}, but is {found}")
    states = {**taught.states, "bm": {key: _finite(path, key, value) for key, value in state.items()}}
    return Initial(path=path, states=states, checksum=checksum, groups=theirs, merged=merged, border=taught.border,
                   layouts=wanted if wanted != layouts else None,
                   conventions=taught.conventions, matches=taught.matches, teacher=(teacher, taught.checksum))


def _merged(state: States, expected: Mapping[str, torch.Size]) -> tuple[States, bool]:
    """The state_dict with single weights where pairs are there and single ones are expected; whether there were any."""
    pairs = {key for key, value in state.items() if key in expected and value.shape == (2, *expected[key])}
    return {key: larger_of_pair(value) if key in pairs else value for key, value in state.items()}, bool(pairs)


def _shapes(architecture: Architecture, layouts: Mapping[str, str]) -> dict[str, torch.Size]:
    """Of a network's tensors, but not its counters."""
    state = Network(architecture, layouts).state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith(COUNTER)}


def _by_network(tensors: Mapping[str, Tensor]) -> dict[str, States]:
    """The tensors of each network of this package's own files, under their names there."""
    own: dict[str, States] = {"classical": {}, "bm": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind in own and rest.startswith("steps."):
            own[kind][rest] = value
    return own


def _classical_layers(layouts: Mapping[str, str]) -> set[str]:
    return {name for name, layout in layouts.items() if layout == "mac"}


def _finite(path: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point() or not torch.isfinite(value).all():
        raise ModelError(f"Tensor {name} of {path} must hold finite floating-point numbers")
    if name.endswith("running_var") and value.min() < 0:
        raise ModelError(f"Tensor {name} of {path} must hold variances of 0 or more, not {float(value.min()):g}")
    return value.float()
