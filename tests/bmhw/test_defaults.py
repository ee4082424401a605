# SPDX-License-Identifier: Apache-2.0
"""What an option's default is, no other default refuses."""

import itertools
from collections.abc import Iterator

import pytest

from bmhw.command_line import Parser
from bmhw.errors import UsageError
from bmhw.hdl.formats.choices import BOUNDARIES, COMBINES, LAYOUTS, REQUANTIZATIONS, SUMS
from bmhw.hdl.neurons.design import FORMS, Design
from bmhw.hdl.verilog.convert import to_verilog
from bmhw.options import design_from, design_options

PARSER = Parser()
design_options(PARSER)
WIDTHS = range(2, 17)


def design(*options) -> Design:
    return design_from(PARSER.parse_args([*map(str, options)]))


def combinations(**choices) -> Iterator[dict[str, object]]:
    """Every choice with every other one; None: the option isn't given."""
    return (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))


def options_of(given: dict[str, object]) -> list[object]:
    return [word for name, value in given.items() if value is not None
            for word in ([f"--{name}"] if value is True else [f"--{name}", value])]


def contradiction(given: dict[str, object]) -> bool:
    """Whether two options that are given, or one of them and the layout that stands for it, exclude each other."""
    layout = given.get("branches") or "relu"
    return (
        (given.get("signed-inputs") is True and given["neuron"] is None and layout in ("relu", "wired"))
        or (given.get("combine") == "logarithmic" and layout == "bipolar")
        or (given.get("requantize") is not None and given["boundary"] != "layer")
    )


@pytest.mark.parametrize("bits", WIDTHS)
def test_only_what_is_given_is_refused(bits):
    common = {"bits": (bits,), "form": (None, *FORMS), "boundary": (None, *BOUNDARIES), "signed-inputs": (None, True)}
    bm = combinations(neuron=(None,), branches=(None, *LAYOUTS), combine=(None, *COMBINES), sums=(None, *SUMS),
                      **common)
    mac = combinations(neuron=("mac",), requantize=(None, *REQUANTIZATIONS), **common)
    designs = 0
    for given in itertools.chain(bm, mac):
        if contradiction(given):
            with pytest.raises(UsageError):
                design(*options_of(given))
        else:
            design(*options_of(given))
            designs += 1
    assert designs > 300


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_width_alone_is_never_refused(bits):
    for given in combinations(**{"log-bits": WIDTHS, "weight-bits": (None, 2, 3, 8, 16), "combine": COMBINES,
                                 "boundary": BOUNDARIES}):
        fmt = design("--bits", bits, *options_of(given)).format
        assert 0 <= fmt.log_fraction < min(fmt.log_bits, fmt.weight_bits)


def test_a_fraction_that_is_given_is_not_changed():
    with pytest.raises(UsageError, match="fraction of a logarithmic end must be an integer from 0 to 8, not 9"):
        design("--bits", 13, "--combine", "logarithmic", "--log-fraction", 9)
    with pytest.raises(UsageError, match="fraction must be an integer from 0 to 2, not 3"):
        design("--weight-bits", 3, "--log-fraction", 3)


@pytest.mark.parametrize("options", [
    ("--bits", 2), ("--bits", 2, "--boundary", "layer"), ("--bits", 2, "--form", "serial"), ("--bits", 16),
    ("--bits", 13, "--combine", "logarithmic"), ("--bits", 16, "--combine", "logarithmic", "--sums", "clamped"),
    ("--bits", 16, "--boundary", "layer", "--branches", "signed"), ("--bits", 8, "--log-bits", 16),
    ("--neuron", "mac", "--bits", 2, "--boundary", "layer"), ("--neuron", "mac", "--bits", 16, "--form", "serial")],
    ids=lambda options: " ".join(map(str, options)))
def test_defaults_at_the_ends_of_their_ranges_can_be_generated(options):
    chosen = design("--inputs", 2, *options)
    assert f"module {chosen.name} (" in to_verilog(chosen)
