# SPDX-License-Identifier: Apache-2.0
"""Vectors of a multiply-accumulate neuron: sums next to a rounding, so that a wrong bit anywhere reaches the output."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .addends import addends

if TYPE_CHECKING:
    from bmhw.hdl.formats.mac import MacFormat

__all__ = ["mac_vectors"]

Integers = NDArray[np.int64]

# Draws of inputs and weights for each vector; the one whose sum comes closest to the wanted one is taken.
_DRAWS = 8
# Scales, and rounding boundaries for each, among which a vector finds one that its product meets exactly.
_SCALES, _BOUNDARIES = 16, 32


def mac_vectors(fmt: "MacFormat", count: int, generator: np.random.Generator) -> dict[str, Integers]:
    """``count`` vectors of a multiply-accumulate neuron, drawn from ``generator``.

    Inputs and weights are random, weights of either sign or of one, in all orders of magnitude. The bias, which is
    free, then moves the sum where it shows most (with a residual, :func:`~bmhw.sim.addends.addends`):

    - linear result: to a multiple of each power of two, or to one less (a carry through every column, or none), or
      anywhere.
    - code: to a boundary of the rounding, on it and right below it in turn, so that one unit more or less of the sum
      changes the output; with a port ``scale`` the product too lies as close to the boundary as a choice of
      scales and boundaries allows, so that its lowest bits count. The boundaries are those of all codes, of
      saturation, and of each power of two beyond it; negative sums are among them.
    """
    x, w = _draws(fmt, count, generator)
    sums = (x * w).sum(axis=-1)
    if fmt.result == "linear":
        wanted = _special_sums(fmt, sums[:, 0], generator)
        taken = np.abs(sums - wanted[:, np.newaxis]).argmin(axis=1)
        y, scale = wanted, None
    else:
        taken, y, scale = _at_boundaries(fmt, sums, generator)
    rows = np.arange(count)
    result = {"x": x[rows, taken], "w": w[rows, taken], **addends(fmt, y - sums[rows, taken], generator)}
    return result if scale is None else result | {"scale": scale}


def _draws(fmt: "MacFormat", count: int, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """Inputs and weights, shape (count, draws, n)."""
    shape = (count, _DRAWS, fmt.inputs)
    x = generator.integers(fmt.x.minimum, fmt.x.maximum, shape, endpoint=True)
    w = generator.integers(fmt.w.minimum, fmt.w.maximum, shape, endpoint=True)
    # the first draws as they are, then smaller and smaller ones; every second one with products of one sign mostly
    draw = np.arange(_DRAWS)[:, np.newaxis]
    x, w = x >> np.where(draw % 4 == 2, draw // 2, 0), w >> np.where(draw % 4 == 3, draw // 2, 0)
    positive = np.where(w < 0, ~w, w)
    aligned = np.where(x < 0, ~positive, positive)
    mostly = generator.integers(0, 8, shape) > 0
    aligned = np.where(generator.integers(0, 4, (count, _DRAWS, 1)) > 0, aligned, ~aligned)
    w = np.where((draw % 2 == 1) & mostly, aligned, w)
    # the last draw next to the largest sum
    for values, code in ((x, fmt.x), (w, fmt.w)):
        distance = generator.integers(0, code.maximum + 1, (count, fmt.inputs))
        values[:, -1] = code.maximum - (distance >> generator.integers(0, code.bits, (count, 1)))
    return x, w


def _special_sums(fmt: "MacFormat", sums: Integers, generator: np.random.Generator) -> Integers:
    """Sums to aim at: anywhere the bias leads, most then cut to a multiple of a power of two, some to one less."""
    count = len(sums)
    anywhere = sums + generator.integers(fmt.bias.minimum, fmt.bias.maximum, count, endpoint=True)
    zeros = generator.permutation(np.arange(count) % fmt.y.bits)
    return np.where(np.arange(count) % 4 == 3, anywhere, (anywhere >> zeros << zeros) - (np.arange(count) % 4 == 2))


def _at_boundaries(
    fmt: "MacFormat", sums: Integers, generator: np.random.Generator
) -> tuple[Integers, Integers, Integers | None]:
    """Which draw is taken, the sum to reach with it, and the scale (None without such a port)."""
    count = len(sums)
    shift, half = fmt.requantize_shift, 1 << fmt.requantize_shift >> 1
    largest = int(sums.max()) + fmt.bias.maximum
    scales = _scales(fmt, count, generator)
    rows = np.arange(count)
    # the result that is aimed at: a code, saturation, a power of two beyond it; with another scale if need be
    most = np.maximum((largest * scales[:, 0] + half) >> shift, 1)
    aim = 1 + (generator.random(count) * np.minimum(most, fmt.z.maximum + 1)).astype(np.int64)
    beyond = 1 << generator.integers(fmt.code_bits, fmt.code_bits + np.maximum(1, _bit_length(most) - fmt.code_bits))
    kind = np.arange(count) % 10
    aim = np.where(kind == 8, fmt.z.maximum, np.where(kind == 9, beyond, aim))
    wanted = ((aim << shift) - half) // scales[:, 0]
    negative = -1 - (1 << generator.integers(0, fmt.y.bits - 1, count)) * generator.integers(0, 2, count)
    wanted = np.where(kind == 7, negative, wanted)
    taken = np.abs(sums - wanted[:, np.newaxis]).argmin(axis=1)
    low, high = sums[rows, taken] + fmt.bias.minimum, sums[rows, taken] + fmt.bias.maximum
    wanted = np.clip(wanted, low, high)

    # boundaries around the one aimed at, for each scale; y is the first sum on or behind each
    below = np.arange(count) // 10 % 2 == 1
    near = (wanted[:, np.newaxis] * scales + half) >> shift
    room = np.maximum((high - low)[:, np.newaxis] * scales >> shift + 1, 1)
    spread = np.minimum(room, np.maximum(fmt.z.maximum >> 2, 2))[..., np.newaxis]
    steps = (generator.random((*scales.shape, _BOUNDARIES)) * (2 * spread + 1)).astype(np.int64) - spread
    steps[..., 0] = 0
    steps = np.where((kind >= 7)[:, np.newaxis, np.newaxis], 0, steps)
    boundary = ((near[..., np.newaxis] + steps) << shift) - half
    y = -(-boundary // scales[..., np.newaxis]) - below[:, np.newaxis, np.newaxis]
    distance = np.abs(y * scales[..., np.newaxis] - boundary + below[:, np.newaxis, np.newaxis])
    possible = (y >= low[:, np.newaxis, np.newaxis]) & (y <= high[:, np.newaxis, np.newaxis]) & (boundary > 0)
    # the product closest to the boundary; a sum that ends in zeros (or ones, below), for carries; or any
    ends = y + below[:, np.newaxis, np.newaxis]
    third = (rows % 4)[:, np.newaxis, np.newaxis]
    cost = np.where(third % 2 == 0, distance, np.where(third == 1, -(ends & -ends), 0))
    cost = np.where(possible, cost, np.iinfo(np.int64).max)
    flat = cost.reshape(count, -1).argmin(axis=1)
    found = possible.reshape(count, -1)[rows, flat] & (kind != 7)
    chosen = np.where(found, scales[rows, flat // _BOUNDARIES], scales[:, 0])
    y = np.where(found, y.reshape(count, -1)[rows, flat], wanted)
    # more than half of them up to a power of two away from the boundary: what is wrong by that much still shows, and
    # the bits below it are free
    away = 1 << (generator.random(count) * _bit_length((1 << shift) // chosen)).astype(np.int64)
    away = (generator.random(count) * away).astype(np.int64) * (found & (rows % 5 > 1))
    y = np.clip(y + np.where(below, -away, away), low, high)
    return taken, y, chosen if fmt.has_scale else None


def _scales(fmt: "MacFormat", count: int, generator: np.random.Generator) -> Integers:
    """Scales to choose from, shape (count, scales): most in the upper half of their range, the others anywhere."""
    if not fmt.has_scale:
        return np.ones((count, 1), dtype=np.int64)
    scales = generator.integers(fmt.scale.maximum // 2 + 1, fmt.scale.maximum, (count, _SCALES), endpoint=True)
    anywhere = generator.integers(1, fmt.scale.maximum, (count, _SCALES), endpoint=True)
    return np.where(np.arange(count)[:, np.newaxis] % 3 == 2, anywhere, scales)


def _bit_length(values: Integers) -> Integers:
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
