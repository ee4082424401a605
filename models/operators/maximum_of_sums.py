# SPDX-License-Identifier: Apache-2.0
"""The maxima of a whole bipolar morphological layer in short integers: in C++, or NumPy without a compiler.

Gives what ``BmFormat.maxima`` gives for every neuron; only the order of the work differs.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM

from .native_build import library

__all__ = ["Rows", "candidate_maps", "layer_rows", "maxima_of_rows"]

# Columns that NumPy works on at once: running maxima, candidates and sums stay in the first-level cache.
BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Rows:
    """The terms of a layer's maxima: row r has terms ``start[r]`` to ``start[r + 1]``, candidate plus k.

    Rows are (branch, channel, group) in C order. ``k``: the weight's code less the format's ``sum_origin``.
    ``start``: int64, ``index``: int32, ``k``: the candidates' type.
    """

    start: NDArray[np.int64]
    index: NDArray[np.int32]
    k: NDArray

    def __len__(self) -> int:
        return len(self.start) - 1


def _dtype(fmt: BmFormat) -> type:
    """Holds every sum, and those of what may not enter a maximum (:func:`candidate_maps`)."""
    return np.int16 if fmt.full_scale + fmt.sum_origin < 1 << 15 else np.int32


def candidate_maps(fmt: BmFormat, x: NDArray[np.int64]) -> NDArray:
    """What enters a layer's sums, for input codes x (or log codes, with the sign of what they stand for) of shape
    (batch, channels, ...).

    ``relu``: the log codes. Signed inputs: those of the positive and those of the negative parts, behind
    each other in the channels. What may not enter a maximum is so low that no weight lifts it above 0.
    """
    dtype = _dtype(fmt)
    if fmt.boundary == "layer":
        table = np.arange(fmt.activation.maximum + 1, dtype=dtype)
    else:
        table = fmt.log2_unit.compute(np.arange((1 << fmt.x.magnitude_bits) + 1)).astype(dtype)
    nothing = dtype(-fmt.weight.maximum)
    if fmt.zero == "exact":
        table = np.where(table == 0, nothing, table)
    codes = table[np.abs(x)]
    if not fmt.signed_inputs:
        return codes
    absent = nothing if fmt.layout == "signed" or fmt.zero == "exact" else dtype(0)
    return np.concatenate([np.where(x < 0, absent, codes), np.where(x < 0, codes, absent)], axis=1)


def layer_rows(fmt: BmFormat, weights: Mapping[str, NDArray[np.int64]]) -> Rows:
    """The terms of all branches, channels and groups; candidates as in :func:`candidate_maps`, one after the other.

    weights: port -> (channels, n).
    """
    groups = np.arange(fmt.inputs).reshape(fmt.groups, -1)
    indices, codes = [], []

    def add(row: NDArray, inputs: NDArray, candidates: NDArray) -> None:
        """One maximum: a neuron's weights, which inputs, and which candidates these are."""
        k = row[inputs]
        present = k > 0 if fmt.zero == "exact" else slice(None)
        indices.append(candidates[present])
        codes.append(k[present])

    if fmt.layout in ONE_SUM:
        k, minus = weights["k"], weights["sign"] == 1
        for branch in (0, 1):
            for row, side in zip(k, minus != bool(branch), strict=True):
                for group in groups:
                    # a positive part enters this branch where side is False, a negative one where it is True
                    first, second = group[~side[group]], group[side[group]]
                    if fmt.signed_inputs:
                        add(row, np.concatenate([first, second]), np.concatenate([first, second + fmt.inputs]))
                    else:
                        add(row, first, first)
    else:
        for half in range(len(fmt.branches) // 2):
            for port in ("k1", "k2"):
                for row in weights[port]:
                    for group in groups:
                        add(row, group, group + half * fmt.inputs)
    start = np.concatenate([[0], np.cumsum([len(index) for index in indices])]).astype(np.int64)
    terms = np.concatenate(codes) - fmt.sum_origin
    return Rows(start, np.concatenate(indices).astype(np.int32), terms.astype(_dtype(fmt)))


def maxima_of_rows(candidates: NDArray, rows: Rows, threads: int = 1) -> NDArray:
    """(rows, columns): ``max(0, max_t candidates[index[t]] + k[t])`` over each row's terms.

    candidates: (count, columns), int16 or int32; no sum overflows.
    """
    maximum = np.zeros((len(rows), candidates.shape[1]), dtype=candidates.dtype)
    compiled = library("maximum_of_sums")
    if candidates.dtype == np.int16 and not isinstance(compiled, str):
        candidates = np.ascontiguousarray(candidates)
        arrays = (candidates, rows.start, rows.index, rows.k, maximum)
        compiled.maxima_of_rows(
            *(ctypes.c_int64(size) for size in (*candidates.shape, len(rows))),
            *(ctypes.c_void_p(array.ctypes.data) for array in arrays),
            ctypes.c_int(threads),
        )
        return maximum
    return plain_maxima_of_rows(candidates, rows, maximum)


def plain_maxima_of_rows(candidates: NDArray, rows: Rows, maximum: NDArray) -> NDArray:
    """The same in NumPy; fills and returns ``maximum``, which holds zeros."""
    buffer = np.empty(BLOCK, dtype=maximum.dtype)
    for start in range(0, maximum.shape[1], BLOCK):
        block = candidates[:, start : start + BLOCK]
        sums = buffer[: block.shape[1]]
        for row in range(len(rows)):
            running = maximum[row, start : start + BLOCK]
            terms = slice(rows.start[row], rows.start[row + 1])
            for i, k in zip(rows.index[terms], rows.k[terms], strict=True):
                np.add(block[i], k, out=sums)
                np.maximum(running, sums, out=running)
    return maximum
