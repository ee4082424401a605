# SPDX-License-Identifier: Apache-2.0
"""ReLU and log2 in PyTorch: the end of a folded layer that gives codes, and what encodes linear integers.

Bit for bit ``LinearEnd.compute``; the offset is learned. All is tensors of fixed shapes: no value is looked at on the
host, so that it can be part of a graph of a GPU's kernels.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.models.networks.architecture import Node
from bmhw.models.operators.encoding import Encoding, encoded
from bmhw.models.operators.max_product import straight_through

from .limits import FINE, SHIFT
from .network import Encoder
from .rounding import integers

__all__ = ["FoldedEncoder", "FoldedEnd"]


class FoldedEnd(nn.Module):
    """From linear integers to the values (0..1) of their codes.

    ``end``: as folded. The offset is the parameter ``octaves``, rounded to the code's steps. When it moves, a code
    stands for less by as much (:attr:`moved`), which those who read it make good: so only what saturates, and what is
    too small, has a share in its gradient, as in learned step sizes (Esser et al., arXiv 1902.08153, whose factor of
    the gradient it has too). ``code_values``: (2^B,), ``node``: whose values it encodes, ``fine``: (channels,), steps
    that each channel's offset has above it.
    """

    def __init__(self, end: LinearEnd, code_values: Tensor, node: Node, fine: Tensor):
        super().__init__()
        self.register_buffer("fine", fine.float())
        self.end = end
        self.octaves = nn.Parameter(torch.tensor(end.offset / (1 << end.log.fraction)))
        self.gradient_share = (np.prod(node.shape) * end.log.maximum) ** -0.5
        # log2 for each number of octaves above 1 that it can see
        ends = [dataclasses.replace(end, offset=-(octaves << end.log.fraction)) for octaves in range(end.reach + 1)]
        width = max(1 << one.log2.bits for one in ends) + 1
        tables = np.zeros((len(ends), width), dtype=np.int64)
        for table, one in zip(tables, ends, strict=True):
            codes = one.log2.compute(np.arange((1 << one.log2.bits) + 1))
            table[: len(codes)] = codes
        self.width = width
        self.register_buffer("table", torch.from_numpy(tables.ravel()), persistent=False)
        self.register_buffer("shifts", torch.tensor([one.shift for one in ends]), persistent=False)
        self.register_buffer("code_values", code_values, persistent=False)

    @property
    def steps(self) -> Tensor:
        """The offset, an integer, with the gradient of its parameter."""
        steps = self.octaves * (1 << self.end.log.fraction)
        return straight_through(steps * self.gradient_share, torch.floor(steps + 0.5))

    @property
    def moved(self) -> Tensor:
        """Steps by which the offset is larger than it was when folded."""
        return self.steps - self.end.offset

    def forward(
        self, y: Tensor, quantised: bool = True, moved: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Values of the codes of integers y (batch, channels, height, width); ``moved``: of the codes that y was made
        of, which makes y so much larger; ``scale``: see :func:`.operators.encoding.encoded`."""
        steps = 1 << self.end.log.fraction
        offset = (self._offset(moved) if quantised else self.end.offset) + self.fine
        factor = torch.exp2(offset / steps)
        if quantised:
            return encoded(y, factor, self._encoding(offset.detach().long()), scale)
        real = y * 2.0**-self.end.out_fraction * factor.view(-1, 1, 1)
        return torch.relu(real) if scale is None else real * scale.view(-1, 1, 1)

    def _offset(self, moved: Tensor | None) -> Tensor:
        return self.steps if moved is None else self.steps - moved

    def _encoding(self, offset: Tensor) -> Encoding:
        """``LinearEnd.compute`` with these offsets, (channels,)."""
        end, log = self.end, self.end.log
        octaves = (-(offset >> log.fraction)).clamp(0, end.reach)
        return Encoding(
            cap=1 << (octaves + end.out_fraction),
            shift=self.shifts[octaves],
            row=octaves * self.width,
            offset=offset + (octaves << log.fraction) - (1 << log.bits) if end.reach else offset,
            table=self.table,
            values=self.code_values,
            unit=2.0**-end.out_fraction,
            largest_cap=1 << (end.reach + end.out_fraction),
        )

    def to_integer(self, moved: Tensor | None = None) -> LinearEnd:
        return dataclasses.replace(self.end, offset=int(self._offset(moved)))


class FoldedEncoder(nn.Module):
    """See :class:`.network.Encoder`; gives values of codes (-1..1) of integers (batch, channels, height, width).

    ``shift``, ``fine``: (channels,).
    """

    def __init__(self, end: LinearEnd, code_values: Tensor, node: Node, shift: Tensor, fine: Tensor):
        super().__init__()
        self.end = FoldedEnd(end, code_values, node, fine)
        self.register_buffer("shift", shift)

    def forward(self, values: Tensor, quantised: bool = True) -> Tensor:
        return self.end(values, quantised, scale=torch.exp2(-self.shift))

    def to_integer(self) -> Encoder:
        return Encoder(self.end.to_integer(), integers(self.shift, SHIFT), integers(self.end.fine, FINE))
