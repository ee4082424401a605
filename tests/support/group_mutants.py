# SPDX-License-Identifier: Apache-2.0
"""Mutants of what belongs to groups: inputs in another group or in none, a 0 that isn't exact, a wrong residual.

Each is, for :func:`support.mutants.with_mutants`, what takes the place of some expressions. They change what lies
between the parts of a neuron, whatever the architecture of those.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons.design import Design

__all__ = ["group_mutants"]

Mutant = dict[tuple[str, str], str]


def group_mutants(design: Design, sum_module: str = "") -> dict[str, Mutant]:
    """What is wrong, in words -> the mutant. ``sum_module``: the name of the module of one sum."""
    fmt = design.format
    mutants = dict(_residuals(fmt, "combine" if design.neuron == "bm" else "compression"))
    if design.neuron == "bm":
        mutants |= {**dict(_inputs(fmt)), **dict(_zeros(fmt, sum_module))}
    return mutants


class _Branch:
    """The candidates of a branch on the ports of the part ``maxima``, and its maxima behind it."""

    def __init__(self, fmt: BmFormat, branch: int):
        self.sums, self.enter = "s" if fmt.layout == "signed" else f"s{branch}", f"enter{branch}"
        self.maxima, self.masked = f"m{branch}", fmt.masked
        self.width, self.groups, self.each = fmt.maximum_bits, fmt.groups, fmt.candidates[branch - 1]

    def exchanged(self, one: int, other: int) -> Mutant:
        order = {one: other, other: one}
        return self._candidates({place: (self._sum(order[place]), self._enters(order[place])) for place in order})

    def left_out(self, place: int) -> Mutant:
        return self._candidates({place: (self._sum(place) if self.masked else f"{self.width}'h0", "1'h0")})

    def moved(self, place: int, group: int) -> Mutant:
        """A candidate that enters another group's maximum."""
        old, new = f"exp2_{self.maxima}[{(group + 1) * self.width - 1}:{group * self.width}]", self._sum(place)
        larger = f"({self._enters(place)} & ({new} > {old})) ? {new} : {old}"
        maxima = [f"exp2_{self.maxima}[{(g + 1) * self.width - 1}:{g * self.width}]" for g in range(self.groups)]
        maxima[group] = f"({larger})"
        return self.left_out(place) | {("exp2", self.maxima): _joined(maxima)}

    def _sum(self, place: int) -> str:
        return f"maxima_{self.sums}[{(place + 1) * self.width - 1}:{place * self.width}]"

    def _enters(self, place: int) -> str:
        return f"maxima_{self.enter}[{place}]" if self.masked else "1'h1"

    def _candidates(self, changed: Mapping[int, tuple[str, str]]) -> Mutant:
        """All candidates, some of them changed: sum, and whether it enters."""
        pairs = [changed.get(place, (self._sum(place), self._enters(place)))
                 for place in range(self.groups * self.each)]
        sums = {("maxima", self.sums): _joined([value for value, _ in pairs])}
        return sums | ({("maxima", self.enter): _joined([enter for _, enter in pairs])} if self.masked else {})


def _inputs(fmt: BmFormat) -> Iterator[tuple[str, Mutant]]:
    """Candidates of each branch (of layout ``signed``: inputs of both) that are exchanged, moved or left out."""
    branches = [[_Branch(fmt, branch)] for branch in range(1, len(fmt.branches) + 1)]
    if fmt.layout == "signed":
        branches = [[branch for single in branches for branch in single]]

    def both(together: list[_Branch], what: str, *where: int) -> Mutant:
        return {key: text for branch in together for key, text in getattr(branch, what)(*where).items()}

    for together in branches:
        each, words = together[0].each, " and ".join(branch.maxima for branch in together)
        for place in range(fmt.groups * each):
            yield f"{words}: candidate {place} left out", both(together, "left_out", place)
        for group in range(fmt.groups - 1):
            last, first = (group + 1) * each - 1, (group + 1) * each
            if each > 1:  # of groups of one candidate each the sum stays the same
                yield f"{words}: candidates {last} and {first} exchanged", both(together, "exchanged", last, first)
            yield f"{words}: candidate {last} in group {group + 1}", both(together, "moved", last, group + 1)
            yield f"{words}: candidate {first} in group {group}", both(together, "moved", first, group)


def _zeros(fmt: BmFormat, sum_module: str) -> Iterator[tuple[str, Mutant]]:
    """Candidates that enter though one of their codes is 0, and maxima of 0 that are a step."""
    if fmt.zero != "exact":
        return
    if fmt.sums == "full":
        for words, reached in (("no mask", "1'h1"), ("mask of c alone", "(| c)"), ("mask of k alone", "(| k)")):
            yield words, {(sum_module, "reached"): reached}
    step = int(dataclasses.replace(fmt.exp2_unit, zero="step").compute(0))
    bits = fmt.exp2_unit.out_bits
    for branch in range(1, len(fmt.branches) + 1) if step else ():
        for group in range(fmt.groups):
            terms = [f"combine_e{branch}[{(g + 1) * bits - 1}:{g * bits}]" for g in range(fmt.groups)]
            low, width = group * fmt.maximum_bits, fmt.maximum_bits
            nothing = f"exp2_m{branch}[{low + width - 1}:{low}] == {width}'h0"
            terms[group] = f"({nothing} ? {bits}'h{step:x} : {terms[group]})"
            yield f"exp2 of m{branch} 0 of group {group} is a step", {("combine", f"e{branch}"): _joined(terms)}


def _residuals(fmt, part: str) -> Iterator[tuple[str, Mutant]]:
    bits = fmt.residual_bits
    if bits:
        yield "residual dropped", {(part, "r"): f"{bits}'h0"}
        yield "residual doubled", {(part, "r"): f"{{ r[{bits - 2}:0], 1'h0 }}"}
        yield "residual halved", {(part, "r"): f"{{ r[{bits - 1}], r[{bits - 1}:1] }}"}
        yield "residual inverted", {(part, "r"): "~r"}


def _joined(parts: list[str]) -> str:
    return "{ " + ", ".join(parts[::-1]) + " }"
