# SPDX-License-Identifier: Apache-2.0
"""Cell libraries: the gate equivalent, areas and delays, several files, the cache, broken files."""

import dataclasses
import gzip
import hashlib
import re

import pytest
from support.liberty_text import GATE_EQUIVALENT, liberty_text

from bmhw.errors import RunError
from bmhw.flow import liberty as liberty_module
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.liberty import load_library
from bmhw.flow.liberty_cells import read_cells
from bmhw.flow.liberty_syntax import parse
from bmhw.flow.liberty_writer import write_liberty
from bmhw.flow.synthesis import synthesize

NAND = "module top(input a, input b, output y);\nassign y = ~(a & b);\nendmodule\n"


def load(*paths):
    return load_library([str(path) for path in paths], Cache(None))


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "small.lib"
    path.write_text(liberty_text())
    return load(path)


def figures(verilog, library, objective="area"):
    return synthesize([(verilog, "top")], objective, Engine(), Cache(None), library)[0]


def test_the_gate_equivalent_is_the_smallest_two_input_nand_whatever_its_name(library):
    assert library.nand2 == "q7" and library.nand2_area == GATE_EQUIVALENT
    assert library.flip_flops == ["keeper"]


def test_gzipped_is_the_same_library_whatever_its_name(library, tmp_path):
    (tmp_path / "zipped").write_bytes(gzip.compress(liberty_text().encode()))
    zipped = load(tmp_path / "zipped")
    assert (zipped.digest, zipped.nand2, zipped.areas) == (library.digest, library.nand2, library.areas)


def test_the_cache_gives_the_same_library_and_reads_no_text(tmp_path, monkeypatch):
    (tmp_path / "small.lib").write_text(liberty_text())
    paths, cache = [str(tmp_path / "small.lib")], Cache(tmp_path / "cache")
    first = load_library(paths, cache)
    wanted = first.text, first.areas, first.nand2, first.describe()
    assert first.timing(["q7"])["q7"].capacitance == {"A": (0.002, 0.002), "B": (0.002, 0.002)}

    def no_reading(text):
        raise AssertionError("it is in the cache")

    monkeypatch.setattr(liberty_module, "read_cells", no_reading)
    second = load_library(paths, cache)
    assert (second.text, second.areas, second.nand2, second.describe()) == wanted
    assert second.digest == hashlib.sha256(second.text.encode()).hexdigest()
    before, after = (library.timing(["buffer"])["buffer"].arcs["Y"] for library in (first, second))
    assert [(arc.source, arc.sense, arc.cell_fall.values.tolist()) for arc in before] == [
        (arc.source, arc.sense, arc.cell_fall.values.tolist()) for arc in after]


def test_a_foreign_entry_in_the_cache_is_overwritten(tmp_path):
    (tmp_path / "small.lib").write_text(liberty_text())

    class Foreign(Cache):
        def get(self, key):
            return {"cells": {"q7": {"name": "q7"}}, "wire_loads": ""}

    found = load_library([str(tmp_path / "small.lib")], Foreign(None))
    assert found.nand2 == "q7" and found.text == load(tmp_path / "small.lib").text


def test_what_yosys_and_abc_get_has_the_same_cells(library):
    """Written and read again: the same cells, but for those that nothing may be mapped to."""
    for text in (liberty_text(), liberty_text(complete=True)):
        cells, _ = read_cells(text)
        again, _ = read_cells(write_liberty(cells.values(), True))
        assert list(again) == list(cells)
        for name, cell in cells.items():
            assert dataclasses.replace(again[name], line=cell.line) == cell
    assert list(read_cells(library.text)[0]) == list(library.areas)


def test_wire_loads_reach_abc_in_its_units(tmp_path):
    head = ('default_wire_load : "Small"; wire_load (Small) { capacitance : 2; resistance : 0.5; slope : 8;\n'
            'fanout_length (1, 20); fanout_length (2, 30); }\n')
    text = liberty_text().replace("(1, pf);", f"(1, ff);\n{head}").replace("0.002;", "2;")
    (tmp_path / "wires.lib").write_text(text)
    (group,) = parse(load(tmp_path / "wires.lib").text).groups
    (wires,) = group.of("wire_load")
    assert group.first("default_wire_load") == "Small" and wires.arguments == ["Small"]
    assert wires.attributes["capacitance"] == ["0.002"] and wires.attributes["resistance"] == ["0.5"]
    assert wires.lists == [("fanout_length", ["1.0", "20.0"]), ("fanout_length", ["2.0", "30.0"])]


def split(text):
    """A library's cells in two texts with the same head."""
    place = text.index("  cell (q7)")
    return text[:place] + "}\n", text[:text.index("  cell (")] + text[place:]


def test_two_files_are_one_library_whatever_their_units(tmp_path):
    first, second = split(liberty_text())
    in_ps = second.replace('"1ns"', '"10ps"').replace("(1, pf)", "(1, ff)")
    # every number of 0.01 ns or 1 fF, but of index_2 and capacitances 1 pF is 1000 fF
    in_ps = re.sub(r'index_2 \("([^"]*)"\)', lambda m: "index_2 (\"" + ", ".join(
        str(float(v) * 1000) for v in m[1].split(",")) + '")', in_ps)
    in_ps = re.sub(r'(?<!index_2 \()"([\d.]+(?:, [\d.]+)+)"', lambda m: '"' + ", ".join(
        f"{float(v) * 100:.4f}" for v in m[1].split(",")) + '"', in_ps)
    in_ps = in_ps.replace("capacitance : 0.002", "capacitance : 2")
    for name, text in (("first", first), ("second", second), ("in_ps", in_ps), ("whole", liberty_text())):
        (tmp_path / f"{name}.lib").write_text(text)
    whole = load(tmp_path / "whole.lib")
    assert load(tmp_path / "first.lib", tmp_path / "second.lib").digest == whole.digest
    converted = load(tmp_path / "first.lib", tmp_path / "in_ps.lib")
    assert (converted.areas, converted.nand2, converted.flip_flops) == (whole.areas, whole.nand2, whole.flip_flops)
    for kind, cell in whole.timing(whole.areas).items():
        other = converted.timing([kind])[kind]
        assert other.capacitance == {pin: pytest.approx(value) for pin, value in cell.capacitance.items()}
        for output, arcs in cell.arcs.items():
            for arc, same in zip(arcs, other.arcs[output], strict=True):
                for table in ("cell_rise", "fall_transition"):
                    for numbers in ("transition", "load", "values"):
                        assert getattr(getattr(same, table), numbers) == pytest.approx(
                            getattr(getattr(arc, table), numbers))
    described = converted.describe(whole_paths=False)
    assert described["file"] == ["first.lib", "in_ps.lib"]
    assert described["sha256"] == [hashlib.sha256(text.encode()).hexdigest() for text in (first, in_ps)]
    assert whole.describe()["file"] == str(tmp_path / "whole.lib") and isinstance(whole.describe()["sha256"], str)


def test_a_cell_in_two_files_is_one_line(tmp_path):
    first, second = split(liberty_text())
    (tmp_path / "a.lib").write_text(first)
    (tmp_path / "b.lib").write_text(second.replace("cell (nor_two)", "cell (buffer)"))
    with pytest.raises(RunError, match=r"^cell buffer is in both Liberty file \S*a\.lib and Liberty file \S*b\.lib$"):
        load(tmp_path / "a.lib", tmp_path / "b.lib")
    with pytest.raises(RunError, match="cell inverter is in both"):
        load(tmp_path / "a.lib", tmp_path / "a.lib")
    (tmp_path / "b.lib").write_text(second.replace("area : 2.5;", "area : x;"))
    with pytest.raises(RunError, match=r"^Liberty file \S*b\.lib: line 13: cell q7: 'x' is no number$"):
        load(tmp_path / "a.lib", tmp_path / "b.lib")


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n").encode(), lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: text.replace("library (small)", "/* \xe9 */ library (small)").encode("latin-1"),
], ids=["CRLF", "a byte order mark", "CR", "Latin-1"])
def test_encodings_and_ends_of_lines_make_no_difference(library, tmp_path, change):
    (tmp_path / "other.lib").write_bytes(change(liberty_text().replace(";\n", "; // a comment\n")))
    assert load(tmp_path / "other.lib").digest == library.digest


@pytest.mark.parametrize("objective", ["area", "delay"])
def test_one_nand_is_one_gate_equivalent_with_its_own_delay(library, objective):
    found = figures(NAND, library, objective)
    assert found.flat.gates == 1 and found.flat.depth == 1
    assert found.flat_cells.area == GATE_EQUIVALENT
    # 0.15 ns without a slope or a load; an ideal input and no load may take a little off by extrapolation
    assert found.flat_cells.delay_ns == pytest.approx(0.15, abs=0.01)


def test_flip_flops_have_area_but_count_apart(library):
    verilog = ("module top(input clk, input a, input b, output reg y);\n"
               "always @(posedge clk) y <= ~(a & b);\nendmodule\n")
    found = figures(verilog, library)
    assert (found.flat.gates, found.flat.flip_flops) == (1, 1)
    assert (found.flat_cells.gates, found.flat_cells.flip_flops) == (1, 1)
    assert found.flat_cells.area == GATE_EQUIVALENT + 6.0


def test_areas_of_parts_add_up(library):
    verilog = """module top(input [3:0] a, input [3:0] b, output [5:0] y);
  wire [4:0] s;
  top_add one (.a(a), .b(b), .y(s));
  top_inc two (.a(s), .y(y));
endmodule
module top_add(input [3:0] a, input [3:0] b, output [4:0] y);
  assign y = a + b;
endmodule
module top_inc(input [4:0] a, output [5:0] y);
  assign y = a + 1;
endmodule
"""
    found = figures(verilog, library)
    parts = found.parts_cells.parts
    assert list(parts) == ["one", "two"]
    assert sum(part.area for part in parts.values()) == pytest.approx(found.parts_cells.area)
    for part in parts.values():
        assert part.area > 0 and part.delay_ns > 0


@pytest.mark.parametrize("content, words", [
    (b"", "small.lib"),
    (b"hello", "small.lib"),
    (liberty_text()[: len(liberty_text()) // 2].encode(), r"small.lib: line \d+: the [{(] of .* is not closed"),
    (b"library (x) { }", "no two-input NAND"),
    (liberty_text(without=("q7", "bigger_nand")).encode(), "no two-input NAND"),
    (gzip.compress(liberty_text().encode())[:300], "broken gzip|small.lib"),
    (b"\x1f\x8bnonsense", "small.lib"),
])
def test_a_broken_library_is_one_line(tmp_path, content, words):
    (tmp_path / "small.lib").write_bytes(content)
    with pytest.raises(RunError, match=words) as caught:
        load(tmp_path / "small.lib")
    assert "\n" not in str(caught.value) and "small.lib" in str(caught.value)


def test_a_missing_library_or_a_folder_is_named(tmp_path):
    with pytest.raises(RunError, match=r"missing\.lib: No such file"):
        load(tmp_path / "missing.lib")
    with pytest.raises(RunError, match="directory"):
        load(tmp_path)
