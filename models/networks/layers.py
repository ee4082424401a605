# SPDX-License-Identifier: Apache-2.0
"""Bipolar morphological layers in PyTorch, for the three layouts (arXiv 2009.07190)."""

import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.hdl.checks import check_choice
from bmhw.hdl.formats.choices import LAYOUTS, ONE_SUM
from bmhw.models.operators.max_product import max_product_difference

from .groups import Groups, groups_of

__all__ = [
    "EPSILON", "BmConv2d", "BmLinear", "BorderedConv2d", "combine_layout", "larger_of_pair", "padded", "split_weight",
    "wired_signs", "with_signs",
]  # fmt: skip

EPSILON = 1e-6
"""What the paper writes as eps: the smallest magnitude of a converted weight."""


def combine_layout(
    layout: str,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    difference=max_product_difference,
    encode: Callable[[Tensor], Tensor] = lambda x: x,
    groups: int = 1,
    nonnegative: bool | None = None,
) -> Tensor:
    """The output of a layer without its bias.

    x: (batch, channels, height, width), >= 0 for ``relu``. weight: ``signed`` and ``wired``: (outputs, channels, kernel
    height, kernel width); ``relu`` and ``bipolar``: two such arrays >= 0, stacked in front (w1 and w2).
    ``difference``: a function like :func:`.operators.max_product_difference`; ``encode``: applied to what
    enters the maxima; ``groups``: of input channels, which they divide (see ``groups_of``), each with its own maxima;
    ``nonnegative``: whether x is known to have nothing below 0, None: unknown. A ``difference`` is told of groups where
    there are several, of signs where they are known.
    """
    if groups > 1:
        difference = functools.partial(difference, groups=groups)
    if nonnegative is not None:
        difference = functools.partial(difference, nonnegative=nonnegative or layout not in ONE_SUM)
    if layout in ONE_SUM:
        # The sign of each product chooses its maximum: the largest and the negated smallest product.
        return difference(encode(x), torch.stack([weight, -weight]), stride, padding)
    if layout == "relu":
        return difference(encode(x), weight, stride, padding)
    halves = encode(torch.cat([x.clamp(min=0), (-x).clamp(min=0)]))
    positive, negative = difference(halves, weight, stride, padding).chunk(2)
    return positive - negative


def split_weight(layout: str, weight: Tensor, epsilon: float = EPSILON, groups: int = 1) -> Tensor:
    """A classical weight in a layout: itself for ``signed``, the nearest one with :func:`wired_signs` for ``wired``,
    else ``w1 = max(w, eps)``, ``w2 = max(-w, eps)``."""
    if layout == "signed":
        return weight.clone()
    if layout == "wired":
        return with_signs(weight, wired_signs(weight, groups), epsilon)
    return torch.stack([weight.clamp(min=epsilon), (-weight).clamp(min=epsilon)])


def larger_of_pair(weight: Tensor) -> Tensor:
    """Weights (2, ...) of ``relu`` or ``bipolar``, magnitudes, as those of ``signed``: of each pair the larger one, the
    second with a minus."""
    first, second = weight.abs()
    return torch.where(first >= second, first, -second)


def wired_signs(weight: Tensor, groups: int = 1) -> Tensor:
    """Which maximum each input is wired to: 1 for the larger half of each output's and group's weights, -1 for the
    smaller half (of an odd number, for one less).

    weight: (outputs, channels, ...), ``groups`` of channels. Signs that are half and half stay as they are; of
    weights drawn at random it is a random wiring.
    """
    flat = weight.detach().reshape(weight.shape[0], groups, -1)
    order = flat.argsort(dim=2, stable=True)
    signs = torch.ones_like(flat)
    signs.scatter_(2, order[..., : order.shape[2] // 2], -1.0)
    return signs.view(weight.shape)


def with_signs(weight: Tensor, signs: Tensor, epsilon: float = EPSILON) -> Tensor:
    """The nearest weight of these signs: one of the other sign gets the magnitude ``epsilon``."""
    return (weight * signs).clamp(min=epsilon) * signs


def padded(x: Tensor, padding: int, border: Tensor) -> Tensor:
    """Maps x (batch, channels, height, width) with ``padding`` rows and columns of ``border`` (channels,) around."""
    batch, _channels, height, width = x.shape
    result = border.to(x.dtype).view(1, -1, 1, 1).repeat(batch, 1, height + 2 * padding, width + 2 * padding)
    result[:, :, padding : padding + height, padding : padding + width] = x
    return result


class BorderedConv2d(nn.Conv2d):
    """A convolution that pads each input channel with a constant of its own, ``border``: (in_channels,)."""

    def __init__(self, *sizes, border: Sequence[float], padding: int, **options):
        super().__init__(*sizes, padding=padding, **options)
        self.register_buffer("border", torch.tensor(border), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(padded(x, self.padding[0], self.border), self.weight, self.bias, self.stride)


class BmConv2d(nn.Module):
    """Bipolar morphological 2-D convolution.

    Input (batch, in_channels, height, width), output (batch, out_channels, ...), padded with zeros or with
    ``border``: (in_channels,). ``weight``:
    (out, in, kernel, kernel) for ``signed`` and ``wired``, (2, out, in, kernel, kernel) otherwise, where only
    magnitudes count. ``groups`` as asked for; the attribute is what ``groups_of`` makes of it: each group of input
    channels has maxima of its own, whose differences are added. ``nonnegative``: whether inputs are known to be >= 0;
    None: where it matters, they are looked at. ``training_difference``: what stands for the difference
    of two maxima while training (a function like :func:`.operators.max_product_difference`, which it is unless set
    otherwise).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        layout: str = "relu",
        border: Sequence[float] | None = None,
        groups: Groups = 1,
        nonnegative: bool | None = None,
    ):
        super().__init__()
        self.layout, self.nonnegative = check_choice("Layout", layout, LAYOUTS), nonnegative
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.groups = groups_of(in_channels, groups, math.prod(self.kernel_size))
        self.stride, self.padding = stride, padding
        shape = (out_channels, in_channels, *self.kernel_size)
        classical = torch.empty(shape)
        nn.init.kaiming_uniform_(classical, a=math.sqrt(5))
        self.weight = nn.Parameter(split_weight(layout, classical, groups=self.groups))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.training_difference = max_product_difference
        self.register_buffer("border", None if border is None else torch.tensor(border), persistent=False)

    @property
    def effective_weight(self) -> Tensor:
        """The weight as it is used: signed, or magnitudes."""
        return self.weight if self.layout in ONE_SUM else self.weight.abs()

    def forward(self, x: Tensor) -> Tensor:
        difference = self.training_difference if self.training else max_product_difference
        padding = self.padding
        if self.border is not None:
            x, padding = padded(x, padding, self.border), 0
        weight = self.effective_weight
        known = {"groups": self.groups, "nonnegative": self.nonnegative}
        y = combine_layout(self.layout, x, weight, self.stride, padding, difference, **known)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    @torch.no_grad()
    def load_classical(self, weight: Tensor, bias: Tensor | None = None, epsilon: float = EPSILON) -> None:
        """Take the weights of a classical convolution of the same shape (conversion, arXiv 1911.01971)."""
        self.weight.copy_(split_weight(self.layout, weight, epsilon, self.groups))
        if self.bias is not None:
            self.bias.copy_(torch.zeros_like(self.bias) if bias is None else bias)

    def extra_repr(self) -> str:
        sizes = f"weight {tuple(self.weight.shape)}, stride {self.stride}, padding {self.padding}"
        return f"{self.layout}, {sizes}, groups {self.groups}"


class BmLinear(BmConv2d):
    """Bipolar morphological dense layer: input (..., in_features), output (..., out_features); ``groups`` of inputs."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, layout: str = "relu", groups: Groups = 1
    ):
        super().__init__(in_features, out_features, 1, bias=bias, layout=layout, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.reshape(-1, x.shape[-1], 1, 1))
        return y.reshape(*x.shape[:-1], -1)

    def load_classical(self, weight: Tensor, bias: Tensor | None = None, epsilon: float = EPSILON) -> None:
        """Take a classical dense layer's weight of shape (out_features, in_features)."""
        super().load_classical(weight[..., None, None], bias, epsilon)
