# SPDX-License-Identifier: Apache-2.0
"""The maxima of a whole bipolar morphological layer in short integers, as fast as NumPy does it.

Gives what ``BmFormat.maxima`` gives for every neuron; only the order of the work differs.
"""

from collections.abc import Mapping

import numpy as np
from bmhw.hdl.neuron_formats import BmFormat
from numpy.typing import NDArray

__all__ = ["layer_maxima"]

# Columns worked on at once: the running maxima, a candidate row and the sums stay in the first-level cache.
BLOCK = 8192


def layer_maxima(
    fmt: BmFormat,
    patches: NDArray[np.int64],
    weights: Mapping[str, NDArray[np.int64]],
) -> list[NDArray]:
    """The maxima of each branch, (channels, columns), for input codes of shape (n, columns)."""
    dtype = np.int16 if fmt.full_scale < 1 << 15 else np.int32
    table = fmt.log2_unit.compute(np.arange((1 << fmt.x.magnitude_bits) + 1)).astype(dtype)
    codes, negative = table[np.abs(patches)], patches < 0
    # what enters a maximum as 0: no weight code lifts it above 0, where every maximum starts
    absent = dtype(-fmt.weight.maximum)
    if fmt.layout == "signed":
        k, plus = weights["k"], weights["sign"] == 0
        sides = [(np.where(negative, absent, codes), plus)]
        if negative.any():
            sides.append((np.where(negative, codes, absent), ~plus))
        branches = [
            [(candidates, k, chosen) for candidates, chosen in sides],
            [(candidates, k, ~chosen) for candidates, chosen in sides],
        ]
    else:
        halves = [np.where(negative, 0, codes)]
        if fmt.layout == "bipolar":
            halves.append(np.where(negative, codes, 0))
        branches = [[(half.astype(dtype), weights[port], None)] for half in halves for port in ("k1", "k2")]
    channels, columns = next(iter(weights.values())).shape[0], patches.shape[1]
    maxima = []
    for terms in branches:
        maximum = np.zeros((channels, columns), dtype=dtype)
        for candidates, k, chosen in terms:
            _raise(maximum, candidates, k.astype(dtype), chosen)
        maxima.append((maximum >> fmt.dropped_bits) << fmt.dropped_bits)
    return maxima


def _raise(maximum: NDArray, candidates: NDArray, k: NDArray, chosen: NDArray[np.bool_] | None) -> None:
    """``maximum[o] = max(maximum[o], candidates[i] + k[o, i])`` over inputs i (``chosen[o, i]`` if given)."""
    buffer = np.empty(BLOCK, dtype=maximum.dtype)
    taps = [
        range(k.shape[1]) if chosen is None else np.nonzero(row)[0]
        for row in (k if chosen is None else chosen)
    ]
    for start in range(0, maximum.shape[1], BLOCK):
        block = candidates[:, start : start + BLOCK]
        sums = buffer[: block.shape[1]]
        for output, inputs in enumerate(taps):
            running = maximum[output, start : start + BLOCK]
            for i in inputs:
                np.add(block[i], k[output, i], out=sums)
                np.maximum(running, sums, out=running)
