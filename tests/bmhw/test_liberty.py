# SPDX-License-Identifier: Apache-2.0
"""Cell libraries: the gate equivalent, areas and delays, broken files."""

import gzip

import pytest
from liberty_text import GATE_EQUIVALENT, liberty_text

from bmhw.errors import RunError
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.liberty import load_library
from bmhw.flow.synthesis import synthesize

NAND = "module top(input a, input b, output y);\nassign y = ~(a & b);\nendmodule\n"


def load(path):
    return load_library(str(path), Engine(), Cache(None))


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


def test_the_cache_gives_the_same_library(tmp_path):
    (tmp_path / "small.lib").write_text(liberty_text())
    cache = Cache(tmp_path / "cache")
    first = load_library(str(tmp_path / "small.lib"), Engine(), cache)

    class NoEngine(Engine):
        def run(self, *_):
            raise AssertionError("it is in the cache")

    second = load_library(str(tmp_path / "small.lib"), NoEngine(), cache)
    assert first.areas == second.areas and first.nand2 == second.nand2


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
    (liberty_text()[: len(liberty_text()) // 2].encode(), "small.lib"),
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
