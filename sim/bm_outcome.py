# SPDX-License-Identifier: Apache-2.0
"""What of a bipolar morphological neuron's output would be another with another maximum, for vectors of its inputs."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.choices import SCALARS

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat

__all__ = ["Outcome"]

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class Outcome:
    """The output of some vectors, and what of it would change with a maximum or with a unit of an exponential.

    ``maxima``: of each branch, biases of a logarithmic end among them, shape (vectors, groups). ``shown``: for each
    branch whether a maximum that is one step less, or more, changes the output. ``units``: whether one unit less, or
    more, of an exponential does. ``y``: the linear result.
    """

    def __init__(self, fmt: "BmFormat", inputs: dict[str, Integers], maxima: list[Integers]):
        self.fmt, self.maxima = fmt, list(maxima)
        step = 1 << fmt.dropped_bits
        self.units: list[Booleans] = []
        if fmt.combine == "logarithmic":
            cleared = [inputs[port][:, np.newaxis] & -step for port in ("bias1", "bias2")]
            self.maxima = [np.maximum(m, bias) for m, bias in zip(maxima, cleared, strict=True)]
            self.output = fmt.log_subtract.compute(*self.maxima)[:, 0]
        else:
            self._terms = [sign * fmt.exp2_unit.compute(m) for sign, m in zip(fmt.branches, self.maxima, strict=True)]
            scalars = sum(inputs[port] for port in SCALARS if port in inputs)
            self.y = sum(term.sum(axis=1) for term in self._terms) + scalars
            self.output = self.of_linear(self.y)
            for change in (-1, 1):
                bias = np.clip(inputs["bias"] + change, fmt.bias.minimum, fmt.bias.maximum)
                self.units.append(self.of_linear(self.y + bias - inputs["bias"]) != self.output)
        self.shown = [[self.would_show(branch, np.clip(maximum + change, 0, fmt.full_scale))
                       for change in (-step, step)] for branch, maximum in enumerate(self.maxima)]

    def of_linear(self, y: Integers) -> Integers:
        """The output of linear results."""
        return y if self.fmt.result == "linear" else self.fmt.code_of(y)

    def would_show(self, branch: int, maximum: Integers) -> Booleans:
        """Whether the output would be another one with these maxima of a branch, each alone: (vectors, groups)."""
        fmt = self.fmt
        if fmt.combine == "logarithmic":
            changed = [maximum if b == branch else other for b, other in enumerate(self.maxima)]
            return fmt.log_subtract.compute(*changed) != self.output[:, np.newaxis]
        term = fmt.branches[branch] * fmt.exp2_unit.compute(maximum)
        return self.of_linear(self.y[:, np.newaxis] + term - self._terms[branch]) != self.output[:, np.newaxis]
