# SPDX-License-Identifier: Apache-2.0
"""How many outputs each layer computes at a time."""

from collections.abc import Mapping, Sequence

from bmhw.errors import UsageError
from bmhw.hdl.checks import not_one_of
from bmhw.hdl.network.shape import LayerShape
from bmhw.models.files.store import load
from bmhw.models.integer.network import IntegerNetwork

from .layers import shape_of
from .parts import Assembly, assemble

__all__ = ["assembled", "fastest", "folding_for", "overrides"]


USUAL_SLOWNESS = 8
"""Cycles an image, unless given, in those of the fastest folding."""

MOST_CYCLES = 1 << 40


def assembled(model: str, cycles: int | str | None, folds: Sequence[str]) -> Assembly:
    """The parts of a network by name or path, folded as a command's options say; UsageError where they make no
    sense."""
    if cycles is not None and (not isinstance(cycles, int) or not 1 <= cycles <= MOST_CYCLES):
        raise UsageError(f"--cycles must be an integer from 1 to {MOST_CYCLES}, not {cycles!r}")
    network = load(model)
    cycles = cycles or USUAL_SLOWNESS * fastest(network)
    return assemble(network, folding_for(network, cycles, overrides(network, folds)))


def fastest(network: IntegerNetwork) -> int:
    """Cycles an image with every output of a layer computed at a time."""
    return max(_fewest(network, name).cycles for name in network.layers)


def _fewest(network: IntegerNetwork, name: str) -> LayerShape:
    """The shape of a layer that takes the fewest cycles: a small group waits for the results of many elements."""
    shapes = [shape_of(network, name, parallel) for parallel in range(1, network.layers[name].channels + 1)]
    return min(shapes, key=lambda shape: shape.cycles)


def folding_for(network: IntegerNetwork, cycles: int, fixed: Mapping[str, int] | None = None) -> dict[str, int]:
    """For each layer the fewest outputs at a time with which an image takes at most so many cycles.

    ``fixed``: what some layers have whatever it takes. UsageError where a layer can't be as fast.
    """
    chosen = {}
    for name, layer in network.layers.items():
        if fixed and name in fixed:
            chosen[name] = fixed[name]
            continue
        able = (p for p in range(1, layer.channels + 1) if shape_of(network, name, p).cycles <= cycles)
        found = next(able, None)
        if found is None:
            least = _fewest(network, name)
            raise UsageError(f"--cycles must be at least {fastest(network)}, not {cycles}: layer {name} takes "
                             f"{least.cycles} with {least.parallel} of its {layer.channels} outputs at a time")
        chosen[name] = found
    return chosen


def overrides(network: IntegerNetwork, texts: Sequence[str]) -> dict[str, int]:
    """What ``--fold LAYER=P`` says: layer -> P; UsageError for another layer or number."""
    result = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in network.layers:
            raise UsageError(not_one_of("--fold LAYER=P: the layer", tuple(network.layers), name))
        most = network.layers[name].channels
        if not number.isdigit() or not 1 <= int(number) <= most:
            raise UsageError(f"--fold {name}=P needs outputs at a time from 1 to {most}, not {number!r}")
        result[name] = int(number)
    return result
