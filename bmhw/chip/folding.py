# SPDX-License-Identifier: Apache-2.0
"""How many outputs each layer computes at a time."""

from collections.abc import Mapping, Sequence

from bmhw.errors import RunError, UsageError
from bmhw.flow.fpga import DEVICES, Device
from bmhw.hdl.checks import not_one_of
from bmhw.hdl.network.shape import LayerShape
from bmhw.models.files.store import load
from bmhw.models.integer.network import IntegerNetwork

from .assembly import Assembly
from .layers import shape_of
from .loading import opened
from .memories import fitted
from .parts import assemble
from .plan import Plan, plan

__all__ = ["assembled", "fastest", "fastest_that_fits", "folding_for", "overrides", "shortage"]


USUAL_SLOWNESS = 8
"""Cycles an image, without anything that says how many, in those of the fastest folding."""

MOST_CYCLES = 1 << 40

Fixed = Mapping[str, int]
"""What some layers compute at a time, whatever it takes."""


def assembled(model: str, cycles: int | str | None, folds: Sequence[str], device: str | None = None, *,
              writable: bool = False) -> Assembly:
    """The parts of a network by name or path, folded as a command's options say, its memories cut for the device.

    ``writable``: whether its weights are (:mod:`~bmhw.chip.loading`). Without ``cycles``: the fastest folding that the
    device has room for, by plan. UsageError for options that make no sense, RunError where nothing fits.
    """
    if cycles is not None and (not isinstance(cycles, int) or not 1 <= cycles <= MOST_CYCLES):
        raise UsageError(f"--cycles must be an integer from 1 to {MOST_CYCLES}, not {cycles!r}")
    network = load(model)
    fixed = overrides(network, folds)
    if device is None:
        return _parts(network, folding_for(network, cycles or USUAL_SLOWNESS * fastest(network), fixed), writable)
    if cycles is not None:
        return fitted(_parts(network, folding_for(network, cycles, fixed), writable), DEVICES[device])
    found = fastest_that_fits(network, DEVICES[device], fixed, writable=writable)
    if found is None:
        slowest = fitted(_parts(network, folding_for(network, MOST_CYCLES, fixed), writable), DEVICES[device])
        raise RunError(shortage(slowest, device, plan(slowest, DEVICES[device]), fixed))
    return found


def _parts(network: IntegerNetwork, folding: Mapping[str, int], writable: bool) -> Assembly:
    return opened(assemble(network, folding)) if writable else assemble(network, folding)


def fastest(network: IntegerNetwork) -> int:
    """Cycles an image with every output of a layer computed at a time."""
    return max(_fewest(network, name).cycles for name in network.layers)


def _fewest(network: IntegerNetwork, name: str) -> LayerShape:
    """The shape of a layer that takes the fewest cycles: a small group waits for the results of many elements."""
    return min(_shapes(network, name), key=lambda shape: shape.cycles)


def _shapes(network: IntegerNetwork, name: str) -> list[LayerShape]:
    """Of a layer, with 1, 2, ... outputs at a time."""
    return [shape_of(network, name, parallel) for parallel in range(1, network.layers[name].channels + 1)]


def folding_for(network: IntegerNetwork, cycles: int, fixed: Fixed | None = None) -> dict[str, int]:
    """For each layer the fewest outputs at a time with which an image takes at most so many cycles, but for the
    ``fixed`` ones. UsageError where a layer can't be as fast."""
    chosen = {}
    for name, layer in network.layers.items():
        if fixed and name in fixed:
            chosen[name] = fixed[name]
            continue
        able = (p for p in range(1, layer.channels + 1) if shape_of(network, name, p).cycles <= cycles)
        found = next(able, None)
        if found is None:
            least = _fewest(network, name)
            raise UsageError(f"Cycles an image must be at least {fastest(network)}, not {cycles}: layer {name} takes "
                             f"{least.cycles} with {least.parallel} of its {layer.channels} outputs at a time")
        chosen[name] = found
    return chosen


def overrides(network: IntegerNetwork, texts: Sequence[str]) -> dict[str, int]:
    """What ``--fold LAYER=P`` says: layer -> P; UsageError for another layer or number. ``LAYER=Px1``, as tools with
    several inputs at a time have it, is the same."""
    result = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in network.layers:
            raise UsageError(not_one_of("--fold LAYER=P: the layer", tuple(network.layers), name))
        outputs, times, inputs = number.partition("x")
        if times and inputs != "1":
            raise UsageError(f"--fold {name}=PxS needs 1 input at a time, which is what an element takes, "
                             f"not {inputs!r}")
        most = network.layers[name].channels
        if not outputs.isdecimal() or not 1 <= int(outputs) <= most:
            raise UsageError(f"--fold {name}=P needs outputs at a time from 1 to {most}, not {outputs!r}")
        result[name] = int(outputs)
    return result


def fastest_that_fits(network: IntegerNetwork, device: Device, fixed: Fixed, *,
                      writable: bool = False) -> Assembly | None:
    """With its memories cut for the device; None: not even the slowest folding fits, by plan.

    Sought by halves among all numbers of cycles that a layer can take: one that fits, while the next faster folding
    doesn't. (More elements take more logic cells; words of weights that are wider and fewer may take fewer block RAMs,
    so that a still faster one may fit, rarely.)
    """
    shapes = {name: _shapes(network, name) for name in network.layers if name not in fixed}
    least = max((min(shape.cycles for shape in of) for of in shapes.values()), default=1)
    choices = sorted({max(shape.cycles, least) for of in shapes.values() for shape in of} or {least})
    best, low, high = None, 0, len(choices) - 1
    while low <= high:
        # the slowest one first: it may be that none fits
        at = high if best is None else (low + high) // 2
        found = _with_room(_parts(network, folding_for(network, choices[at], fixed), writable), device)
        if found is not None:
            best, high = found, at - 1
        elif best is None:
            return None
        else:
            low = at + 1
    return best


def _with_room(assembly: Assembly, device: Device) -> Assembly | None:
    """The same with its memories cut for the device, if that has room for it."""
    if plan(assembly, device).missing:  # its logic alone is too much already
        return None
    cut = fitted(assembly, device)
    return None if plan(cut, device).missing else cut


def shortage(assembly: Assembly, device_name: str, planned: Plan, fixed: Fixed) -> str:
    """What a device has too little of for a chip that is planned, and what there is room for."""
    network, writable, device = assembly.network, assembly.writable, DEVICES[device_name]
    notes = {"logic cells": f" (of them {planned.memory_cells:,} for memories)"}
    needs = ", ".join(
        f"{needed:,} {what}{notes.get(what, '')}, {needed - limit:,} more than {limit / there:.0%} of {there:,}"
        for what, (needed, limit, there) in planned.missing.items())
    others = []
    slower = fastest_that_fits(network, device, fixed, writable=writable)
    if slower is not None:
        others.append(f"--cycles {plan(slower).cycles}")
    for name, other in sorted(DEVICES.items(), key=lambda item: item[1].luts):
        larger = other.luts > device.luts or other.block_rams > device.block_rams
        same = {layer.name: layer.shape.parallel for layer in planned.layers}
        if larger and _with_room(_parts(network, same, writable), other) is not None:
            others.append(f"--device {name}")
            break
    return (f"{planned.name} does not fit {device_name} at {planned.cycles:,} cycles an image, by plan: it needs "
            f"{needs}; {' or '.join(others) or 'no other folding or device'} would fit")
