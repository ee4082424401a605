# SPDX-License-Identifier: Apache-2.0
"""The precision that p-norms are computed in: one choice, here, for every implementation."""

import functools
import os

import torch
from torch import Tensor

from bmhw.hdl.checks import not_one_of
from bmhw.models.errors import ModelUsageError

__all__ = ["POWERS", "VARIABLE", "powers_dtype", "powers_name"]

POWERS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Name -> type of p-th powers, of their sums and of the gradients of both, for operands in float32."""

VARIABLE = "BMHW_POWERS"
"""The variable of the environment that forces one of :data:`POWERS`."""


def powers_name(device: torch.device | str) -> str:
    """The key of :data:`POWERS` for operands on a device; ModelUsageError for another value of ``BMHW_POWERS``.

    bfloat16 takes half the time where there are instructions for it, and rounds each power, sum and gradient by at
    most 1/256. Everywhere else it is computed too when forced, only slower. So a result depends on this choice, not on
    what computes it.
    """
    forced = os.environ.get(VARIABLE)
    if forced:
        if forced not in POWERS:
            raise ModelUsageError(not_one_of(VARIABLE, sorted(POWERS), forced))
        return forced
    kind = torch.device(device).type
    return "bfloat16" if kind == "cuda" or (kind == "cpu" and _processor_has_bfloat16()) else "float32"


def powers_dtype(values: Tensor) -> torch.dtype:
    """Of the powers of these values: the chosen one for float32, else their own."""
    return POWERS[powers_name(values.device)] if values.dtype == torch.float32 else values.dtype


@functools.cache
def _processor_has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
