# SPDX-License-Identifier: Apache-2.0
"""Where a pipelined neuron has its registers: a given latency, or a given depth between registers.

A neuron with registers everywhere is mapped once; its stages are the steps that a shorter pipeline joins again. Each
is measured in a part mapped on its own: in one netlist the scripts make every stage as deep as the deepest one where
that saves gates.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Sequence

from bmhw.errors import RunError, UsageError
from bmhw.flow.paths import Stage
from bmhw.hdl.neurons.design import Design

__all__ = ["balance", "pipelined", "with_latency", "with_stage_depth"]


StepsOf = Callable[[Design], list[Stage]]


def pipelined(design: Design, args: argparse.Namespace, steps_of: StepsOf,
              depth_of: Callable[[Design], int] | None = None) -> Design:
    """The design with its registers where the options want them; :class:`UsageError` where that can't be.

    ``steps_of``: the stages of a neuron with registers everywhere; ``depth_of``: the depth of a mapped neuron.
    """
    depth = getattr(args, "stage_depth", None)
    if args.latency is None and depth is None:
        return design
    flag = f"--latency {args.latency}" if depth is None else f"--stage-depth {depth}"
    if design.element and depth is None and design.registers is None:
        return _element(design, args.latency)
    if design.form != "pipelined":
        raise UsageError(f"{flag} needs --form pipelined, not {design.form}")
    if design.registers is not None:
        raise UsageError(f"{flag} places the registers that --registers names")
    if depth is None or depth_of is None:
        return with_latency(design, args.latency, steps_of)
    return with_stage_depth(design, depth, steps_of, depth_of)


def _element(design: Design, latency: int | str) -> Design:
    """An element with a register between its two parts, or without."""
    if latency not in (1, 2):
        raise UsageError(f"Latency of an element must be 1 or 2 cycles, not {latency!r}")
    return dataclasses.replace(design, registers=design.parts[:1] if latency == 2 else None)


def with_latency(design: Design, latency: int | str, steps_of: StepsOf) -> Design:
    """The design with ``latency`` ranks of registers, the last one at its output, its stages as even as they can be.

    ``design``: form ``pipelined``. :class:`UsageError` where the neuron has not as many places for registers.
    """
    places = design.places
    if isinstance(latency, bool) or not isinstance(latency, int) or not 1 <= latency <= len(places):
        raise UsageError(f"Latency must be an integer from 1 to {len(places)} cycles for this "
                         f"{design.neuron.upper()} neuron, not {latency!r}")
    if latency == len(places):
        return dataclasses.replace(design, registers=places)
    return dataclasses.replace(design, registers=balance(places, _steps(design, steps_of), latency))


def with_stage_depth(design: Design, depth: int | str, steps_of: StepsOf,
                     depth_of: Callable[[Design], int]) -> Design:
    """The design with the least latency with which no stage is more than ``depth`` gates deep, as mapped.

    ``design``: form ``pipelined``. :class:`UsageError` where registers everywhere are not enough.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise UsageError(f"Stage depth must be an integer of 1 or more gates, not {depth!r}")
    places, steps = design.places, _steps(design, steps_of)
    for latency in range(1, len(places) + 1):
        candidate = dataclasses.replace(design, registers=balance(places, steps, latency))
        found = depth_of(candidate)
        if found <= depth:
            return candidate
    raise UsageError(f"Stage depth must be {found} or more gates for this {design.neuron.upper()} neuron, "
                     f"with registers everywhere, not {depth}")


def balance(places: Sequence[str], steps: Sequence[Stage], latency: int) -> tuple[str, ...]:
    """The places that split the steps into ``latency`` stages, the deepest one as shallow as can be.

    Of such splits the one with the fewest flip-flops. ``steps[i]`` lies before ``places[i]``. A stage's depth is
    taken as the sum of its steps', which is a little more than what they are together.
    """
    reached = [0, *itertools.accumulate(step.depth for step in steps)]  # gates up to each place
    # behind[i]: of the splits so far that end at place i, (depth of the deepest stage, flip-flops, where)
    behind = {0: [(0, 0, ())]}
    for stage in range(latency):
        ends = [len(steps)] if stage == latency - 1 else range(1, len(steps))
        behind = {end: _pareto([(max(deepest, reached[end] - reached[start]), flip_flops + steps[end - 1].flip_flops,
                                 (*chosen, end))
                                for start, splits in behind.items() if start < end
                                for deepest, flip_flops, chosen in splits])
                  for end in ends}
    return tuple(places[end - 1] for end in min(behind[len(steps)])[2])


def _pareto(splits: list[tuple[int, int, tuple[int, ...]]]) -> list[tuple[int, int, tuple[int, ...]]]:
    """The splits that no other one betters in depth and in flip-flops."""
    best: list[tuple[int, int, tuple[int, ...]]] = []
    for split in sorted(splits):
        if not best or split[1] < best[-1][1]:
            best.append(split)
    return best


def _steps(design: Design, steps_of: StepsOf) -> list[Stage]:
    """The step before each place."""
    steps = steps_of(dataclasses.replace(design, registers=design.places))
    if len(steps) != len(design.places):
        raise RunError(f"the mapped neuron has {len(steps)} pipeline stages where {len(design.places)} were built")
    return steps
