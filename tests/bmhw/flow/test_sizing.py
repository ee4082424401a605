# SPDX-License-Identifier: Apache-2.0
"""Blocks mapped apart to a library's cells, then sized as one: as large and fast as one netlist, the same function."""

import json

import pytest
from support.liberty_text import liberty_text

from bmhw.errors import RunError, TimeLimitError
from bmhw.flow.blocks import FLAT, BlockMapper, Modules
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.liberty import load_library
from bmhw.flow.scripts import ABC_MAPPING, abc_files, yosys_script
from bmhw.flow.sizing import size_netlist
from bmhw.flow.synthesis import map_design, measure_netlist
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.measure.generation import generate

# Two copies of a block, one with a constant input; a block with a register; an output that nothing takes; registers
# behind gates; outputs that are an input, constants, or twice the same.
VERILOG = """\
module adder(input [3:0] a, input [3:0] b, output [4:0] y);
  assign y = a + b;
endmodule
module keep(input clock, input d, output reg q);
  always @(posedge clock) q <= ~d;
endmodule
module top(input clock, input [3:0] a, input [3:0] b, input [3:0] c,
           output reg [3:0] late, output [3:0] through, output [1:0] fixed, output [1:0] twice, output carry,
           output kept);
  wire [4:0] sum, more;
  adder first(.a(a), .b(b), .y(sum));
  adder second(.a(sum[3:0]), .b(4'd5), .y(more));
  always @(posedge clock) late <= more[3:0] ^ c;
  assign through = a;
  assign fixed = 2'b10;
  assign twice = {sum[1], sum[1]};
  assign carry = sum[4];
  keep register(.clock(clock), .d(sum[2]), .q(kept));
endmodule
"""

PROOF = """\
read_verilog design.v
hierarchy -check -top top
proc
flatten
splitnets -ports
rename top wanted
design -stash wanted
read_liberty cells.lib
read_json sized.json
hierarchy -check -top top
flatten
rename top found
design -stash found
design -copy-from wanted wanted
design -copy-from found found
miter -equiv -flatten wanted found miter
hierarchy -top miter
sat -verify -prove trigger 0 -seq 3 -prove-skip 1
"""

# At half their size they are opened: a dot product's compression, sums of codes and maxima among them.
DESIGNS = [
    Design(format=MacFormat(inputs=16, bits=6, boundary="layer", result="linear", signed_inputs=True),
           multiplier="booth"),
    Design(format=BmFormat(inputs=64, bits=8, boundary="layer", layout="signed", sums="clamped", maximum_bits=5,
                           combine="logarithmic"), maximum="digits3", adder="ripple", end="select"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("library") / "complete.lib"
    path.write_text(liberty_text(complete=True))
    return load_library([str(path)], Cache(None))


@pytest.fixture(scope="module")
def blocks(library):
    """The mapped modules of ``VERILOG``, as text: each test may change its own."""
    files = Engine().run(yosys_script("top", ["adder", "keep"], liberty=True),
                         {"design.v": VERILOG, **abc_files(ABC_MAPPING["area"]),
                          "cells.lib": library.text}, ("netlist.json",))
    return files["netlist.json"]


def prove(sized, library):
    """``RunError`` unless the netlist does what ``VERILOG`` does, for all inputs and from any state."""
    Engine().run(PROOF, {"design.v": VERILOG, "sized.json": json.dumps(sized), "cells.lib": library.text}, ())


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_blocks_are_as_large_and_fast_as_one_netlist(design, library):
    tolerance = 0.05  # what users are told; sized block by block, both are more than 20 % too large
    engine, cache = Engine(), Cache(None)
    source = generate(design, cache)
    whole = map_design(source.verilog, source.name, by_parts=False, objective="area", engine=engine, cache=cache,
                       library=library)
    mapper = BlockMapper(engine, cache)
    flat = mapper.figures(source.verilog, source.name, objective="area", library=library, limit=FLAT)
    assert (flat.area, flat.delay_ns, flat.cells) == (whole.area, whole.delay_ns, whole.cells)
    limit = Modules(source.verilog).sizes[source.name] / 2
    assert len(Modules(source.verilog).blocks(source.name, limit)) >= 3
    found = mapper.figures(source.verilog, source.name, objective="area", library=library, limit=limit)
    assert found.area == pytest.approx(whole.area, rel=tolerance)
    assert found.delay_ns == pytest.approx(whole.delay_ns, rel=tolerance)
    assert sum(step.gates for step in found.path) == found.depth


def test_sizing_keeps_the_function(blocks, library):
    document = json.loads(blocks)
    sized = size_netlist(document, "top", Engine(), library)
    assert list(sized["modules"]) == ["top"]
    found = measure_netlist(sized, "top", {}, library)
    assert found.flip_flops == 5
    assert found.delay_ns < measure_netlist(document, "top", {}, library).delay_ns
    prove(sized, library)


@pytest.mark.parametrize("instance, port", [("first", "y"), ("second", "b")])
def test_a_wrong_join_is_found(blocks, library, instance, port):
    document = json.loads(blocks)
    bits = document["modules"]["top"]["cells"][instance]["connections"][port]
    bits[:2] = bits[1::-1]
    with pytest.raises(RunError, match="proof did fail"):
        prove(size_netlist(document, "top", Engine(), library), library)


def test_the_deadline_counts_for_sizing_too(library):
    design = Design(format=MacFormat(inputs=4, bits=3, boundary="layer"))
    source = generate(design, Cache(None))
    mapper = BlockMapper(Engine(), Cache(None))
    limit = Modules(source.verilog).sizes[source.name] / 2
    options = {"objective": "area", "library": library, "limit": limit}
    mapper.figures(source.verilog, source.name, **options)
    # the mapper has all blocks by now
    with pytest.raises(TimeLimitError):
        mapper.figures(source.verilog, source.name, **options, deadline=0.0)
