# SPDX-License-Identifier: Apache-2.0
"""From linear integers to the values of their codes, in one pass: in C++ or plain PyTorch.

What it is for, and what it gives, says ``integer.folded_end.FoldedEnd``.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from .convolution import channels_last
from .native_build import library

__all__ = ["Encoding", "encoded"]

LARGEST_CAP = 1 << 30
"""Integers that C++ counts with have 32 bits."""


@dataclass(frozen=True)
class Encoding:
    """How the integers of each channel become codes: ``table[row + (min(y, cap) >> shift)] + offset``, from 0 to the
    largest code, and 0 for y <= 0.

    ``cap``, ``shift``, ``row``, ``offset``: (channels,), int64. ``table``: int64; ``values``: of each code, (2^B,).
    ``unit``: what the integer 1 stands for; ``largest_cap``: as is known without a look at ``cap``.
    """

    cap: Tensor
    shift: Tensor
    row: Tensor
    offset: Tensor
    table: Tensor
    values: Tensor
    unit: float
    largest_cap: int

    def codes(self, y: Tensor) -> Tensor:
        """Of integers (batch, channels, height, width)."""
        cap, shift, row, offset = (part.view(-1, 1, 1) for part in (self.cap, self.shift, self.row, self.offset))
        seen = torch.minimum(y.clamp(min=0).long(), cap) >> shift
        codes = (self.table[row + seen] + offset).clamp(0, len(self.values) - 1)
        return torch.where(y > 0, codes, 0)


def encoded(y: Tensor, factor: Tensor, encoding: Encoding, scale: Tensor | None = None) -> Tensor:
    """The values of the codes of y (batch, channels, height, width).

    y: integers, or with a ``scale`` (channels,) what is an integer times 1 / scale, up to its rounding, and may be
    below 0: then the value has that sign, except that of code 0. Differentiable in y and ``factor`` (channels,): as
    ``min(1, factor * unit * max(0, y))``, of magnitudes where there is a scale. Channels lie last in memory.
    """
    return _Encoded.apply(y, factor, encoding, scale)


def _integers(y: Tensor, scale: Tensor | None) -> Tensor:
    return y if scale is None else torch.floor(y * scale.view(-1, 1, 1) + 0.5)


def plain_forward(y: Tensor, encoding: Encoding, scale: Tensor | None) -> Tensor:
    x = _integers(y, scale)
    values = encoding.values[encoding.codes(x if scale is None else x.abs())]
    return values if scale is None else torch.where((x < 0) & (values > encoding.values[0]), -values, values)


def plain_backward(
    gradient: Tensor, y: Tensor, factor: Tensor, encoding: Encoding, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradients of y and of the factor."""
    x, factor = _integers(y, scale), factor.view(-1, 1, 1)
    magnitudes = (x if scale is None else x.abs()) * encoding.unit
    inside = (magnitudes > 0) & (magnitudes * factor <= 1)
    gradient = torch.where(inside, gradient, 0)
    real = x * encoding.unit if scale is not None else magnitudes
    of_factor = (gradient * torch.where(inside, real, 0)).sum(dim=(0, 2, 3))
    of_y = gradient * factor * encoding.unit
    return of_y if scale is None else of_y * scale.view(-1, 1, 1), of_factor


def _compiles(y: Tensor, encoding: Encoding) -> bool:
    suits = y.device.type == "cpu" and y.dtype == torch.float32 and encoding.largest_cap <= LARGEST_CAP
    return suits and not isinstance(library("encoding"), str)


def _call(name: str, *arguments: int | float | Tensor | None) -> None:
    kinds = {int: ctypes.c_int64, float: ctypes.c_float}
    getattr(library("encoding"), f"encoding_{name}")(
        *(
            kinds[type(value)](value) if type(value) in kinds
            else ctypes.c_void_p(None if value is None else value.data_ptr())
            for value in arguments
        ),
        ctypes.c_int(torch.get_num_threads()),
    )  # fmt: skip


class _Encoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, factor, encoding, scale):
        y = channels_last(y)
        ctx.save_for_backward(y, factor, scale)
        ctx.encoding, ctx.compiles = encoding, _compiles(y, encoding)
        if not ctx.compiles:
            return plain_forward(y, encoding, scale)
        batch, channels, height, width = y.shape
        cap = encoding.cap.float()
        numbers = [part.int() for part in (encoding.shift, encoding.row, encoding.offset, encoding.table)]
        result, values = torch.empty_like(y), encoding.values.contiguous()
        tensors = y, scale, cap, *numbers, values, len(values) - 1, result
        _call("forward", batch * height * width, channels, *tensors)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        y, factor, scale = ctx.saved_tensors
        gradient = channels_last(gradient)
        if not ctx.compiles:
            return *plain_backward(gradient, y, factor, ctx.encoding, scale), None, None
        batch, channels, height, width = y.shape
        result, of_factor = torch.empty_like(y), factor.new_empty(batch, channels)
        tensors = gradient, y, scale, factor, ctx.encoding.unit, result, of_factor
        _call("backward", batch, height * width, channels, *tensors)
        return result, of_factor.sum(dim=0), None, None
