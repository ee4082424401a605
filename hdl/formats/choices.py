# SPDX-License-Identifier: Apache-2.0
"""What a neuron's format may be: the words that both neurons, their hardware and the command lines share."""

__all__ = [
    "BOUNDARIES", "COMBINES", "ELEMENT", "LARGEST_BIAS_BITS", "LAYOUTS", "LOG_SUBTRACT_FRACTION", "ONE_SUM",
    "REQUANTIZATIONS", "RESULTS", "SCALARS", "SUMS", "TWO_MAXIMA", "ZEROS", "nearest_divisors", "set_default",
]

LAYOUTS = ("bipolar", "relu", "signed", "wired")
ONE_SUM = ("signed", "wired")
"""Layouts with one weight, and one sum, an input."""
TWO_MAXIMA = ("relu", "signed", "wired")
"""Layouts whose linear result is the difference of two terms: those that can have a logarithmic end."""
COMBINES = ("linear", "logarithmic")
LOG_SUBTRACT_FRACTION = 8
LARGEST_BIAS_BITS = 62
"""A sum with so wide a bias is still an int64."""
BOUNDARIES = ("neuron", "layer")
ELEMENT = "element"
"""The boundary of a part of a neuron: its sums and running maxima, or its products and accumulator, without an end."""
SCALARS = ("bias", "bias1", "bias2", "scale", "r")
"""Input ports with one value a neuron, and no axis of inputs in ``compute``."""
RESULTS = ("linear", "code")
SUMS = ("full", "clamped")
ZEROS = ("step", "exact")
"""What code 0 stands for where maxima become linear numbers: its smallest step, or 0."""
REQUANTIZATIONS = ("scale", "shift")


def set_default(instance: object, name: str, value: object) -> None:
    """Give a field of a frozen dataclass its value where it is None."""
    if getattr(instance, name) is None:
        object.__setattr__(instance, name, value)


def nearest_divisors(number: int, divisor: int) -> list[int]:
    """The divisors of ``number`` that are nearest to one that isn't, below and above."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below, above = [d for d in divisors if d < divisor], [d for d in divisors if d > divisor]
    return below[-1:] + above[:1]
