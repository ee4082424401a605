# SPDX-License-Identifier: Apache-2.0
"""Rounding halves up, in tensors with gradients and to integers."""

import numpy as np
import torch
from torch import Tensor

from bmhw.models.operators.max_product import straight_through

from .limits import Limit

__all__ = ["integers", "round_half_up"]


def integers(real: Tensor, limit: Limit) -> np.ndarray:
    """Rounded, halves up, int64; the nearest one within the limit."""
    # a float64 above 2^53 need not be the limit itself: the last step is in integers
    rounded = torch.floor(real.detach().double() + 0.5).clamp(float(limit.minimum), float(limit.maximum))
    return np.clip(rounded.long().cpu().numpy(), limit.minimum, limit.maximum)


def round_half_up(real: Tensor) -> Tensor:
    return straight_through(real, torch.floor(real + 0.5))
