# SPDX-License-Identifier: Apache-2.0
"""What the architectures of grouped neurons are for, measured: a short path behind the maxima, for few gates."""

import pytest

from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons.design import Design
from bmhw.measure.neurons import figures


def measured(fmt, **architecture):
    return figures(Design(format=fmt, adder="sklansky_late", **architecture), by_parts=False, objective="balanced",
                   engine=Engine(), cache=Cache(None))


@pytest.mark.parametrize("layout", ["signed", "wired"])
def test_a_log2_that_anticipates_is_shorter_and_hardly_larger(layout):
    """A final adder of 10 bits alone has ten levels; half of them must be gone, for less than 5 % of the gates."""
    fmt = BmFormat(inputs=16, bits=4, layout=layout, boundary="layer", sums="clamped", groups=4)
    plain, anticipating = (measured(fmt, end=end, maximum="digits") for end in ("subtract", "anticipate"))
    assert anticipating.depth <= plain.depth - 5
    assert anticipating.gates <= 1.05 * plain.gates


def test_steps_are_shorter_than_digits():
    """Nothing waits for a higher bit's OR: that of digits of two bits waits once for another one of four levels."""
    fmt = BmFormat(inputs=32, bits=3, layout="signed", boundary="layer", sums="clamped", groups=2, result="linear")
    digits, steps = (measured(fmt, end="subtract", maximum=maximum) for maximum in ("digits", "unary"))
    assert steps.depth <= digits.depth - 4
