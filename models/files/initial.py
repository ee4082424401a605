# SPDX-License-Identifier: Apache-2.0
"""Weights to start a training run from: a classical network's state_dict, or this package's own files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.network import NORM_EPSILON, Network

from .conventions import PYTORCH_EPSILON, Conventions
from .float_weights import border_of, layouts_of, parts
from .foreign import WeightsFile, read_weights
from .matching import COUNTER, Match, match
from .writing import sha256

__all__ = ["Initial", "read_initial"]

States = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Initial:
    """What a run starts from.

    ``states``: phase -> state_dict of its network, ``classical``, and ``bm`` if the file has one of the run's layouts;
    ``checksum``: the file's SHA-256; ``border``: see ``Node``; ``conventions``: what was folded into the weights, None
    for this package's own files; ``matches``: which layer became which.
    """

    path: Path
    states: Mapping[str, States]
    checksum: str
    border: tuple[float, ...] = ()
    conventions: Conventions | None = None
    matches: list[Match] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What was read and assumed, for people."""
        if self.conventions is None:
            yield f"{self.path}: this program's own, {' and '.join(self.states)} by name"
        else:
            rows = [("layer", "from", "shape", "")]
            rows += [(m.target, m.source, " x ".join(map(str, m.shape)), m.note) for m in self.matches]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            epsilon = self.conventions.norm_epsilon
            whose = {NORM_EPSILON: " (as here)", PYTORCH_EPSILON: " (PyTorch's default)"}.get(epsilon, "")
            yield f"Normalisations: epsilon {epsilon:g}{whose}; images: {self.conventions}"
        if self.border:
            pixels = ", ".join(f"{pixel:g}" for pixel in self.border)
            yield f"Padding of the image: pixel {pixels}, in the integer network the nearest whole one"


def read_initial(
    path: Path,
    architecture: Architecture,
    layouts: Mapping[str, str],
    *,
    conventions: Conventions | None = None,
    order: Path | None = None,
) -> Initial:
    """The networks in a file.

    A ``NAME-float.safetensors`` file of this package holds both, or lies beside the files with the rest of them (see
    ``float_weights``). Any other file (see ``foreign``) must hold the classical network, with other names than here
    or not (see ``matching``; ``order`` is explained there), which is changed to what this package computes
    (``conventions``). Raises ModelError that names the first tensor or layer that doesn't fit.
    """
    file = read_weights(path)
    checksum = sha256(path.read_bytes())
    own = _by_network(file.tensors)
    if own["bm"] and not own["classical"]:
        for part in parts(path):
            for kind, state in _by_network(read_weights(part).tensors).items():
                own[kind] |= state
    if not own["classical"]:
        state, matches, own_names = match(file, architecture, order)
        complete = (conventions or Conventions()).completed(architecture.image.channels, own_names)
        state = complete.fold(state, architecture)
        return Initial(path=path, states={"classical": state}, checksum=checksum, border=complete.border,
                       conventions=complete, matches=matches)  # fmt: skip
    if order is not None or conventions not in (None, Conventions()):
        raise ModelUsageError(f"Weights file {path} is this program's own, which --norm-epsilon, --mean, --std, "
                              "--pixel-scale and --order can't change")
    states = {"classical": match(WeightsFile(path, own["classical"], file.ordered), architecture)[0]}
    expected = {key: value.shape for key, value in _floats(Network(architecture, layouts)).items()}
    found = {key: value.shape for key, value in own["bm"].items()}
    if found and found.items() < expected.items():
        missing = min(expected.keys() - found.keys())
        raise ModelError(f"Weights file {path} and the files beside it lack {missing} of the BM network")
    # a signed BM layer has the shape of a classical one, but its weights are those of maxima
    theirs = layouts_of(path, file.metadata)
    alike = theirs is not None and _classical_layers(theirs) == _classical_layers(layouts)
    if theirs is None:  # of a quantised classical network both are the same
        alike = any(not torch.equal(value, own["classical"].get(key, value[:0])) for key, value in own["bm"].items())
    if found == expected and set(layouts.values()) != {"mac"} and alike:
        states["bm"] = {key: _finite(path, key, value) for key, value in own["bm"].items()}
    return Initial(path=path, states=states, checksum=checksum, border=border_of(path, file.metadata))


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


def _floats(network: Network) -> States:
    return {key: value for key, value in network.state_dict().items() if not key.endswith(COUNTER)}


def _finite(path: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point() or not torch.isfinite(value).all():
        raise ModelError(f"Tensor bm.{name} of {path} must hold finite floating-point numbers")
    if name.endswith("running_var") and value.min() < 0:
        raise ModelError(f"Tensor bm.{name} of {path} must hold variances of 0 or more, not {float(value.min()):g}")
    return value.float()
