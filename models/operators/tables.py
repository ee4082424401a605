# SPDX-License-Identifier: Apache-2.0
"""Functions of maxima of products, looked up: in C++ or plain PyTorch.

Products of log codes' values are powers ``2^(s / 2^F)`` of integers s, and what the hardware makes of a sum s is a
table. A product's exponent and the highest bits of its mantissa tell s, so that no logarithm is taken.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from .convolution import channels_last
from .native_build import library

__all__ = ["LARGEST_FRACTION", "product_table", "table_differences"]

MANTISSA = 8
SHIFT = 23 - MANTISSA
LARGEST_FRACTION = 6
"""Bits F of s behind the point. What has the same exponent and MANTISSA bits differs by less than 2^-8 of itself, which
is 2^F * 2^-8 / ln 2 of a step of s: below 1/2, and so of the same s, up to 6."""


def product_table(function: Callable[[Tensor], Tensor], device: torch.device | str = "cpu") -> Tensor:
    """The table of a function of products >= 0 that depends on nothing but s, and on 0; float32, (2^16,).

    ``function`` is called once, on one product of each entry.
    """
    numbers = torch.arange(1 << (8 + MANTISSA), dtype=torch.int32, device=device)
    products = ((numbers << SHIFT) + (1 << (SHIFT - 1))).view(torch.float32)
    products[0] = 0.0  # and what is no normal number
    products = torch.where(products.isfinite(), products, 1.0)  # which no product is
    return function(products).float()


def table_differences(products: Tensor, table: Tensor, groups: int = 1) -> Tensor:
    """Table values of the first half of the maxima less those of the second, summed over the groups.

    products: (batch, 2 * outputs * groups, height, width), as of ``max_product``; result: (batch, outputs, height,
    width), channels last in memory. No gradient.
    """
    products = products.detach()
    compiled = library("tables") if products.device.type == "cpu" else "not on a CPU"
    if isinstance(compiled, str) or products.dtype != torch.float32:
        return plain_table_differences(products, table, groups)
    products, table = products.contiguous(), table.contiguous()
    batch, rows, height, width = products.shape
    values = torch.empty(batch, rows // (2 * groups), height, width, memory_format=torch.channels_last)
    sizes = batch, values.shape[1], groups, height * width
    compiled.table_differences(
        *map(ctypes.c_int64, sizes),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (products, table, values)),
        *map(ctypes.c_int, (SHIFT, torch.get_num_threads())),
    )
    return values


def plain_table_differences(products: Tensor, table: Tensor, groups: int) -> Tensor:
    # -0 has the index -2^16: the table's first entry too
    found = table[products.float().contiguous().view(torch.int32) >> SHIFT]
    first, second = found.unflatten(1, (2, -1, groups)).unbind(1)
    return channels_last(sum((first - second).unbind(2)))
