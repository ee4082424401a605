# SPDX-License-Identifier: Apache-2.0
"""Names of exports: legal, one for each design, and none that anything inside the module has."""

import itertools
import re
from types import SimpleNamespace

import pytest

from bmhw.deliver.export_names import KEYWORDS, check_name, check_unused, default_name
from bmhw.errors import UsageError
from bmhw.export import main
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import LONGEST_NAME, Design, joined

SMALL = ["--bits", "2", "--inputs", "2", "--vectors", "3"]


def formats():
    """Formats that differ from one another in one field or in several."""
    fields = {"layout": ("relu", "signed", "wired", "bipolar"), "signed_inputs": (None, True), "log_bits": (None, 5),
              "log_fraction": (None, 1), "weight_bits": (None, 4), "sums": ("full", "clamped"),
              "maximum_bits": (None, 3), "combine": ("linear", "logarithmic"), "boundary": ("neuron", "layer"),
              "result": (None, "linear"), "log2": (None, "mitchell"), "offset": (0, -2), "bias_bits": (None, 3)}
    for values in itertools.product(*fields.values()):
        try:
            yield BmFormat(inputs=3, bits=4, **dict(zip(fields, values, strict=True)))
        except ValueError:
            continue
    for signed, weights, boundary, how, bits, shift in itertools.product(
            (False, True), (None, 3), ("neuron", "layer"), ("scale", "shift"), (8, 6), (None, 2)):
        yield MacFormat(inputs=3, bits=4, signed_inputs=signed, weight_bits=weights, boundary=boundary, requantize=how,
                        scale_bits=bits, requantize_shift=shift)


def test_other_formats_and_forms_have_other_names():
    named: dict[str, Design] = {}
    for number_format in formats():
        for form in ("parallel", "pipelined"):
            design = Design(format=number_format, form=form)
            assert named.setdefault(design.name, design) == design
            assert check_name(design.name) == design.name
    assert len(named) > 1000


def test_other_places_of_registers_have_other_names():
    every = Design(format=BmFormat(inputs=9, bits=8), form="pipelined", maximum="digits").places
    designs = [Design(format=BmFormat(inputs=9, bits=8), form="pipelined", maximum="digits", registers=places)
               for count in (1, 2, len(every) - 1, len(every)) for places in itertools.combinations(every, count)]
    assert len({design.name for design in designs}) == len(designs)
    assert all(check_name(design.name) for design in designs)


def test_a_default_name_tells_architectures_apart():
    number_format = BmFormat(inputs=9, bits=8)
    designs = [Design(format=number_format, maximum=maximum, adder=adder)
               for maximum in ("tree", "digits", "digits3", "elimination")
               for adder in ("ripple", "sklansky", "carry_skip")]
    neuron = SimpleNamespace(model="runs/2nd ö.json", layer="conv", channel=7)
    for names in ([default_name(design, "area") for design in designs],
                  [default_name(design, "area", neuron) for design in designs]):
        assert len(set(names)) == len(names) and all(check_name(name) for name in names)
    assert all(name.startswith("bm_2nd_conv_channel7") for name in names)


def test_a_long_name_ends_with_a_digest_of_it():
    long = [["a" * 60, "b" * 60, last] for last in "cd"]
    names = {joined(words) for words in long}
    assert len(names) == 2 and {len(name) for name in names} == {LONGEST_NAME}
    assert joined(["a", "b"]) == "a_b"


@pytest.mark.parametrize("name", [
    "", " ", "a b", "../up", "a/b", "/tmp/a", "..", ".", "a\\b", "1st", "_a", "-a", "größe", "a\n", "a.v", "a$", "$a",
    "n" * (LONGEST_NAME + 1), "module", "wire", "uwire", "pulsestyle_onevent", "logic", "bit", "always_ff", "string",
    "checker", "nettype", "implements", "std", "TOP", "x", "y", "z", "k", "sign", "clk", "rst", "in_valid", "scale",
    "dut", "vector", "expected", "load_vectors", "finish", "maxima", "x_of",
])
def test_names_that_a_module_cannot_have_are_one_line(name, tmp_path, capsys):
    try:
        main([*SMALL, f"--name={name}", "--out", str(tmp_path / "new")])
    except UsageError as error:
        said = str(error)
    except SystemExit as ended:
        assert ended.code == UsageError.exit_status
        said = capsys.readouterr().err.rstrip("\n")
    assert "--name" in said and "\n" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--form", "serial", "--branches", "signed"], ["--neuron", "mac"]])
def test_no_signal_part_or_task_of_an_export_is_a_name_for_it(options, tmp_path):
    main([*SMALL, *options, "--name", "free", "--out", str(tmp_path)])
    sources = {path.name: path.read_text() for path in tmp_path.glob("*.v")}
    kinds = r"\b(?:reg|wire|input|output|integer|task|localparam)\s+(?:signed\s+)?(?:\[[^]]*\]\s*)?(\w+)"
    words = set()
    for text in sources.values():
        words |= set(re.findall(kinds, re.sub("//.*", "", text)))
    words = {word for word in words - KEYWORDS if re.match("[A-Za-z]", word)}
    assert {"dut", "vector", "expected", "load_vectors"} & words and len(words) > 10
    check_unused("free", sources)
    for word in words:
        renamed = {name: re.sub(r"\bfree\b", word, text) for name, text in sources.items()}
        with pytest.raises(UsageError, match=f"'{word}'"):
            check_unused(word, renamed)
