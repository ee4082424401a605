# SPDX-License-Identifier: Apache-2.0
"""A smoothed maximum of products for training: the p-norm of the products of each window.

``(sum_i (x_i w_i)^p)^(1/p)`` for x, w >= 0 is a convolution of x^p with w^p, so that it costs little more than
a classical layer. At p = 1 it is the classical neuron's sum; from above it nears the maximum M of the n
products that are above 0: ``M <= norm <= n^(1/p) M``. Its gradient reaches every product, the larger ones more.
With groups of channels (see ``max_product``) each group has its own norms, and all come out of one convolution.
"""

import ctypes

import torch
import torch.nn.functional as functional
from torch import Tensor

from .common import SMALLEST, SMALLEST_SCALE, check_groups
from .convolution import channels_last, convolved, convolved_gradients
from .max_product import max_product_difference, straight_through, triton_suits
from .native_build import library
from .precision import powers_dtype

__all__ = ["norm_difference", "smoothed_gradient_difference"]

FEW_CHANNELS = 4
"""Channels of a group up to which products of matrices are compiled here (``kMostMembers`` in ``p_norm.cpp``), since
PyTorch's grouped convolutions of so few take many times as long."""


def norm_difference(
    x: Tensor, w: Tensor, stride: int, padding: int, groups: int = 1, *, p: float, nonnegative: bool | None = None
) -> Tensor:
    """As :func:`.max_product.max_product_difference` with the p-norm in the place of the maximum; the result's channels
    lie last in memory.

    Differentiable in x and w once, for x and w other than 0. What is below ``SMALLEST^(1/p)`` of the largest x
    of its image or the largest w of its output and group counts as 0 (at p = 16 in float32: 0.6 %). Powers of float32
    have the type that ``precision.powers_dtype`` chooses. ``nonnegative``: whether x has nothing below 0; None: it is
    looked at, which a GPU waits for and a graph of its kernels can't hold.
    """
    check_groups(x, groups)
    if nonnegative is None:
        nonnegative = float(x.detach().amin()) >= 0
    # each group has rows of its own, one behind the other: (groups * 2 * outputs, channels of a group, ...)
    w = w.flatten(0, 1).unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)
    if nonnegative:
        w = w.clamp(min=0)
    else:
        # of x+ w+ and x- w- one is the product where it is above 0, and the other is 0
        x = x.unflatten(1, (groups, -1))
        x = torch.cat([x.clamp(min=0), (-x).clamp(min=0)], dim=2).flatten(1, 2)
        w = torch.cat([w.clamp(min=0), (-w).clamp(min=0)], dim=1)
    return _NormDifference.apply(x, w, stride, padding, groups, p, _steps(x, w), powers_dtype(x))


def smoothed_gradient_difference(
    x: Tensor, w: Tensor, stride: int, padding: int, groups: int = 1, *, p: float, nonnegative: bool | None = None
) -> Tensor:
    """The exact value of :func:`.max_product.max_product_difference`, with the gradient of the p-norms."""
    smooth = norm_difference(x, w, stride, padding, groups, p=p, nonnegative=nonnegative)
    with torch.no_grad():
        exact = max_product_difference(x, w, stride, padding, groups)
    return straight_through(smooth, exact)


def _steps(x: Tensor, w: Tensor) -> type:
    """The fastest steps for these tensors."""
    if x.dtype == w.dtype == torch.float32:
        if x.device.type == "cpu" and _Compiled.available():
            return _Compiled
        if triton_suits(x):
            from .triton_kernels import TritonNorm

            return TritonNorm
    return _Plain


class _Plain:
    """The steps of a p-norm, in PyTorch. Powers, sums, their gradients and quotients are kept in ``dtype`` and computed
    with in the type of the values.
    """

    @staticmethod
    def sums(x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        """Of the products of powers, (batch, groups * 2 * outputs, ...), channels last in memory."""
        return convolved(x_powers, w_powers, stride, padding, groups)

    @staticmethod
    def powers_gradients(gradient: Tensor, *arguments) -> tuple[Tensor | None, Tensor | None]:
        """Those of x_powers and w_powers; arguments: see :func:`convolved_gradients`."""
        return convolved_gradients(gradient, *arguments)

    @staticmethod
    def powers(values: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Scale (the largest value of each index of axis 0), p-th powers of values / scale."""
        scale = values.flatten(1).amax(dim=1).clamp(min=SMALLEST_SCALE)
        powers = (values / scale.view(-1, 1, 1, 1)).pow_(p)
        return scale, functional.threshold_(powers, SMALLEST[values.dtype], 0).to(dtype)

    @staticmethod
    def difference(
        sums: Tensor, groups: int, p: float, x_scale: Tensor, w_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums over the groups of the differences of the first and the second half of their norms, quotients
        norms / sums of all."""
        whole = sums.to(x_scale.dtype)
        quotients = (whole + SMALLEST[whole.dtype]).pow_(1 / p - 1)
        norms = (whole * quotients * w_scale.view(1, -1, 1, 1)).unflatten(1, (groups, 2, -1))
        differences = (norms[:, :, 0] - norms[:, :, 1]).sum(dim=1)
        return differences * x_scale.view(-1, 1, 1, 1), quotients.to(sums.dtype)

    @staticmethod
    def sums_gradient(gradient: Tensor, groups: int, quotients: Tensor, x_scale: Tensor, w_scale: Tensor) -> Tensor:
        """d norm / d sum = norm / (p sum); the factor p cancels below."""
        gradient = gradient * x_scale.view(-1, 1, 1, 1)
        both = torch.cat([gradient, -gradient], dim=1).repeat(1, groups, 1, 1)
        return both.mul_(quotients).mul_(w_scale.view(1, -1, 1, 1)).to(quotients.dtype)

    @staticmethod
    def values_gradient(gradient: Tensor, powers: Tensor, values: Tensor) -> Tensor:
        """d power / d value = p power / value; 0 at 0, where no product is above 0."""
        return gradient.to(values.dtype).mul(powers).div_(values.clamp(min=SMALLEST_SCALE**2))


class _Compiled:
    """The same in C++ (``p_norm.cpp``), for float32 on the CPU."""

    @staticmethod
    def available() -> bool:
        return not isinstance(library("p_norm"), str)

    @staticmethod
    def _is_product(w_powers: Tensor, stride: int, padding: int, groups: int) -> bool:
        kernel = w_powers.shape[2:]
        return groups > 1 and kernel == (1, 1) and stride == 1 and padding == 0 and w_powers.shape[1] <= FEW_CHANNELS

    @staticmethod
    def sums(x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        if not _Compiled._is_product(w_powers, stride, padding, groups):
            return convolved(x_powers, w_powers, stride, padding, groups)
        batch, _, *size = x_powers.shape
        rows, members = w_powers.shape[:2]
        sums = torch.empty(batch, rows, *size, dtype=x_powers.dtype, memory_format=torch.channels_last)
        sizes = batch * size[0] * size[1], groups, rows // groups, members
        _call("products", x_powers.dtype, *sizes, x_powers, w_powers, sums)
        return sums

    @staticmethod
    def powers_gradients(
        gradient: Tensor, x_powers: Tensor, w_powers: Tensor, stride: int, padding: int, groups: int,
        needed: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        if not _Compiled._is_product(w_powers, stride, padding, groups):
            return convolved_gradients(gradient, x_powers, w_powers, stride, padding, groups, needed)
        found = torch.empty_like(x_powers), torch.empty_like(w_powers)
        batch, _, height, width = x_powers.shape
        sizes = batch * height * width, groups, len(w_powers) // groups, w_powers.shape[1]
        _call("products_gradients", x_powers.dtype, *sizes, gradient, x_powers, w_powers, *found)
        return found

    @staticmethod
    def powers(values: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        scale, powers = values.new_empty(len(values)), torch.empty_like(values, dtype=dtype)
        _call("powers", powers.dtype, len(values), values[0].numel(), values, p, scale, powers)
        return scale, powers

    @staticmethod
    def difference(
        sums: Tensor, groups: int, p: float, x_scale: Tensor, w_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, rows, height, width = sums.shape
        half = rows // (2 * groups)
        values = torch.empty(batch, half, height, width, memory_format=torch.channels_last)
        tensors = sums, p, x_scale, w_scale, values
        _call("difference", sums.dtype, batch, height * width, groups, half, *tensors)
        return values, sums

    @staticmethod
    def sums_gradient(gradient: Tensor, groups: int, quotients: Tensor, x_scale: Tensor, w_scale: Tensor) -> Tensor:
        batch, half, height, width = gradient.shape
        result = torch.empty_like(quotients)
        tensors = gradient, quotients, x_scale, w_scale, result
        _call("sums_gradient", result.dtype, batch, height * width, groups, half, *tensors)
        return result

    @staticmethod
    def values_gradient(gradient: Tensor, powers: Tensor, values: Tensor) -> Tensor:
        result = torch.empty_like(values)
        _call("values_gradient", powers.dtype, values.numel(), gradient, powers, values, result)
        return result


def _call(name: str, dtype: torch.dtype, *arguments: int | float | Tensor) -> None:
    kinds = {int: ctypes.c_int64, float: ctypes.c_float}
    getattr(library("p_norm"), f"p_norm_{name}_{str(dtype).removeprefix('torch.')}")(
        *(
            ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else kinds[type(value)](value)
            for value in arguments
        ),
        ctypes.c_int(torch.get_num_threads()),
    )


class _NormDifference(torch.autograd.Function):
    """x, w >= 0; w: (groups * 2 * outputs, channels of a group, ...). Of each group, the norms of the first half of its
    rows minus those of the second; the sum over the groups."""

    @staticmethod
    def forward(ctx, x, w, stride, padding, groups, p, steps, dtype):
        ctx.whole = None
        if groups > 1 and stride > 1 and padding == 0 and w.shape[2:] == (1, 1):
            # the layer sees every stride-th pixel and nothing else: what isn't seen needs no powers
            ctx.whole, ctx.stride = x.shape, stride
            x, stride = x[:, :, ::stride, ::stride], 1
        x, w = channels_last(x), channels_last(w)
        x_scale, x_powers = steps.powers(x, float(p), dtype)
        w_scale, w_powers = steps.powers(w, float(p), dtype)
        sums = steps.sums(x_powers, w_powers, stride, padding, groups)
        values, quotients = steps.difference(sums, groups, float(p), x_scale, w_scale)
        ctx.save_for_backward(x, x_scale, x_powers, w, w_scale, w_powers, quotients)
        ctx.settings = stride, padding, groups, steps
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, x_scale, x_powers, w, w_scale, w_powers, quotients = ctx.saved_tensors
        stride, padding, groups, steps = ctx.settings
        gradient = steps.sums_gradient(channels_last(gradient), groups, quotients, x_scale, w_scale)
        needed = ctx.needs_input_grad[:2]
        x_gradient, w_gradient = steps.powers_gradients(gradient, x_powers, w_powers, stride, padding, groups, needed)
        if x_gradient is not None:
            x_gradient = steps.values_gradient(channels_last(x_gradient), x_powers, x)
            if ctx.whole is not None:
                seen = x_gradient
                options = {"dtype": seen.dtype, "device": seen.device, "memory_format": torch.channels_last}
                x_gradient = torch.empty(ctx.whole, **options).zero_()
                x_gradient[:, :, :: ctx.stride, :: ctx.stride] = seen
        if w_gradient is not None:
            w_gradient = steps.values_gradient(channels_last(w_gradient), w_powers, w)
        return x_gradient, w_gradient, None, None, None, None, None, None
