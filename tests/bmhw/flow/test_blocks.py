# SPDX-License-Identifier: Apache-2.0
"""Mapping a neuron block by block: as one netlist would be, each block once."""

import pytest

from bmhw.errors import TimeLimitError
from bmhw.flow.blocks import BLOCK_LIMIT, FLAT, BlockMapper, Modules
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import map_design
from bmhw.hdl.arithmetic.multipliers import Multiplier
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.measure.generation import generate

DESIGNS = [
    Design(format=MacFormat(inputs=16, bits=6, boundary="layer")),
    Design(format=MacFormat(inputs=16, bits=6, boundary="layer", result="linear", signed_inputs=True),
           multiplier="booth"),
    Design(format=BmFormat(inputs=24, bits=6, boundary="layer", combine="logarithmic"), maximum="digits4"),
    Design(format=BmFormat(inputs=24, bits=6, boundary="layer", layout="signed"), maximum="elimination4",
           adder="carry_skip"),
    Design(format=BmFormat(inputs=64, bits=8, boundary="layer", layout="signed", sums="clamped", maximum_bits=5,
                           combine="logarithmic"), maximum="digits3", adder="ripple", end="select"),
]


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: f"{design.name}_{design.format.result}")
def test_blocks_agree_with_one_netlist(design):
    objective, tolerance = "area", 0.05  # the only script that blocks are mapped by, and what users are told
    engine, cache = Engine(), Cache(None)
    source = generate(design, cache)
    whole = map_design(source.verilog, source.name, by_parts=False, objective=objective, engine=engine, cache=cache,
                       library=None)
    mapper = BlockMapper(engine, cache)
    flat = mapper.figures(source.verilog, source.name, objective=objective, limit=FLAT)
    assert (flat.gates, flat.depth) == (whole.gates, whole.depth)
    # the whole neuron is below the limit in size: a smaller one opens it
    limit = Modules(source.verilog).sizes[source.name] / 2
    assert len(Modules(source.verilog).blocks(source.name, limit)) >= 3
    blocks = mapper.figures(source.verilog, source.name, objective=objective, limit=limit)
    assert blocks.gates == pytest.approx(whole.gates, rel=tolerance)
    assert blocks.depth == pytest.approx(whole.depth, rel=tolerance)
    assert sum(step.gates for step in blocks.path) == blocks.depth
    assert {step.part for step in blocks.path} <= {*design.parts, ""}  # "": what was not taken out


def test_the_path_crosses_blocks_and_copies_are_counted():
    verilog = "\n".join((
        "module chain_link (\n  input wire a,\n  input wire b,\n  output wire y\n);",
        "  assign y = a ^ b;\nendmodule",
        "module chain (\n  input wire a,\n  input wire [2:0] b,\n  output wire y\n);\n  wire [2:0] t;",
        "  chain_link one (\n    .a(a),\n    .b(b[0]),\n    .y(t[0])\n  );",
        "  chain_link two (\n    .a(t[0]),\n    .b(b[1]),\n    .y(t[1])\n  );",
        "  chain_link three (\n    .a(t[1]),\n    .b(b[2]),\n    .y(t[2])\n  );",
        "  assign y = t[2];\nendmodule\n"))
    assert Modules(verilog).blocks("chain", 2) == ["chain_link", "chain"]
    found = BlockMapper(Engine(), Cache(None)).figures(verilog, "chain", objective="area", limit=2)
    assert (found.gates, found.depth) == (3, 3)
    assert [step.part for step in found.path] == ["one", "two", "three"]


def test_the_largest_modules_are_taken_out_until_the_rest_is_small_enough():
    verilog = "".join(f"module {name} (\n  input wire a,\n  output wire [{bits - 1}:0] y\n);\n{inside}endmodule\n"
                      for name, bits, inside in (
                          ("leaf", 9, ""), ("small", 10, ""), ("large", 40, "  leaf x (\n  );\n"),
                          ("top", 1, "  small one (\n  );\n  large two (\n  );\n  small three (\n  );\n")))
    modules = Modules(verilog)
    assert modules.sizes == {"leaf": 9, "small": 10, "large": 49, "top": 70}
    assert modules.blocks("top", 70) == ["top"]
    assert modules.blocks("top", 69) == modules.blocks("top", 49) == ["large", "top"]
    assert modules.blocks("top", 40) == ["leaf", "large", "top"]
    assert modules.blocks("top", 20) == ["leaf", "large", "small", "top"]
    assert "blackbox" not in modules.source("large", 49) and "blackbox" in modules.source("large", 40)


def test_an_instance_whose_name_is_a_word_of_verilog_is_one():
    """That of the table which ends that anticipate a sum read."""
    fmt = BmFormat(inputs=4, bits=4, layout="signed", groups=2, boundary="layer")
    design = Design(format=fmt, end="anticipate")
    modules = Modules(block_to_verilog(create_neuron(design), "neuron", sliced=True))
    assert "\\table " in modules.verilog
    reached = modules.source("neuron", FLAT)
    assert set(modules.text) == {name for name in modules.text if f"module {name} (" in reached}


def test_blocks_are_shared_between_fan_ins():
    """A larger neuron maps only what the smaller one had not."""

    class CountingEngine(Engine):
        runs = 0

        def run(self, *arguments):
            self.runs += 1
            return super().run(*arguments)

    engine, cache = CountingEngine(), Cache(None)
    mapper = BlockMapper(engine, cache)
    runs = []
    for inputs in (8, 16):
        fmt = BmFormat(inputs=inputs, bits=4, boundary="layer", combine="logarithmic")
        source = generate(Design(format=fmt, maximum="tree"), cache)
        mapper.figures(source.verilog, source.name, objective="area", limit=50)
        blocks = Modules(source.verilog).blocks(source.name, 50)
        runs.append((engine.runs, len(blocks)))
        engine.runs = 0
    assert runs[0][0] == runs[0][1]
    # adder and compare-select are there already
    assert 0 < runs[1][0] <= runs[1][1] - 2


@pytest.mark.parametrize("architecture", ["array", "dadda"])
def test_the_multiplier_is_as_small_as_the_textbooks(architecture):
    """64 AND, 48 full adders of 5 gates and 8 half adders of 2: the MAC neuron is made of no straw."""
    verilog = block_to_verilog(Multiplier(a_bits=8, b_bits=8, architecture=architecture, adder="ripple"), "multiplier")
    found = BlockMapper(Engine(), Cache(None)).figures(verilog, "multiplier", objective="area", limit=FLAT)
    assert found.gates == 64 + 48 * 5 + 8 * 2


def test_a_deadline_ends_a_mapping():
    source = generate(DESIGNS[0], Cache(None))
    with pytest.raises(TimeLimitError):
        BlockMapper(Engine(), Cache(None)).figures(source.verilog, source.name, objective="area", deadline=0.0)


def test_the_block_limit_keeps_small_neurons_whole():
    """At the default limit a small neuron is one block: no boundary costs anything."""
    source = generate(Design(format=BmFormat(inputs=4, bits=4, boundary="layer")), Cache(None))
    assert Modules(source.verilog).blocks(source.name, BLOCK_LIMIT) == [source.name]
