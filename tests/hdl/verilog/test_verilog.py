# SPDX-License-Identifier: Apache-2.0
"""The Verilog that goes out: proven equal to the design it was written from, readable, reproducible."""

import re
import subprocess
import sys

import pytest
from amaranth._toolchain.yosys import _BuiltinYosys
from support.proof import equivalent, plain_rtlil

from bmhw.errors import RunError, UsageError
from bmhw.flow.cache import Cache
from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.comparators import Comparator
from bmhw.hdl.arithmetic.compressors import MultiOperandAdder
from bmhw.hdl.arithmetic.logarithm import Normalizer
from bmhw.hdl.arithmetic.maxima import BINARY_MAXIMA, MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS, Multiplier
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import BOUNDARIES, COMBINES, LAYOUTS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import FORMS, Design
from bmhw.hdl.neurons.log_ends import LOG_ENDS
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import block_to_verilog, converter, to_verilog
from bmhw.hdl.verilog.tidy import tidy
from bmhw.measure.generation import generate


def neurons():
    for layout in ("relu", "bipolar", "signed"):
        yield Design(format=BmFormat(inputs=3, bits=3, layout=layout))
    yield Design(format=BmFormat(inputs=3, bits=3, layout="signed", signed_inputs=True, combine="logarithmic"))
    yield Design(format=BmFormat(inputs=3, bits=3, layout="wired", combine="logarithmic", sums="clamped"))
    yield Design(format=BmFormat(inputs=2, bits=4, boundary="layer"), maximum="digits4")
    yield Design(format=BmFormat(inputs=2, bits=13, log_bits=4, log_fraction=1))
    yield Design(format=MacFormat(inputs=2, bits=3), multiplier="booth")
    yield Design(format=MacFormat(inputs=2, bits=3, boundary="layer", scale_bits=2))


def serial_neurons():
    """From element to element codes of 2 bits, so that eight cycles of any inputs can be proven."""
    yield Design(format=MacFormat(inputs=2, bits=2), form="serial")
    for layout in ("relu", "bipolar", "signed"):
        yield Design(format=BmFormat(inputs=2, bits=2, layout=layout), form="serial")
    yield Design(format=BmFormat(inputs=2, bits=2, layout="signed", combine="logarithmic"), form="serial")
    yield Design(format=BmFormat(inputs=2, bits=2, layout="wired", boundary="layer"), form="serial")
    yield Design(format=BmFormat(inputs=2, bits=2, layout="signed", boundary="layer", groups=2), form="serial")


def families():
    """Every layout in every form that it has, both boundaries and ends, and every architecture."""
    for form in FORMS:
        for boundary in BOUNDARIES:
            yield Design(format=MacFormat(inputs=3, bits=3, boundary=boundary), form=form)
            for layout in LAYOUTS:
                for combine in COMBINES if layout != "bipolar" else ("linear",):
                    yield Design(format=BmFormat(inputs=3, bits=3, layout=layout, boundary=boundary, combine=combine),
                                 form=form)
    for maximum in BINARY_MAXIMA:
        yield Design(format=BmFormat(inputs=5, bits=4, boundary="layer", layout="signed"), maximum=maximum)
    for adder in ADDERS:
        yield Design(format=BmFormat(inputs=2, bits=5, boundary="layer", combine="logarithmic"), adder=adder)
    for end in LOG_ENDS:
        yield Design(format=BmFormat(inputs=2, bits=5, combine="logarithmic", sums="clamped"), end=end)
        yield Design(format=BmFormat(inputs=2, bits=4), end=end)
    for multiplier in MULTIPLIERS:
        yield Design(format=MacFormat(inputs=2, bits=4, signed_inputs=True), multiplier=multiplier)


def named(design: Design) -> str:
    return "-".join((design.name, *design.architecture.values()))


def driven_in_slices(text: str) -> list[str]:
    """Slices that something in a Verilog text drives: assignments, always blocks, outputs of instances."""
    outputs = {module[1]: set(re.findall(r"output (?:wire|reg) (?:\[\d+:0\] )?(\w+)", module[0]))
               for module in re.finditer(r"^module (\w+) \(.*?\);", text, re.M | re.S)}
    found = re.findall(r"^ *(?:assign )?(\S+ ?\[[^\]]*\]) *<?= ", text, re.M)
    for module, connections in re.findall(r"^  (\w+) \w+ \(\n(.*?)\n  \);", text, re.M | re.S):
        found += [wire for port, wire in re.findall(r"\.(\w+)\((.*?)\),?$", connections, re.M | re.S)
                  if port in outputs[module] and not re.fullmatch(r"\w+", wire)]
    return found


class TestSlices:
    """Icarus takes the cube of their number for slices that drive one wire."""

    @pytest.mark.parametrize("design", list(families()), ids=named)
    def test_no_wire_is_driven_in_slices(self, design):
        assert driven_in_slices(to_verilog(design, "neuron")) == []

    @pytest.mark.parametrize("planted", [
        "  assign s[3:2] = a;\n", "      s[1] <= a;\n", "  part part_0 (\n    .s(w[3:0])\n  );\n"])
    def test_driven_slices_are_seen(self, planted):
        text = f"module part (\n  output wire [3:0] s\n);\nendmodule\nmodule top (\n);\n{planted}endmodule\n"
        assert len(driven_in_slices(text)) == 1

    def test_slices_in_any_order_become_one_concatenation(self):
        block = MAXIMA["elimination"](width=2, count=3)
        assert re.search(r"assign m = \{ \S+, .+ \};", block_to_verilog(block, "gate"))

    @pytest.mark.parametrize("slices", ["assign s[1] = a;\n  assign s[3:2] = b;",
                                        "assign s[3:1] = b;\n  assign s[1:0] = a;"])
    def test_bits_left_out_or_driven_twice_are_an_error(self, slices):
        text = f"module top(s, a, b);\n  input a;\n  input [1:0] b;\n  output [3:0] s;\n  {slices}\nendmodule\n"
        with pytest.raises(RuntimeError, match="leave bits out or overlap"):
            tidy(text, [("input", "a"), ("input", "b"), ("output", "s")])


class TestRewriting:
    """Tidied, hierarchical Verilog against Amaranth's own flat conversion."""

    @pytest.mark.parametrize("design, sliced", [
        pytest.param(design, sliced, id=f"{design.name}-{'mapped' if sliced else 'exported'}",
                     marks=pytest.mark.long if sliced and number else ())
        for sliced in (False, True) for number, design in enumerate(neurons())])
    def test_neurons_are_proven_equal(self, design, sliced):
        gate = block_to_verilog(create_neuron(design), "gate", sliced=sliced)
        assert equivalent(plain_rtlil(create_neuron(design), "gold"), gate)

    @pytest.mark.parametrize("block", [Comparator(width=7), Normalizer(width=9)], ids=lambda block: block.block_name)
    def test_blocks_are_proven_equal(self, block):
        assert equivalent(plain_rtlil(type(block)(width=block.width), "gold"), block_to_verilog(block, "gate"))

    def test_a_block_of_many_ports_is_proven_equal(self):
        """Yosys breaks the line of its ports."""
        adder = {"operands": ((1, False, False),) * 40, "width": 6}
        gate = block_to_verilog(MultiOperandAdder(**adder), "gate")
        assert equivalent(plain_rtlil(MultiOperandAdder(**adder), "gold"), gate)

    @pytest.mark.parametrize(("kind", "parameters"), [
        *[(ADDERS[name], {"width": 5, "carry_in": True}) for name in ADDERS],
        *[(MAXIMA[name], {"width": 4, "count": 5, "masked": True}) for name in MAXIMA],
        *[(Multiplier, {"a_bits": 3, "b_bits": 3, "b_signed": True, "architecture": name}) for name in MULTIPLIERS]],
        ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value.__name__)
    def test_architectures_are_proven_equal(self, kind, parameters):
        assert equivalent(plain_rtlil(kind(**parameters), "gold"), block_to_verilog(kind(**parameters), "gate"))

    @pytest.mark.parametrize("design", [Design(format=BmFormat(inputs=3, bits=2, layout="bipolar"), form="pipelined"),
                                        Design(format=MacFormat(inputs=2, bits=2, boundary="layer"), form="pipelined")],
                             ids=lambda design: design.name)
    def test_pipelined_neurons_are_proven_equal(self, design):
        """Without a reset: once the latency has passed, nothing of the registers' first values is left."""
        latency = create_neuron(design).latency
        gold, gate = plain_rtlil(create_neuron(design), "gold"), to_verilog(design, "gate")
        assert equivalent(gold, gate, cycles=latency + 3, unequal_cycles=latency)
        assert not equivalent(gold, gate, cycles=latency + 3, unequal_cycles=latency - 1)

    @pytest.mark.parametrize("design", list(serial_neurons()), ids=lambda design: design.name)
    def test_one_cycle_of_reset_defines_a_serial_neuron(self, design):
        """Cycles for two results, whatever the registers hold before: with the reset all outputs are equal, without
        it they need not be."""
        gold, gate = plain_rtlil(create_neuron(design), "gold"), to_verilog(design, "gate")
        assert equivalent(gold, gate, cycles=8, unequal_cycles=1, reset=True)
        assert not equivalent(gold, gate, cycles=8, unequal_cycles=1)

    def test_a_changed_operator_is_found(self):
        design = next(neurons())
        text = to_verilog(design, "gate")
        changed = text.replace(" ^ ", " | ", 1)
        assert changed != text
        assert not equivalent(plain_rtlil(create_neuron(design), "gold"), changed)


class TestArchitecturesAreEqual:
    """Every member of a family proven equal to one of them, whatever the inputs."""

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(("width", "count"), [(1, 4), (3, 5), (5, 9)])
    @pytest.mark.parametrize("maximum", [name for name in BINARY_MAXIMA if name != "tree"])
    def test_maxima(self, maximum, width, count, masked):
        gold, gate = (block_to_verilog(MAXIMA[kind](width=width, count=count, masked=masked), name)
                      for kind, name in (("tree", "gold"), (maximum, "gate")))
        assert equivalent(gold, gate)

    @pytest.mark.parametrize("carry_in", [False, True])
    @pytest.mark.parametrize("width", [1, 2, 8, 16])
    @pytest.mark.parametrize("adder", [name for name in ADDERS if name != "operator"])
    def test_adders(self, adder, width, carry_in):
        gold, gate = (block_to_verilog(ADDERS[kind](width=width, carry_in=carry_in), name)
                      for kind, name in (("operator", "gold"), (adder, "gate")))
        assert equivalent(gold, gate)

    @pytest.mark.parametrize("maximum_bits", [4, 6])
    @pytest.mark.parametrize("end", [name for name in LOG_ENDS if name != "subtract"])
    def test_logarithmic_ends(self, end, maximum_bits):
        # clamped sums take every value that their bits can have
        fmt = BmFormat(inputs=2, bits=6, layout="signed", boundary="layer", combine="logarithmic", sums="clamped",
                       maximum_bits=maximum_bits)
        gold, gate = (block_to_verilog(LOG_ENDS[kind](format=fmt, adder="ripple"), name)
                      for kind, name in (("subtract", "gold"), (end, "gate")))
        assert equivalent(gold, gate)

    @pytest.mark.parametrize("multiplier", [name for name in MULTIPLIERS if name != "array"])
    def test_multipliers(self, multiplier):
        gold, gate = (block_to_verilog(Multiplier(a_bits=4, b_bits=4, b_signed=True, architecture=kind), name)
                      for kind, name in (("array", "gold"), (multiplier, "gate")))
        assert equivalent(gold, gate)

    def test_a_wrong_architecture_is_caught(self):
        """An elimination that forgets a candidate: the proof must fail."""
        gold = block_to_verilog(MAXIMA["tree"](width=3, count=3), "gold")
        gate = block_to_verilog(MAXIMA["elimination"](width=3, count=3), "gate")
        planted = re.sub(r"a\[8\]", "1'h0", gate)
        assert planted != gate
        assert not equivalent(gold, planted)


class TestText:
    def test_equal_blocks_are_one_module(self):
        text = to_verilog(Design(format=BmFormat(inputs=9, bits=4), maximum="tree"))
        assert len(re.findall(r"^module bm_relu_4bit_9in_compare_select \(", text, re.M)) == 1
        assert len(re.findall(r"^  bm_relu_4bit_9in_compare_select ", text, re.M)) == 8

    @pytest.mark.parametrize("design", [
        Design(format=BmFormat(inputs=4, bits=8)), Design(format=MacFormat(inputs=4, bits=8), form="pipelined"),
        Design(format=BmFormat(inputs=4, bits=5, layout="signed"), form="serial")], ids=lambda design: design.name)
    def test_no_tool_names_remain(self, design):
        text = to_verilog(design)
        assert "$" not in text and "\\" not in text
        assert re.search(rf"^module {design.name} \(", text, re.M)
        for part in design.parts:
            assert re.search(rf"^module {design.name}_{part} \(", text, re.M), part

    def test_same_bytes_in_another_process(self):
        program = ("from bmhw.hdl.verilog.convert import to_verilog; from bmhw.hdl.neurons.design import Design;"
                   "from bmhw.hdl.formats.bm import BmFormat;"
                   "print(to_verilog(Design(format=BmFormat(inputs=5, bits=5, layout='bipolar'))), end='')")
        texts = {subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, text=True, check=True,
                                capture_output=True).stdout for seed in ("1", "2")}
        assert texts == {to_verilog(Design(format=BmFormat(inputs=5, bits=5, layout="bipolar")))}


class TestConverter:
    """The variable AMARANTH_USE_YOSYS: what it may be, and what is said where that isn't there."""

    SMALL = Design(format=MacFormat(inputs=1, bits=2))

    @pytest.fixture
    def yosys(self, monkeypatch, tmp_path):
        """A function that puts a ``yosys`` on the PATH, where there is none else, and has it used."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("AMARANTH_USE_YOSYS", "system")

        def write(script: str) -> None:
            (tmp_path / "yosys").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "yosys").chmod(0o755)

        return write

    @pytest.mark.parametrize("value", ["bogus", "builtin,bogus", "system;builtin", "BUILTIN"])
    def test_another_word_is_named_with_the_valid_ones(self, monkeypatch, value):
        monkeypatch.setenv("AMARANTH_USE_YOSYS", value)
        with pytest.raises(UsageError, match=f"one or more of builtin, system, javascript, .* not '{value}'$"):
            to_verilog(self.SMALL)

    def test_none_on_the_path_is_said(self, yosys):
        with pytest.raises(RunError, match=r"^AMARANTH_USE_YOSYS=system: no yosys on the PATH of version"):
            to_verilog(self.SMALL)

    @pytest.mark.parametrize("script", ["exit 3", "echo Yosys 0.9", "echo nothing", "echo broken >&2; exit 1"])
    def test_one_that_is_broken_or_old_is_said(self, yosys, script):
        yosys(script)
        with pytest.raises(RunError, match="no yosys on the PATH of version") as error:
            to_verilog(self.SMALL)
        assert "\n" not in str(error.value)

    def test_one_that_fails_later_is_said_in_its_own_words(self, yosys):
        yosys('[ "$1" = -V ] && echo Yosys 0.50 && exit 0; echo much >&2; echo "ERROR: no memory" >&2; exit 1')
        with pytest.raises(RunError, match=r"the Yosys that writes Verilog failed \(ERROR: no memory\)"):
            to_verilog(self.SMALL)

    def test_the_next_word_is_taken_if_the_first_is_not_there(self, yosys, monkeypatch):
        monkeypatch.setenv("AMARANTH_USE_YOSYS", "system,builtin")
        assert converter() is _BuiltinYosys

    @pytest.mark.parametrize("value", [None, ""])
    def test_nothing_said_is_the_package(self, monkeypatch, value):
        monkeypatch.setenv("AMARANTH_USE_YOSYS", "javascript")  # so that it is put back
        if value is None:
            monkeypatch.delenv("AMARANTH_USE_YOSYS")
        else:
            monkeypatch.setenv("AMARANTH_USE_YOSYS", value)
        assert converter() is _BuiltinYosys

    def test_what_another_one_wrote_is_not_taken_from_the_cache(self, yosys, monkeypatch, tmp_path):
        cache = Cache(tmp_path / "cache")
        monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")
        generate(self.SMALL, cache)
        monkeypatch.setenv("AMARANTH_USE_YOSYS", "system")
        with pytest.raises(RunError, match="no yosys on the PATH"):
            generate(self.SMALL, cache)
