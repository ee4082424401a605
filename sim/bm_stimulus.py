# SPDX-License-Identifier: Apache-2.0
"""Vectors of a bipolar morphological neuron: who wins a maximum, by which digit, and whether the output shows it."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .addends import addends
from .bm_candidates import maxima_of
from .bm_coverage import Coverage, Uncovered
from .group_stimulus import ANYWHERE, GroupDrafting

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat

__all__ = ["bm_vectors"]

Integers = NDArray[np.int64]
Inputs = dict[str, Integers]

# Drafts of a vector, of which the one that covers most that is new is taken: fewer for wide neurons, in blocks.
_DRAFTS, _BLOCK = 8, 32
_WIDE = 256


def bm_vectors(fmt: "BmFormat", count: int, generator: np.random.Generator) -> Inputs:
    """``count`` vectors of a bipolar morphological neuron, drawn from ``generator``.

    The inputs take turns in winning each maximum, those of each group its own. Several drafts are made of each vector,
    and the one is taken that covers most of what none before it has (:class:`~bmhw.sim.bm_coverage.Coverage`). A
    draft's winner has a wanted sum; the others lie anywhere below it, or tie, or are one less, or lose by one digit
    with all that follows in their favour. The bias then moves a linear end's result next to a rounding, or to an entry
    of its table that was not met yet; with a logarithmic end the distance of the two maxima is chosen, and biases win
    at times. Groups are drafted each for itself, in some vectors all small but one, in others some of them large, so
    that their sum is anywhere up to their number.
    """
    drafts = max(2, _DRAFTS if fmt.inputs <= _WIDE else _DRAFTS * _WIDE // fmt.inputs)
    coverage, drafting = Coverage(fmt), _Drafting(fmt, generator)
    turns, taken = _turns(fmt, max(count, 1), generator), []
    for start in range(0, max(count, 1), _BLOCK):
        winners = turns[start : start + _BLOCK]
        inputs = drafting.draft(np.repeat(winners, drafts, axis=0), coverage.uncovered())
        chosen = coverage.choose(inputs, drafts)
        taken.append({port: values[chosen] for port, values in inputs.items()})
    return {port: np.concatenate([block[port] for block in taken])[:count] for port in fmt.inputs_of}


def _turns(fmt: "BmFormat", count: int, generator: np.random.Generator) -> Integers:
    """Which input of its group wins each maximum, shape (count, groups, branches); every input in turn, in ever new
    company."""
    places = [np.arange(fmt.group_inputs)] * len(fmt.branches)
    if fmt.layout == "wired":
        places = [np.arange(fmt.positive_inputs), np.arange(fmt.positive_inputs, fmt.group_inputs)]
    columns = []
    for place in places * fmt.groups:
        rounds = -(-count // len(place))
        columns.append(np.concatenate([generator.permutation(place) for _ in range(rounds)])[:count])
    return np.stack(columns, axis=1).reshape(count, fmt.groups, len(fmt.branches))


class _Drafting:
    """Random vectors with given winners."""

    def __init__(self, fmt: "BmFormat", generator: np.random.Generator):
        self.fmt, self.random = fmt, generator
        self._group = GroupDrafting(dataclasses.replace(fmt, inputs=fmt.group_inputs, groups=1, residual_bits=0),
                                    generator)

    def draft(self, winners: Integers, uncovered: Uncovered) -> Inputs:
        """A vector a row of ``winners`` (rows, groups, branches)."""
        levels = self._levels(len(winners))
        groups = [self._group.draft(winners[:, group], dataclasses.replace(uncovered, sums=(sums,)), levels[:, group])
                  for group, sums in enumerate(uncovered.sums)]
        inputs = {port: values if values.ndim == 1 else np.concatenate([group[port] for group in groups], axis=1)
                  for port, values in groups[0].items()}
        return inputs if self.fmt.combine == "logarithmic" else inputs | self._addends(inputs, uncovered)

    def _levels(self, rows: int) -> Integers:
        """The level of each group (:meth:`GroupDrafting.draft`), shape (rows, groups)."""
        groups = self.fmt.groups
        levels = np.full((rows, groups), ANYWHERE)
        if groups == 1:
            return levels
        kind, share = self.random.random((rows, 1)), self.random.random((rows, 1))
        sign = np.where(self.random.random((rows, 1)) < 0.75, 1, -1)
        some_large = np.where(self.random.random((rows, groups)) < share, sign, 0)
        one_of_all = np.arange(groups) == self.random.integers(0, groups, (rows, 1))
        return np.where(kind < 0.3, some_large, np.where((kind < 0.6) & ~one_of_all, 0, levels))

    def _addends(self, inputs: Inputs, uncovered: Uncovered) -> Inputs:
        """Bias and residual of a linear end, which move its result to where it shows most."""
        fmt, rows = self.fmt, len(next(iter(inputs.values())))
        terms = fmt.exp2_unit.compute(np.stack(maxima_of(fmt, inputs))).sum(axis=2)
        total = (np.array(fmt.branches)[:, np.newaxis] * terms).sum(axis=0)
        anywhere = total + self.random.integers(fmt.bias.minimum, fmt.bias.maximum, rows, endpoint=True)
        kind = self.random.random(rows)
        if fmt.result == "linear":
            # a multiple of a power of two, or one less: a carry through every column, or none
            zeros = self.random.integers(0, fmt.y.bits, rows)
            wanted = np.where(kind < 0.25, anywhere, (anywhere >> zeros << zeros) - (kind < 0.5))
        else:
            # an entry or a rounding not met yet; a rounding, or what lies a power of two behind it; saturation; below 0
            one = min(fmt.end.full_scale, fmt.y.maximum)
            roundings = uncovered.roundings[self.random.integers(0, len(uncovered.roundings), rows)]
            away = 1 << self.random.integers(0, fmt.out_fraction, rows)
            away = (self.random.random(rows) * away).astype(np.int64) * (self.random.random(rows) < 0.4)
            side = self.random.integers(0, 2, rows)
            wanted = np.where(side == 1, roundings + away, roundings - 1 - away)
            if len(uncovered.results):
                wanted = np.where(kind < 0.55, self._within_reach(uncovered.results, total), wanted)
            beyond = one + self.random.integers(-1, 2, rows)
            above = self.random.integers(one, fmt.y.maximum + 1, rows)
            above = above >> fmt.out_fraction << fmt.out_fraction
            power = 1 << self.random.integers(0, fmt.y.bits - 1, rows)
            wanted = np.select([kind > 0.98, kind > 0.95, kind > 0.9], [beyond, above, -power], wanted)
        return addends(fmt, wanted - total, self.random)

    def _within_reach(self, results: Integers, total: Integers) -> Integers:
        """One of the ``results`` for each ``total``: with several groups, which spread far, one to which the
        bias leads from there, if it does to any."""
        if self.fmt.groups == 1:
            return results[self.random.integers(0, len(results), len(total))]
        results = np.sort(results)
        begin = np.searchsorted(results, total + self.fmt.bias.minimum)
        end = np.searchsorted(results, total + self.fmt.bias.maximum, side="right")
        begin, end = np.where(end > begin, [begin, end], [[0], [len(results)]])
        return results[begin + (self.random.random(len(total)) * (end - begin)).astype(np.int64)]
