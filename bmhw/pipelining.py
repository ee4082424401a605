# SPDX-License-Identifier: Apache-2.0
"""Where a pipelined neuron has its registers: a given latency, or a given depth between registers.

A neuron with registers everywhere is mapped once; its stages are the steps that a shorter pipeline joins again.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from .errors import RunError, UsageError
from .flow.cache import Cache
from .flow.engine import Engine
from .flow.generation import generate
from .flow.paths import Stage
from .flow.synthesis import Figures, map_design
from .hdl.design import Design

__all__ = ["balance", "with_latency", "with_stage_depth"]


def with_latency(design: Design, latency: int | str, objective: str, engine: Engine, cache: Cache) -> Design:
    """The design with ``latency`` ranks of registers, the last one at its output, its stages as even as they can be.

    ``design``: form ``pipelined``. :class:`UsageError` where the neuron has not as many places for registers.
    """
    if isinstance(latency, bool) or not isinstance(latency, int) or not 1 <= latency <= len(design.places):
        raise UsageError(f"Latency must be an integer from 1 to {len(design.places)} cycles for this "
                         f"{design.neuron.upper()} neuron, not {latency!r}")
    if latency == len(design.places):
        return dataclasses.replace(design, registers=design.places)
    places, steps = _steps(design, objective, engine, cache)
    return dataclasses.replace(design, registers=balance(places, steps, latency))


def with_stage_depth(design: Design, depth: int | str, objective: str, engine: Engine, cache: Cache) -> Design:
    """The design with the least latency with which no stage is more than ``depth`` gates deep, as mapped.

    ``design``: form ``pipelined``. :class:`UsageError` where registers everywhere are not enough.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise UsageError(f"Stage depth must be an integer of 1 or more gates, not {depth!r}")
    places, steps = _steps(design, objective, engine, cache)
    deepest = max(step.depth for step in steps)
    if deepest > depth:
        raise UsageError(f"Stage depth must be {deepest} or more gates for this {design.neuron.upper()} neuron, "
                         f"which has no place for registers inside its deepest step, not {depth}")
    for latency in range(1, len(places)):
        shorter = dataclasses.replace(design, registers=balance(places, steps, latency))
        if _figures(shorter, objective, engine, cache).depth <= depth:
            return shorter
    return dataclasses.replace(design, registers=places)


def balance(places: Sequence[str], steps: Sequence[Stage], latency: int) -> tuple[str, ...]:
    """The places that split the steps into ``latency`` stages, the deepest one as shallow as can be.

    Of such splits the one with the fewest flip-flops. ``steps[i]`` lies before ``places[i]``. A stage's depth is
    taken as the sum of its steps', which is a little more than what they are together.
    """
    last = len(places) - 1

    def cost(chosen: tuple[int, ...]) -> tuple[int, int]:
        bounds = itertools.pairwise((-1, *chosen, last))
        deepest = max(sum(step.depth for step in steps[low + 1:high + 1]) for low, high in bounds)
        return deepest, sum(steps[i].flip_flops for i in chosen)

    best = min(itertools.combinations(range(last), latency - 1), key=cost)
    return tuple(places[i] for i in (*best, last))


def _steps(design: Design, objective: str, engine: Engine, cache: Cache) -> tuple[tuple[str, ...], list[Stage]]:
    """All places for registers, and the step before each."""
    places = design.places
    # part by part: in one netlist the script would make every step as deep as the deepest one to save gates
    steps = _figures(dataclasses.replace(design, registers=places), objective, engine, cache, by_parts=True).stages
    if len(steps) != len(places):
        raise RunError(f"the mapped neuron has {len(steps)} pipeline stages where {len(places)} were built")
    return places, steps


def _figures(design: Design, objective: str, engine: Engine, cache: Cache, by_parts: bool = False) -> Figures:
    generated = generate(design, cache)
    return map_design(generated.verilog, generated.name, by_parts=by_parts, objective=objective, engine=engine,
                      cache=cache, library=None)
