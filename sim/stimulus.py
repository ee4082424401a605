# SPDX-License-Identifier: Apache-2.0
"""Vectors that exercise a neuron: its extremes, single inputs, what shows at its output, and seeded random ones."""

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.choices import SCALARS
from bmhw.hdl.formats.mac import MacFormat

from .bm_coverage import Coverage
from .bm_stimulus import bm_vectors
from .mac_stimulus import mac_vectors
from .vectors import value_range

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat

__all__ = ["corner_vectors", "needed_vectors", "random_vectors", "vectors"]

Inputs = dict[str, NDArray[np.int64]]

# Positions at which a single input stands out; more would only repeat what the random vectors do.
_POSITIONS = 16


# Vectors without which carries, trees and ties are not met often enough, found by mutants of many exports.
_LEAST = 320
# Values in all vectors of one input port: a bench stays a matter of seconds in Icarus.
_LARGEST = 1 << 16
# One vector in so many is random.
_RANDOM = 10


def needed_vectors(number_format: "MacFormat | BmFormat") -> int:
    """How many vectors exercise the format: 320, more where tables have more entries or a maximum more inputs.

    Of neurons with so many inputs that a simulator would take minutes, no more than 65,536 values an input port:
    then not every input wins by every digit.
    """
    if isinstance(number_format, MacFormat):
        return _LEAST
    corners = len(next(iter(corner_vectors(number_format).values())))
    needed = corners + Coverage(number_format).needed * _RANDOM // (_RANDOM - 1)
    return max(_LEAST, min(needed, _LARGEST // number_format.inputs))


def vectors(number_format: "MacFormat | BmFormat", count: int | None = None, seed: int = 0) -> Inputs:
    """``count`` vectors (default: :func:`needed_vectors`), chosen by what they exercise.

    First the corners (:func:`corner_vectors`; up to half of all vectors), then those of :func:`~bmhw.sim.mac_stimulus.
    mac_vectors` or :func:`~bmhw.sim.bm_stimulus.bm_vectors`, whose docstrings say what they cover, and random ones
    (a tenth). The same arguments give the same vectors. Fewer than needed leave table entries unread and inputs that
    never win a maximum.
    """
    if count is None:
        count = needed_vectors(number_format)
    corners = corner_vectors(number_format)
    taken = min(count // 2, len(next(iter(corners.values()))))
    chance = (count - taken) // _RANDOM
    chosen = mac_vectors if isinstance(number_format, MacFormat) else bm_vectors
    rest = chosen(number_format, count - taken - chance, np.random.default_rng(seed))
    random = random_vectors(number_format, chance, seed)
    return {port: np.concatenate([corners[port][:taken], rest[port], random[port]]) for port in corners}


def corner_vectors(number_format: "MacFormat | BmFormat") -> Inputs:
    """Zero, every combination of the ports' smallest and largest values, and one input that stands out."""
    limits = _limits(number_format)
    rows: list[dict[str, NDArray[np.int64]]] = []

    def add(**values):
        rows.append(
            {
                port: np.broadcast_to(np.int64(value), (elements,) if elements else ())
                for (port, (_, _, elements)), value in zip(limits.items(), values.values(), strict=True)
            }
        )

    add(**dict.fromkeys(limits, 0))
    for choice in itertools.product((0, 1), repeat=len(limits)):
        add(**{port: limit[pick] for (port, limit), pick in zip(limits.items(), choice, strict=True)})
    inputs = number_format.inputs
    for position in np.unique(np.linspace(0, inputs - 1, min(inputs, _POSITIONS)).astype(int)):
        # each array in turn has its largest value in one place only, on a floor of its middle
        for single in (port for port, (_, _, elements) in limits.items() if elements):
            row = {}
            for port, (low, high, elements) in limits.items():
                row[port] = np.full((elements,) if elements else (), (low + high + 1) // 2)
            row[single] = np.where(np.arange(inputs) == position, limits[single][1], limits[single][0])
            rows.append(row)
    return {port: np.stack([row[port] for row in rows]).astype(np.int64) for port in limits}


def random_vectors(number_format: "MacFormat | BmFormat", count: int, seed: int) -> Inputs:
    """``count`` random vectors; half of them uniform, half shifted right by a random number of bits.

    The shift spreads magnitudes evenly over powers of two, so that low codes win a maximum as well.
    """
    generator = np.random.default_rng(seed)
    result = {}
    for port, (low, high, elements) in _limits(number_format).items():
        shape = (count, elements) if elements else (count,)
        values = generator.integers(low, high, shape, dtype=np.int64, endpoint=True)
        bits = max(-low, high).bit_length()
        shifts = generator.integers(0, bits + 1, count) * (np.arange(count) % 2)
        result[port] = values >> (shifts[:, np.newaxis] if elements else shifts)
    return result


def _limits(number_format: "MacFormat | BmFormat") -> dict[str, tuple[int, int, int]]:
    """For each port the smallest and largest value and the elements of its array (0: one value a vector)."""
    return {
        port: (*value_range(number_format, port), 0 if port in SCALARS else elements)
        for port, (_, elements) in number_format.inputs_of.items()
    }
