# SPDX-License-Identifier: Apache-2.0
"""What enters the maxima of a bipolar morphological neuron, for vectors of its inputs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat

__all__ = ["Candidates", "candidates_of", "codes_of", "maxima_of"]

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def maxima_of(fmt: "BmFormat", inputs: dict[str, Integers]) -> list[Integers]:
    """The maxima of each branch, before any bias: shape (vectors, groups)."""
    codes, negative = codes_of(fmt, inputs)
    weights = {port: inputs[port] for port in inputs if port in ("k", "k1", "k2", "sign")}
    return [maximum.reshape(len(codes), fmt.groups) for maximum in fmt.maxima(codes, negative, **weights)]


def codes_of(fmt: "BmFormat", inputs: dict[str, Integers]) -> tuple[Integers, Booleans]:
    """The log codes of the inputs' magnitudes, and which inputs are negative: shape (vectors, inputs)."""
    if fmt.boundary == "neuron":
        return fmt.log_codes(inputs["x"])
    return inputs["c"], np.broadcast_to(np.equal(inputs.get("negative", 0), 1), inputs["c"].shape)


@dataclass(frozen=True)
class Candidates:
    """Of one branch, each of shape (vectors, groups, inputs of a group): ``sums``, as they would enter; ``enter``: who
    does; ``left_out``: who would, were neither its activation nor its weight exactly 0."""

    sums: Integers
    enter: Booleans
    left_out: Booleans


def candidates_of(fmt: "BmFormat", inputs: dict[str, Integers]) -> list[Candidates]:
    """The candidates of each branch's maxima."""
    codes, negative = codes_of(fmt, inputs)

    def branch(code: Integers, port: str, own: Booleans) -> Candidates:
        weight = inputs[port]
        sums = np.maximum(code + weight - fmt.sum_origin, 0)
        nothing = np.broadcast_to((fmt.zero == "exact") & ((code == 0) | (weight == 0)), sums.shape)
        return Candidates(*(values.reshape(len(code), fmt.groups, -1)
                            for values in (sums, own & ~nothing, own & nothing)))

    everyone = np.ones(codes.shape, dtype=bool)
    if fmt.layout == "wired":
        first = np.broadcast_to(np.arange(fmt.inputs) % fmt.group_inputs < fmt.positive_inputs, codes.shape)
        return [branch(codes, "k", own) for own in (first, ~first)]
    if fmt.layout == "signed":
        minus = negative ^ (inputs["sign"] == 1)
        return [branch(codes, "k", own) for own in (~minus, minus)]
    halves = [np.where(negative, 0, codes)]
    if fmt.layout == "bipolar":
        halves.append(np.where(negative, codes, 0))
    return [branch(half, port, everyone) for half in halves for port in ("k1", "k2")]
