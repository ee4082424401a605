# SPDX-License-Identifier: Apache-2.0
"""The C++ implementation of the operator (``max_product.cpp``) on PyTorch's tensors."""

import ctypes

import torch
from torch import Tensor

from .common import output_size
from .native_build import library

__all__ = ["LARGEST_FAN_IN", "backward", "forward", "suits", "unavailable_reason"]

LARGEST_FAN_IN = 32767
"""Winners are kept in 16 bits."""


def _library() -> ctypes.CDLL | str:
    return library("max_product")


def unavailable_reason() -> str | None:
    """None if the C++ implementation can be used, else why not."""
    library = _library()
    return library if isinstance(library, str) else None


def suits(x: Tensor, w: Tensor) -> bool:
    """Whether this implementation can do these tensors."""
    return (
        x.device.type == "cpu"
        and x.dtype == w.dtype == torch.float32
        and w[0].numel() <= LARGEST_FAN_IN
        and unavailable_reason() is None
    )


def _shape(x: Tensor, w: Tensor, stride: int, padding: int, groups: int) -> tuple[ctypes.Array, tuple[int, int]]:
    size = output_size(x, w, stride, padding)
    values = (*x.shape, w.shape[0], w.shape[2], w.shape[3], stride, padding, *size, groups)
    return (ctypes.c_int64 * len(values))(*values), size


def _is_thinned(w: Tensor, stride: int, padding: int) -> bool:
    """Whether a layer sees every ``stride``-th pixel and nothing else: then these are taken first."""
    return stride > 1 and padding == 0 and w.shape[2:] == (1, 1)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def forward(
    x: Tensor, w: Tensor, stride: int, padding: int, groups: int, pairs: bool, wanted: bool = True
) -> tuple[Tensor, Tensor | None]:
    """As ``max_product.plain_forward``, winners in int16; None unless they are ``wanted``."""
    if _is_thinned(w, stride, padding):
        x, stride = x[:, :, ::stride, ::stride], 1
    x, w = x.contiguous(), w.contiguous()
    shape, size = _shape(x, w, stride, padding, groups)
    maxima = w.shape[0] * groups
    values = torch.empty(x.shape[0], w.shape[0] // 2 if pairs else maxima, *size)
    winners = torch.empty((x.shape[0], maxima, *size), dtype=torch.int16) if wanted else None
    _library().max_product_forward(
        shape, *map(_pointer, (x, w, values, winners)), int(pairs), torch.get_num_threads()
    )
    return values, winners


def backward(
    gradient: Tensor,
    winners: Tensor,
    x: Tensor,
    w: Tensor,
    stride: int,
    padding: int,
    groups: int,
    pairs: bool,
) -> tuple[Tensor, Tensor]:
    """As ``max_product.plain_backward``."""
    if _is_thinned(w, stride, padding):
        whole, seen = torch.zeros_like(x), x[:, :, ::stride, ::stride]
        gradients = backward(gradient, winners, seen, w, 1, padding, groups, pairs)
        whole[:, :, ::stride, ::stride] = gradients[0]
        return whole, gradients[1]
    x, w, gradient = x.contiguous(), w.contiguous(), gradient.contiguous()
    shape, _size = _shape(x, w, stride, padding, groups)
    x_gradient, w_gradient = torch.zeros_like(x), torch.zeros_like(w)
    _library().max_product_backward(
        shape,
        *map(_pointer, (gradient, winners, x, w, x_gradient, w_gradient)),
        int(pairs),
        torch.get_num_threads(),
    )
    return x_gradient, w_gradient
