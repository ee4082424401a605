# SPDX-License-Identifier: Apache-2.0
"""Vectors that reach the corners of a neuron: its extremes, single inputs, ties, and seeded random ones."""

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.choices import SCALARS

from .vectors import value_range

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat
    from bmhw.hdl.formats.mac import MacFormat

__all__ = ["corner_vectors", "random_vectors", "vectors"]

Inputs = dict[str, NDArray[np.int64]]

# Positions at which a single input stands out; more would only repeat what the random vectors do.
_POSITIONS = 16


def vectors(number_format: "MacFormat | BmFormat", count: int, seed: int = 0) -> Inputs:
    """``count`` vectors: the corners first (as many as fit), then random ones."""
    corners = corner_vectors(number_format)
    taken = min(count, len(next(iter(corners.values()))))
    random = random_vectors(number_format, count - taken, seed)
    return {port: np.concatenate([corners[port][:taken], random[port]]) for port in corners}


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
