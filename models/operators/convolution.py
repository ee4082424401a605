# SPDX-License-Identifier: Apache-2.0
"""Convolutions of powers by PyTorch: as it computes them fastest."""

import torch
import torch.nn.functional as functional
from torch import Tensor

__all__ = ["channels_last", "convolved", "convolved_gradients"]


def channels_last(values: Tensor) -> Tensor:
    """The layout in memory in which all steps work, the one in which a CPU convolves fastest."""
    return values.contiguous(memory_format=torch.channels_last)


def _is_matrix_product(w_powers: Tensor, stride: int, padding: int) -> bool:
    """Whether a convolution is taken as a product of matrices: PyTorch's 1x1 convolutions in bfloat16 take up to 15
    times as long (those in float32 don't)."""
    return w_powers.dtype == torch.bfloat16 and w_powers.shape[2:] == (1, 1) and stride == 1 and padding == 0


def _rows(values: Tensor) -> Tensor:
    """(batch, channels, height, width) as (batch * height * width, channels), the same memory."""
    return values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`_rows`, with the batch, height and width of ``like``."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def convolved(x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """The sums of products, channels last in memory; by PyTorch."""
    if groups == 1 and _is_matrix_product(w_powers, stride, padding):
        return channels_last(_images(_rows(x_powers) @ w_powers.flatten(1).t(), x_powers))
    return channels_last(functional.conv2d(x_powers, w_powers, stride=stride, padding=padding, groups=groups))


def convolved_gradients(
    gradient: Tensor, x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of x_powers and w_powers from that of :func:`convolved`, those that are needed."""
    if not (groups == 1 and _is_matrix_product(w_powers, stride, padding)):
        return torch.ops.aten.convolution_backward(
            *(gradient, x_powers, w_powers, None, [stride, stride], [padding, padding], [1, 1]),
            *(False, [0, 0], groups, [*needed, False]),
        )[:2]
    rows = _rows(gradient)
    x_gradient = _images(rows @ w_powers.flatten(1), x_powers) if needed[0] else None
    w_gradient = (rows.t() @ _rows(x_powers)).view_as(w_powers) if needed[1] else None
    return x_gradient, w_gradient
