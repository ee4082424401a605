# SPDX-License-Identifier: Apache-2.0
"""Bias and residual that lead a neuron's linear result to where it is wanted."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat
    from bmhw.hdl.formats.mac import MacFormat

__all__ = ["addends"]

Integers = NDArray[np.int64]


def addends(fmt: "MacFormat | BmFormat", missing: Integers, generator: np.random.Generator) -> dict[str, Integers]:
    """The ports ``bias`` and, where there is one, ``r``: together ``missing``, or as close to it as they reach.

    A residual is of any size and sign, and the bias leads there from it; where that doesn't reach, the residual does.
    """
    bias = fmt.bias
    if not fmt.residual_bits:
        return {"bias": np.clip(missing, bias.minimum, bias.maximum)}
    r = generator.integers(fmt.r.minimum, fmt.r.maximum, len(missing), endpoint=True)
    r >>= generator.integers(0, fmt.residual_bits, len(missing))
    taken = np.clip(missing - r, bias.minimum, bias.maximum)
    return {"bias": taken, "r": np.clip(missing - taken, fmt.r.minimum, fmt.r.maximum)}
