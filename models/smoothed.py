# SPDX-License-Identifier: Apache-2.0
"""A smoothed maximum of products for training: the p-norm of the products of each window.

``(sum_i (x_i w_i)^p)^(1/p)`` for x, w >= 0 is a convolution of x^p with w^p, so that it costs what a classical
layer costs. At p = 1 it is the classical neuron's sum; from above it nears the maximum M of the n products
that are above 0: ``M <= norm <= n^(1/p) M``. Its gradient reaches every product, the larger ones more.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor

from .operators import max_product_difference

__all__ = ["norm_difference", "smoothed_gradient_difference"]

SMALLEST = {torch.float32: 1e-36, torch.float64: 1e-300}
"""Powers below this count as 0, and it is added to each sum of powers, whose root has no slope at 0."""

SMALLEST_QUOTIENT, SMALLEST_SCALE = 1e-20, 1e-15
"""Their product is a float32, so that nothing is divided by 0."""


def norm_difference(x: Tensor, w: Tensor, stride: int, padding: int, *, p: float) -> Tensor:
    """As :func:`.operators.max_product_difference` with the p-norm in the place of the maximum.

    Differentiable in x and w once, for x and w other than 0. What is below ``SMALLEST^(1/p)`` of the largest x
    of its image or the largest w of its output counts as 0 (at p = 16 in float32: 0.6 %).
    """
    return _norms_difference(x, w, stride, padding, p)


def smoothed_gradient_difference(x: Tensor, w: Tensor, stride: int, padding: int, *, p: float) -> Tensor:
    """The exact value of :func:`.operators.max_product_difference`, with the gradient of the p-norms."""
    smooth = _norms_difference(x, w, stride, padding, p)
    with torch.no_grad():
        error = max_product_difference(x, w, stride, padding) - smooth
    return smooth + error


def _norms_difference(x: Tensor, w: Tensor, stride: int, padding: int, p: float) -> Tensor:
    half = w.shape[1]
    w = w.flatten(0, 1)
    if bool((x < 0).any()):
        # of x+ w+ and x- w- one is the product where it is above 0, and the other is 0
        x = torch.cat([x.clamp(min=0), (-x).clamp(min=0)], dim=1)
        w = torch.cat([w.clamp(min=0), (-w).clamp(min=0)], dim=1)
    else:
        w = w.clamp(min=0)
    return _NormDifference.apply(x, w, stride, padding, p, half)


def _powers(values: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Scale (the largest value of each index of axis 0), scaled values, their p-th powers."""
    scale = values.amax(dim=(1, 2, 3), keepdim=True).clamp(min=SMALLEST_SCALE)
    scaled = values / scale
    powers = scaled.clone() if p == 1 else scaled.pow(p)
    return scale, scaled, functional.threshold_(powers, SMALLEST[values.dtype], 0)


class _NormDifference(torch.autograd.Function):
    """x, w >= 0: the norms of the first ``half`` outputs minus those of the others."""

    @staticmethod
    def forward(ctx, x, w, stride, padding, p, half):
        x_scale, x_scaled, x_powers = _powers(x, p)
        w_scale, w_scaled, w_powers = _powers(w, p)
        sums = functional.conv2d(x_powers, w_powers, stride=stride, padding=padding)
        # quotients = norms / sums, of which the gradients consist too
        quotients = (sums + SMALLEST[x.dtype]).pow_(1 / p - 1)
        ctx.save_for_backward(x_scale, x_scaled, x_powers, w_scale, w_scaled, w_powers, quotients)
        ctx.settings = stride, padding, p, half
        norms = sums.mul_(quotients).mul_(w_scale.view(1, -1, 1, 1))
        return (norms[:, :half] - norms[:, half:]) * x_scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x_scale, x_scaled, x_powers, w_scale, w_scaled, w_powers, quotients = ctx.saved_tensors
        stride, padding, p, _half = ctx.settings
        # d norm / d sum = norm / (p sum); d sum / d x = p x^(p - 1) w^p: the factors p cancel
        sums_gradient = torch.cat([gradient * x_scale, gradient * -x_scale], dim=1)
        sums_gradient.mul_(quotients).mul_(w_scale.view(1, -1, 1, 1))
        x_gradient, w_gradient, _ = torch.ops.aten.convolution_backward(
            sums_gradient,
            x_powers,
            w_powers,
            None,
            [stride, stride],
            [padding, padding],
            [1, 1],
            False,
            [0, 0],
            1,
            [*ctx.needs_input_grad[:2], False],
        )
        # scaled^(p - 1) is powers / scaled, and 0 at 0, where no product is above 0
        if x_gradient is not None:
            x_gradient.mul_(x_powers).div_((x_scaled + SMALLEST_QUOTIENT).mul_(x_scale))
        if w_gradient is not None:
            w_gradient.mul_(w_powers).div_((w_scaled + SMALLEST_QUOTIENT).mul_(w_scale))
        return x_gradient, w_gradient, None, None, None, None
