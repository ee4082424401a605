# SPDX-License-Identifier: Apache-2.0
"""The maximum-of-products convolution: the bipolar morphological neuron without a logarithm, for training.

``max_i x_i * w_i`` for x, w >= 0 equals ``exp(max_i(ln x_i + ln w_i))`` (arXiv 2009.07190, equation 3). The
gradient is exact: it goes to the winning product only, to the first one of equals.

With groups, each output has one maximum for each group of input channels: channel j of C belongs to group
``floor(j * groups / C)``, and ``groups`` divides C (``networks.groups`` says which number a layer has).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from . import native
from .common import check_groups, output_size

__all__ = ["IMPLEMENTATIONS", "Implementation", "max_product", "max_product_difference", "straight_through"]


class Implementation(NamedTuple):
    """One way to compute the operator; the contract is that of the plain functions below."""

    forward: Callable[..., tuple[Tensor, Tensor | None]]
    backward: Callable[..., tuple[Tensor, Tensor]]
    suits: Callable[[Tensor, Tensor], bool]
    """Whether it can do these x and w."""


def plain_forward(
    x: Tensor, w: Tensor, stride: int, padding: int, groups: int, pairs: bool, wanted: bool = True
) -> tuple[Tensor, Tensor]:
    """Values and winners of the maxima.

    x: (batch, channels, height, width); w: (outputs, channels, kernel height, kernel width), any sign.
    Values: (batch, outputs * groups, out height, out width), ``max(0, max_i x_i * w_i)`` over each group's taps, the
    groups of an output behind each other. Winners: the same shape, int64, the index i of the winning tap in w's row,
    -1 where no product is above 0. With ``pairs``, the values are sums over the groups of the differences of the first
    and the second half of the outputs, (batch, outputs / 2, ...); the winners are those of all maxima.
    ``wanted``: whether the winners are needed; they may be None otherwise.
    """
    batch, outputs, taps = x.shape[0], w.shape[0], w[0].numel() // groups
    height, width = output_size(x, w, stride, padding)
    patches = functional.unfold(x, w.shape[2:], padding=padding, stride=stride)
    patches = patches.transpose(1, 2).reshape(-1, groups, taps).contiguous()
    values = x.new_empty(outputs, groups, patches.shape[0])
    winners = torch.empty(outputs, groups, patches.shape[0], dtype=torch.int64, device=x.device)
    for output, row in enumerate(w.reshape(outputs, groups, taps)):  # one output at a time bounds the memory
        torch.max((patches * row).transpose(0, 1), dim=2, out=(values[output], winners[output]))
    winners += taps * torch.arange(groups, device=x.device).view(-1, 1)
    winners.masked_fill_(values <= 0, -1)
    values.clamp_(min=0)

    def image(flat: Tensor) -> Tensor:
        return flat.view(len(flat), batch, height, width).transpose(0, 1).contiguous()

    if pairs:
        first, second = values.chunk(2)
        values = sum((first - second).unbind(1))  # in this order, as every implementation
    else:
        values = values.flatten(0, 1)
    return image(values), image(winners.flatten(0, 1))


def plain_backward(
    gradient: Tensor,
    winners: Tensor,
    x: Tensor,
    w: Tensor,
    stride: int,
    padding: int,
    groups: int,
    pairs: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and w from the gradient of the values."""
    if pairs:
        gradient = torch.cat([gradient, -gradient], dim=1).repeat_interleave(groups, dim=1)
    batch, outputs, taps = x.shape[0], w.shape[0], w[0].numel()
    patches = functional.unfold(x, w.shape[2:], padding=padding, stride=stride)
    rows = w.reshape(outputs, taps)
    index = winners.flatten(2).clamp(min=0)
    gradient = (gradient * (winners >= 0)).flatten(2)

    def by_output(maxima: Tensor) -> Tensor:
        return maxima.unflatten(1, (outputs, groups)).transpose(0, 1).reshape(outputs, -1)

    weights = rows.gather(1, by_output(index)).view(outputs, batch, groups, -1).transpose(0, 1).flatten(1, 2)
    patch_gradient = torch.zeros_like(patches).scatter_add_(1, index, gradient * weights)
    x_gradient = functional.fold(patch_gradient, x.shape[2:], w.shape[2:], padding=padding, stride=stride)
    to_rows = by_output(gradient * patches.gather(1, index))
    w_gradient = torch.zeros_like(rows).scatter_add_(1, by_output(index), to_rows)
    return x_gradient, w_gradient.view_as(w)


def _always(x: Tensor, w: Tensor) -> bool:
    return True


def triton_suits(x: Tensor, w: Tensor | None = None) -> bool:
    """Whether Triton's kernels can do these tensors: float32 on a GPU that PyTorch's build has Triton for."""
    return x.is_cuda and x.dtype == torch.float32 and find_spec("triton") is not None


def _triton_forward(*arguments) -> tuple[Tensor, Tensor | None]:
    from .triton_kernels import forward

    return forward(*arguments)


IMPLEMENTATIONS: dict[str, Implementation] = {
    "native": Implementation(native.forward, native.backward, native.suits),
    "triton": Implementation(_triton_forward, plain_backward, triton_suits),
    "plain": Implementation(plain_forward, plain_backward, _always),
}
"""Name -> implementation, the fastest first."""


class _MaxProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, stride, padding, groups, pairs, implementation):
        wanted = any(ctx.needs_input_grad)
        values, winners = implementation.forward(x, w, stride, padding, groups, pairs, wanted)
        ctx.save_for_backward(winners, x, w)
        ctx.settings = stride, padding, groups, pairs, implementation
        return values

    @staticmethod
    def backward(ctx, gradient):
        *settings, implementation = ctx.settings
        return *implementation.backward(gradient, *ctx.saved_tensors, *settings), None, None, None, None, None


def _apply(x: Tensor, w: Tensor, stride: int, padding: int, groups: int, pairs: bool, name: str | None) -> Tensor:
    check_groups(x, groups)
    if name is None:
        name = next(name for name, entry in IMPLEMENTATIONS.items() if entry.suits(x, w))
    if not torch.is_grad_enabled():
        x, w = x.detach(), w.detach()  # no winners are needed then
    return _MaxProduct.apply(x, w, stride, padding, groups, pairs, IMPLEMENTATIONS[name])


def max_product(
    x: Tensor, w: Tensor, stride: int = 1, padding: int = 0, groups: int = 1, *, implementation: str | None = None
) -> Tensor:
    """``max(0, max_i x_i * w_i)`` over each window and group of channels, differentiable in x and w.

    x: (batch, channels, height, width); w: (outputs, channels, kernel height, kernel width); zero padding. Result:
    (batch, outputs * groups, ...), maximum g of output o in channel ``o * groups + g``.
    ``implementation``: a key of :data:`IMPLEMENTATIONS`; None takes the first one that suits the tensors.
    """
    return _apply(x, w, stride, padding, groups, False, implementation)


def max_product_difference(
    x: Tensor, w: Tensor, stride: int = 1, padding: int = 0, groups: int = 1, *, nonnegative: bool | None = None,
    implementation: str | None = None,
) -> Tensor:  # fmt: skip
    """The sum over the groups of the differences of two maxima of products, in one pass: (batch, outputs, ...).

    As ``max_product`` of ``w[0]`` minus that of ``w[1]``; w: (2, outputs, channels, kernel height, kernel
    width). ``nonnegative``: whether x is known to have nothing below 0, which smoothed maxima need to know (see
    ``smoothed.norm_difference``) and exact ones don't.
    """
    return _apply(x, w.flatten(0, 1), stride, padding, groups, True, implementation)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, smooth, exact):
        return exact.to(smooth.dtype).view_as(exact)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def straight_through(smooth: Tensor, exact: Tensor) -> Tensor:
    """``exact``, bit for bit, with the gradient of ``smooth`` (Bengio et al., arXiv 1308.3432)."""
    return _StraightThrough.apply(smooth, exact)
