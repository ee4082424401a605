# SPDX-License-Identifier: Apache-2.0
"""The operators of training on a GPU, in Triton: maxima of products, and what lies around a p-norm's convolution.

Contracts: ``operators.plain_forward`` and ``smoothed._Plain``. Imported only where tensors lie on a GPU: PyTorch's
builds for one bring Triton. ``TRITON_INTERPRET=1`` runs the kernels on a CPU, as the tests do.
"""

import torch
import torch.nn.functional as functional
import triton
import triton.language as tl
from torch import Tensor

from .common import SMALLEST, SMALLEST_SCALE, output_size
from .convolution import channels_last, convolved, convolved_gradients

__all__ = ["TritonNorm", "forward"]

PIXELS, OUTPUTS = 128, 32
"""Tile of a program of the maxima: at most so many outputs; the running maxima stay in registers."""
BLOCK = 1024
"""Elements of a program of the other kernels."""


@triton.jit
def _winner(product, best, tap, winner):
    """The lowest tap of the largest products; none, -1, is the lowest."""
    return tl.where((product > best) | ((product == best) & (tap < winner)), tap, winner)


@triton.jit
def _max_product_kernel(
    x_pointer, w_pointer, values_pointer, winners_pointer,
    height, width, out_height, out_width, outputs, w_rows, pixels, stride, padding,
    CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr, GROUPS: tl.constexpr,
    WANTED: tl.constexpr, PAIRS: tl.constexpr, OUTPUTS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Values (and winners) of OUTPUTS x PIXELS results; x (batch, channels, height, width);
    w (taps, w_rows): each half, or the whole, is filled up with zeros to a multiple of OUTPUTS."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    column, row = pixel % out_width, pixel // out_width % out_height
    image = (pixel // (out_width * out_height)).to(tl.int64)
    real_pixel, real_output = pixel < pixels, output < outputs
    rows = outputs * (2 if PAIRS else 1) * GROUPS
    size = out_height * out_width
    inner = (pixel % size)[None, :]
    real = real_output[:, None] & real_pixel[None, :]
    total = tl.full([OUTPUTS, PIXELS], 0.0, tl.float32)
    for group in range(GROUPS):
        best = tl.full([OUTPUTS, PIXELS], 0.0, tl.float32)
        other = tl.full([OUTPUTS, PIXELS], 0.0, tl.float32)
        if WANTED:
            winner = tl.full([OUTPUTS, PIXELS], -1, tl.int32)
            other_winner = tl.full([OUTPUTS, PIXELS], -1, tl.int32)
        for y in range(KERNEL_HEIGHT):
            for z in range(KERNEL_WIDTH):
                x_row, x_column = row * stride - padding + y, column * stride - padding + z
                inside = real_pixel & (x_row >= 0) & (x_row < height) & (x_column >= 0) & (x_column < width)
                x_place = x_pointer + (image * CHANNELS * height + x_row) * width + x_column
                for member in range(CHANNELS // GROUPS):
                    channel = group * (CHANNELS // GROUPS) + member
                    tap = (channel * KERNEL_HEIGHT + y) * KERNEL_WIDTH + z
                    x = tl.load(x_place + channel * height * width, mask=inside, other=0.0)
                    w = tl.load(w_pointer + tap * w_rows + output)
                    product = w[:, None] * x[None, :]
                    if WANTED:
                        winner = _winner(product, best, tap, winner)
                    best = tl.maximum(best, product)
                    if PAIRS:
                        w = tl.load(w_pointer + tap * w_rows + w_rows // 2 + output)
                        product = w[:, None] * x[None, :]
                        if WANTED:
                            other_winner = _winner(product, other, tap, other_winner)
                        other = tl.maximum(other, product)
        place = (image[None, :] * rows + output[:, None] * GROUPS + group) * size + inner
        if WANTED:
            tl.store(winners_pointer + place, winner, mask=real)
            if PAIRS:
                tl.store(winners_pointer + place + outputs * GROUPS * size, other_winner, mask=real)
        if PAIRS:
            total += best - other
        else:
            tl.store(values_pointer + place, best, mask=real)
    if PAIRS:
        tl.store(values_pointer + (image[None, :] * outputs + output[:, None]) * size + inner, total, mask=real)


def forward(
    x: Tensor, w: Tensor, stride: int, padding: int, groups: int, pairs: bool, wanted: bool = True
) -> tuple[Tensor, Tensor | None]:
    """As ``max_product.plain_forward``; winners are None unless they are ``wanted``."""
    x = x.contiguous()
    batch, channels, height, width = x.shape
    rows, _, kernel_height, kernel_width = w.shape
    outputs = rows // 2 if pairs else rows
    out_height, out_width = output_size(x, w, stride, padding)
    values = x.new_empty(batch, outputs if pairs else outputs * groups, out_height, out_width)
    shape = (batch, rows * groups, out_height, out_width)
    winners = torch.empty(shape if wanted else (1,), dtype=torch.int32, device=x.device)
    pixels = batch * out_height * out_width
    # winners take as many registers as maxima
    tile = max(4, min(OUTPUTS // 2 if wanted else OUTPUTS, triton.next_power_of_2(outputs)))
    sides = w.reshape(-1, outputs, w[0].numel())
    taps = functional.pad(sides, (0, 0, 0, -outputs % tile)).flatten(0, 1).t().contiguous()
    _max_product_kernel[triton.cdiv(pixels, PIXELS), triton.cdiv(outputs, tile)](
        *(x, taps, values, winners),
        *(height, width, out_height, out_width, outputs, taps.shape[1], pixels, stride, padding),
        *(channels, kernel_height, kernel_width, groups, wanted, pairs, tile, PIXELS),
    )
    return values, winners.long() if wanted else None


@triton.jit
def _powers_kernel(values, scales, powers, length, p, SMALLEST: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = place < length
    x = tl.load(values + row * length + place, mask=real, other=0.0) / tl.load(scales + row)
    power = tl.where(x > 0, tl.exp2(p * tl.log2(tl.where(x > 0, x, 1.0))), 0.0)
    tl.store(powers + row * length + place, tl.where(power >= SMALLEST, power, 0.0), mask=real)


@triton.jit
def _difference_kernel(
    sums, x_scales, w_scales, values, count, positions, half, p,
    SMALLEST: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums (batch, positions, groups, 2, half) become quotients norm / sum; values (batch, positions, half)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real, row, output = place < count, place // half, (place % half).to(tl.int32)
    total = tl.full([BLOCK], 0.0, tl.float32)
    for group in range(GROUPS):
        first = sums + (row * GROUPS + group) * 2 * half + output
        a = tl.load(first, mask=real, other=1.0).to(tl.float32)
        b = tl.load(first + half, mask=real, other=1.0).to(tl.float32)
        q = tl.exp2((1 / p - 1) * tl.log2(a + SMALLEST))
        r = tl.exp2((1 / p - 1) * tl.log2(b + SMALLEST))
        w_first = tl.load(w_scales + group * 2 * half + output, mask=real, other=0.0)
        w_second = tl.load(w_scales + group * 2 * half + half + output, mask=real, other=0.0)
        total += w_first * (a * q) - w_second * (b * r)
        tl.store(first, q, mask=real)
        tl.store(first + half, r, mask=real)
    x_scale = tl.load(x_scales + row // positions, mask=real, other=0.0)
    tl.store(values + place, x_scale * total, mask=real)


@triton.jit
def _sums_gradient_kernel(
    gradient, quotients, x_scales, w_scales, result, count, positions, half, GROUPS: tl.constexpr, BLOCK: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real, row, output = place < count, place // half, (place % half).to(tl.int32)
    x_scale = tl.load(x_scales + row // positions, mask=real, other=0.0)
    scaled = x_scale * tl.load(gradient + place, mask=real, other=0.0)
    for group in range(GROUPS):
        scales = w_scales + group * 2 * half + output
        first = (row * GROUPS + group) * 2 * half + output
        q = tl.load(quotients + first, mask=real, other=0.0).to(tl.float32)
        r = tl.load(quotients + first + half, mask=real, other=0.0).to(tl.float32)
        tl.store(result + first, scaled * tl.load(scales, mask=real, other=0.0) * q, mask=real)
        second = -scaled * tl.load(scales + half, mask=real, other=0.0)
        tl.store(result + first + half, second * r, mask=real)


@triton.jit
def _values_gradient_kernel(gradient, powers, values, result, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = place < count
    power = tl.load(powers + place, mask=real, other=0.0).to(tl.float32)
    value = tl.load(values + place, mask=real, other=1.0)
    slope = tl.where(power > 0, power / tl.where(power > 0, value, 1.0), 0.0)
    tl.store(result + place, tl.load(gradient + place, mask=real, other=0.0).to(tl.float32) * slope, mask=real)


def with_zeros(w_powers: Tensor, groups: int) -> Tensor:
    """Rows of each group's channels as rows of all channels, zeros between the groups."""
    if groups == 1:
        return w_powers
    rows, channels, *kernel = w_powers.shape
    whole = w_powers.new_zeros(groups, rows // groups, groups, channels, *kernel)
    whole.diagonal(dim1=0, dim2=2).copy_(w_powers.unflatten(0, (groups, -1)).movedim(0, -1))
    return channels_last(whole.flatten(2, 3).flatten(0, 1))


def without_zeros(gradient: Tensor, groups: int) -> Tensor:
    """The inverse of :func:`with_zeros`; what lies between the groups is left out."""
    each = gradient.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))
    return each.diagonal(dim1=0, dim2=2).movedim(-1, 0).flatten(0, 1)


class TritonNorm:
    """The steps of :class:`.smoothed._Plain` for float32, each in one pass over memory in which channels lie last.

    All groups are one convolution with zeros between them: it does more products, of which a GPU has plenty, but reads
    and writes as much, in one kernel of ordinary shape.
    """

    @staticmethod
    def sums(x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        return convolved(x_powers, with_zeros(w_powers, groups), stride, padding, 1)

    @staticmethod
    def powers_gradients(
        gradient: Tensor, x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int,
        needed: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        whole = with_zeros(w_powers, groups)
        x_gradient, w_gradient = convolved_gradients(gradient, x_powers, whole, stride, padding, 1, needed)
        return x_gradient, None if w_gradient is None else without_zeros(w_gradient, groups)

    @staticmethod
    def powers(values: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        scale = values.amax(dim=(1, 2, 3)).clamp_(min=SMALLEST_SCALE)
        powers = torch.empty_like(values, dtype=dtype)
        length, smallest = values[0].numel(), SMALLEST[values.dtype]
        _powers_kernel[triton.cdiv(length, BLOCK), len(values)](values, scale, powers, length, p, smallest, BLOCK)
        return scale, powers

    @staticmethod
    def difference(
        sums: Tensor, groups: int, p: float, x_scale: Tensor, w_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, rows, height, width = sums.shape
        half = rows // (2 * groups)
        values = torch.empty((batch, half, height, width), device=sums.device, memory_format=torch.channels_last)
        sizes, smallest = (values.numel(), height * width, half), SMALLEST[values.dtype]
        _difference_kernel[(triton.cdiv(sizes[0], BLOCK),)](
            sums, x_scale, w_scale, values, *sizes, p, smallest, groups, BLOCK
        )
        return values, sums

    @staticmethod
    def sums_gradient(gradient: Tensor, groups: int, quotients: Tensor, x_scale: Tensor, w_scale: Tensor) -> Tensor:
        result = torch.empty_like(quotients)
        sizes = gradient.numel(), gradient.shape[2] * gradient.shape[3], gradient.shape[1]
        tensors = gradient, quotients, x_scale, w_scale, result
        _sums_gradient_kernel[(triton.cdiv(sizes[0], BLOCK),)](*tensors, *sizes, groups, BLOCK)
        return result

    @staticmethod
    def values_gradient(gradient: Tensor, powers: Tensor, values: Tensor) -> Tensor:
        count, result = values.numel(), torch.empty_like(values)
        _values_gradient_kernel[(triton.cdiv(count, BLOCK),)](gradient, powers, values, result, count, BLOCK)
        return result
