# SPDX-License-Identifier: Apache-2.0
"""Libraries without a buffer, delays, usable cells: what can be said is said, else one line names file and cell."""

import json
from types import SimpleNamespace

import pytest
from support.calls import figures_of
from support.liberty_text import cell_text, flip_flop_text, liberty_text, library_text

from bmhw import layers, synth
from bmhw.errors import RunError
from bmhw.flow import blocks
from bmhw.flow.blocks import BlockMapper, Modules
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.liberty import load_library
from bmhw.flow.liberty_timing import TABLES
from bmhw.flow.liberty_writer import BUFFER
from bmhw.flow.scripts import ABC_MAPPING, abc_files
from bmhw.flow.sizing import size_netlist
from bmhw.flow.synthesis import map_design, mapping_script, measure_netlist, run_mapping
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.measure import layers as layer_measurement
from bmhw.measure.generation import generate

# An adder; an output that is an input, which abc drives by a buffer; a constant one.
ADDER = """\
module top(input clk, input [2:0] a, input [2:0] b, output [3:0] y, output through, output one);
  assign y = a + b;
  assign through = a[0];
  assign one = 1'b1;
endmodule
"""
REGISTERED = ADDER.replace("output [3:0]", "output reg [3:0]").replace(
    "assign y =", "always @(posedge clk) y <=")

INV, BUF = cell_text("INV", "A", "!A", 1.0), cell_text("BUF", "A", "A", 1.5)
NAND, NOR, DFF = cell_text("NAND", "AB", "!(A B)"), cell_text("NOR", "AB", "!(A+B)"), flip_flop_text()
NO_NAND = cell_text("NAND", "AB", "!(A B)", extra="dont_use : true;")
ONE_AXIS = """lu_table_template (loads) { variable_1 : total_output_net_capacitance; index_1 ("0.001, 0.01, 0.1"); }
lu_table_template (slopes) { variable_1 : input_net_transition; }
lu_table_template (none) { }
"""
ONE_AXIS_TABLES = ('cell_rise (loads) { values ("0.1, 0.2, 0.4"); } cell_fall (loads) { index_1 ("1, 2"); '
                   'values ("0.1, 0.2"); } rise_transition (slopes) { index_1 ("0.1, 0.2"); values ("0.1, 0.3"); } '
                   'fall_transition (none) { values ("0.1"); } ')
# What each table says of loads of 1, 10 and 100 fF; the last passes through 0 ns without a load.
TWO_POINTS, STEEP, THROUGH_0 = ("".join(f"{kind} (loads) {{ {points} }} " for kind in TABLES) for points in (
    'index_1 ("0.001, 0.1"); values ("0.1, 0.2")', 'values ("0.1, 0.5, 5")', 'values ("0.05, 0.5, 5")'))
TIES = ('cell (TIE) { area : 1; pin (H) { direction : output; function : "1"; } '
        'pin (L) { direction : output; function : "0"; } }\n')


def load(tmp_path, *texts):
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"poor{number}.lib")
        paths[-1].write_text(text)
    return load_library([str(path) for path in paths], Cache(None))


def mapped(library, verilog=REGISTERED, objective="area"):
    return map_design(verilog, "top", by_parts=False, objective=objective, engine=Engine(), cache=Cache(None),
                      library=library)


def untimed(text):
    """The library without what says where its tables belong."""
    return text.replace("related_pin", "other_pin")


def timed_by(tables, cells=(("INV", "A", "!A", 1.0), ("BUF", "A", "A", 1.5), ("NAND", "AB", "!(A B)"))):
    """A library whose cells all have these tables."""
    return library_text(*(cell_text(*cell, tables=tables) for cell in cells), DFF, head=ONE_AXIS)


USABLE = {
    "two gates": library_text(INV, BUF, NAND, DFF),
    "no buffer": library_text(INV, NAND, DFF),
    "no buffer, other pins": library_text(cell_text("not-1", "I", "I'").replace("(Y)", "(ZN)"), NAND, DFF),
    "no NAND to map to": library_text(INV, BUF, NO_NAND, NOR, DFF),
    "an and with one input inverted": library_text(INV, BUF, NO_NAND, cell_text("ANDN", "AB", "A B'"), DFF),
    "tables of one axis": timed_by(ONE_AXIS_TABLES),
    "tables of two points": timed_by(TWO_POINTS),
    "no delay without a load": timed_by(THROUGH_0),
    "no capacitances": library_text(INV, BUF, NAND, DFF).replace("capacitance : 0.002;", ""),
    "many inputs": library_text(INV, BUF, NAND, DFF, cell_text("AND20", "ABCDEFGHIJKLMNOPQRST",
                                                              " ".join("ABCDEFGHIJKLMNOPQRST"))),
    "ties": library_text(INV, BUF, NAND, DFF, TIES),
    "a falling clock": library_text(INV, BUF, NAND, flip_flop_text(clock="CK'")),
    "an inverted output": library_text(INV, BUF, NAND, flip_flop_text(output="IQN")),
}


@pytest.mark.parametrize("text", USABLE.values(), ids=USABLE)
@pytest.mark.parametrize("objective", ["area", "delay"])
def test_a_poor_library_is_mapped_to(tmp_path, text, objective):
    library = load(tmp_path, text)
    found = mapped(library, objective=objective)
    assert found.flip_flops == 4 and found.delay_ns > 0
    assert set(found.cells) <= set(library.areas) and BUFFER not in found.cells
    assert found.area == pytest.approx(sum(library.areas[kind] * count for kind, count in found.cells.items()))


FAN_OUT = """\
module top(input [1:0] a, input [5:0] b, output [5:0] y);
  wire n = ~(a[0] & a[1]);
  assign y = ~({6{n}} & b);
endmodule
"""
PROOF = """\
read_verilog design.v
splitnets -ports
rename top wanted
design -stash wanted
read_liberty cells.lib
read_json netlist.json
hierarchy -check -top top
flatten
splitnets -ports
design -copy-from wanted wanted
miter -equiv -flatten wanted top miter
sat -verify -prove trigger 0 miter
"""


def test_a_buffer_is_two_inverters_where_there_is_none(tmp_path):
    library = load(tmp_path, library_text(INV, NAND))
    assert library.buffered and f"cell ({BUFFER})" in library.text
    # abc puts a buffer before each two pins
    abc = "strash\n&get -n\n&nf\n&put\ntopo\nbuffer -N 2\n"
    netlist = run_mapping(mapping_script("top", [], library), {"design.v": FAN_OUT, "abc.script": abc}, Engine(),
                          library)
    kinds = [cell["type"] for cell in json.loads(netlist)["modules"]["top"]["cells"].values()]
    assert sorted(set(kinds)) == ["INV", "NAND"] and kinds.count("INV") >= 4 and kinds.count("INV") % 2 == 0
    library.run(Engine(), PROOF, {"design.v": FAN_OUT, "netlist.json": netlist}, ())
    with pytest.raises(RunError, match="proof did fail"):
        library.run(Engine(), PROOF, {"design.v": FAN_OUT.replace("y = ~", "y = "), "netlist.json": netlist}, ())
    assert not load(tmp_path, library_text(INV, BUF, NAND)).buffered


def test_a_cell_named_as_the_stand_in_is_one_line(tmp_path):
    with pytest.raises(RunError, match=f"a cell named {BUFFER}"):
        load(tmp_path, library_text(INV, NAND, cell_text(BUFFER, "A", "!A")))


UNTIMED = {
    "no related_pin": (untimed(liberty_text()), "cell inverter: no delay tables from A to Y"),
    "no template": (liberty_text().replace("lu_table_template (grid)", "lu_table_template (other)"),
                    "cell inverter: its cell_rise is a table of the template grid, which the file does not have"),
    "an unknown axis": (liberty_text().replace("total_output_net_capacitance", "output_net_length"),
                        "cell inverter: its cell_rise is a table over output_net_length, which is not known here"),
    "no points": (liberty_text().replace("index_2 (", "index_9 ("),
                  "cell inverter: its cell_rise has no index_2, nor has the template grid"),
    "nothing above 0": (library_text(INV, BUF, NAND, DFF).replace('"0.1"', '"0"'),
                        "cell INV: its cell_rise has no value above 0"),
    "no buffer": (untimed(library_text(INV, NAND, NOR, DFF)), "cell INV: no delay tables from A to Y"),
}


@pytest.mark.parametrize("objective", ["area", "delay"])
@pytest.mark.parametrize("text, reason", UNTIMED.values(), ids=UNTIMED)
def test_without_delays_there_are_areas(tmp_path, text, reason, objective):
    library = load(tmp_path, text)
    assert not library.timed and library.scripts is ABC_MAPPING and library.untimed == reason
    assert library.describe()["no_delays"] == reason
    found = mapped(library, objective=objective)
    assert found.area > 0 and found.delay_ns is None and found.depth > 0 and found.flip_flops == 4


def test_blocks_in_a_library_without_delays_are_joined_unsized(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "size_netlist", lambda *_: pytest.fail("there are no delays to size by"))
    library = load(tmp_path, untimed(liberty_text(complete=True)))
    source = generate(Design(format=MacFormat(inputs=4, bits=3, boundary="layer")), Cache(None))
    limit = Modules(source.verilog).sizes[source.name] / 2
    found = BlockMapper(Engine(), Cache(None)).figures(source.verilog, source.name, objective="area", library=library,
                                                       limit=limit)
    assert found.area > 0 and found.delay_ns is None and found.depth > 0


@pytest.mark.parametrize("tables", [STEEP, THROUGH_0], ids=["steep", "through 0"])
def test_cells_are_sized_where_there_is_no_buffer(tmp_path, tables):
    """A signal that goes to very many pins has abc insert stand-ins, which become inverters."""
    library = load(tmp_path, timed_by(tables, (("INV", "A", "!A", 1.0), ("NAND", "AB", "!(A B)"))))
    verilog = FAN_OUT.replace("5:0", "39:0").replace("6{", "40{")
    netlist = json.loads(run_mapping(mapping_script("top", [], library),
                                     {"design.v": verilog, **abc_files(ABC_MAPPING["area"])}, Engine(), library))
    before = measure_netlist(netlist, "top", {}, library)
    sized = size_netlist(netlist, "top", Engine(), library)
    after = measure_netlist(sized, "top", {}, library)
    assert before.cells == {"NAND": 41} and after.cells["INV"] >= 2 and after.cells["INV"] % 2 == 0
    assert set(after.cells) == {"INV", "NAND"} and after.delay_ns < before.delay_ns
    library.run(Engine(), PROOF, {"design.v": verilog, "netlist.json": json.dumps(sized)}, ())


@pytest.mark.parametrize("extra, reason", [
    ("dont_use : true;", "dont_use"), ('dont_use : "true";', "dont_use"), ("dont_touch : true;", "dont_touch"),
    ("latch (IQ, IQN) { }", "latch"), ("statetable (A, B) { }", "statetable"), ("bus (D) { }", "bus"),
    ("ff_bank (IQ, IQN, 4) { }", "ff_bank"), ("pin (P) { direction : inout; }", "pin P: inout"),
    ("pin (P) { }", "pin P: without a direction"), ("pin (P) { direction : output; }", "pin P: no function"),
    ("pin (P) { direction : output; three_state : A; }", "three_state"),
    ("pin (P) { direction : output; function : C; }", "pin P: function of C, which is no input"),
    ("pin (2P) { direction : input; }", "the name of its pin 2P"),
])
def test_what_must_not_be_mapped_to_is_not(tmp_path, extra, reason):
    # by far the smallest cell
    library = load(tmp_path, library_text(INV, BUF, NAND, NOR, DFF, cell_text("TINY", "AB", "A^B", 0.1, extra=extra)))
    assert library.unused == {reason: ["TINY"]} and library.describe()["unused_cells"] == {reason: ["TINY"]}
    assert "TINY" not in library.text and "TINY" not in mapped(library).cells


def test_the_smallest_cell_is_mapped_to_where_it_may_be(tmp_path):
    library = load(tmp_path, library_text(INV, BUF, NAND, NOR, DFF,
                                          cell_text("TINY", "AB", "A^B", 0.1, extra="dont_use : false;")))
    assert library.unused == {} and "TINY" in mapped(library).cells


@pytest.mark.parametrize("cell, reason", [
    (cell_text("TINY", "AB", "A^B", 0.1, related="A"), "no delay tables from B to Y"),
    (cell_text("TINY", "AB", "A^B", 0.1, related=""), "no delay tables from A to Y"),
    (cell_text("TINY", "AB", "A A'", 0.1, related=""), "no delay tables"),
    (cell_text("TINY", "AB", "A^B", 0.1, tables='cell_rise (scalar) { values ("0.1"); } '),
     "no delay tables from A to Y"),
    (cell_text("TINY", "AB", "A^B", 0.1, tables=ONE_AXIS_TABLES),
     "its cell_rise is a table of the template loads, which the file does not have"),
])
def test_a_cell_without_delays_among_others_is_not_mapped_to(tmp_path, cell, reason):
    library = load(tmp_path, library_text(INV, BUF, NAND, NOR, DFF, cell))
    assert library.timed and library.unused == {reason: ["TINY"]}
    found = mapped(library)
    assert "TINY" not in found.cells and found.delay_ns > 0


TOO_POOR = {
    "no inverter": (library_text(BUF, NAND, NOR), r"poor0\.lib: no inverter among the 3 cells"),
    "an inverter that must not be used": (library_text(INV.replace("area", "dont_use : true; area"), BUF, NAND),
                                          r"no inverter among .*; cell INV of \S*poor0\.lib can't: dont_use"),
    "an inverter without delays": (library_text(cell_text("INV", "A", "!A", related=""), BUF, NAND),
                                   r"cell INV of \S*poor0\.lib can't: no delay tables from A to Y"),
    "an inverter without an area": (library_text(INV.replace("area : 1.0;", ""), BUF, NAND),
                                    r"cell INV of \S*poor0\.lib can't: no area"),
    "no gate": (library_text(INV, BUF, NO_NAND), r"no gate of two inputs .*; cell NAND of \S* can't: dont_use"),
    "no NAND": (library_text(INV, BUF, NOR), r"poor0\.lib has no two-input NAND with an area"),
}


@pytest.mark.parametrize("text, words", TOO_POOR.values(), ids=TOO_POOR)
def test_too_few_cells_are_one_line_with_file_and_cell(tmp_path, text, words):
    with pytest.raises(RunError, match=words) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cells", [(), (DFF.replace("area : 6;", ""),), (DFF.replace('"D"', '"D CK"'),)],
                         ids=["none", "no area", "an odd one"])
def test_registers_need_a_flip_flop(tmp_path, cells):
    library = load(tmp_path, library_text(INV, BUF, NAND, *cells))
    assert mapped(library, ADDER).flip_flops == 0
    with pytest.raises(RunError, match=r"poor0\.lib: the design has registers, and none of the . cells .* flip-flop"):
        mapped(library)


def test_what_a_tool_says_names_the_library(tmp_path):
    library = load(tmp_path, library_text(INV, BUF, NAND))
    with pytest.raises(RunError, match=r"^Liberty file \S*poor0\.lib: \w+: .*nonsense"):
        library.run(Engine(), "nonsense\n", {}, ())
    assert library.name.endswith("poor0.lib")


@pytest.mark.parametrize("timed", [False, True], ids=["areas", "areas and delays"])
@pytest.mark.parametrize("module, arguments", [
    (synth, ("--bits", "2", "--inputs", "2", "--compare")), (layers, ("--bits", "2", "--layers", "stem")),
], ids=["synth", "layers"])
def test_commands_show_what_is_known(tmp_path, capsys, monkeypatch, module, arguments, timed):
    monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path / "cache"))
    text = liberty_text().replace("cell (q7) {", "cell (never) { dont_use : true; }\n  cell (q7) {")
    (tmp_path / "some.lib").write_text(text if timed else untimed(text))

    def layer_figures(self, verilog, top, *, library=None, **options):
        """What stands for a layer's figures: what is shown of them is asked here."""
        return SimpleNamespace(gates=9, depth=4, yosys="none", area=10.0 if library else None,
                               delay_ns=1.5 if library and library.timed else None)

    monkeypatch.setattr(BlockMapper, "figures", layer_figures)
    monkeypatch.setattr(layer_measurement, "generate", lambda design, cache: SimpleNamespace(name="top", verilog=""))
    arguments = (*arguments, "--liberty", str(tmp_path / "some.lib"))
    found = figures_of(module)(capsys, *arguments)
    ratio = found["ratio"] if module is synth else found["total"]["ratio"]
    assert ratio["area_gate_equivalents"] > 0 and ("delay_ns" in ratio) is timed
    assert module.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "GE" in shown and (" ns" in shown.splitlines()[1]) is timed
    assert "dont_use: never" in shown.replace("\n", " ")


def test_several_files_at_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path / "cache"))
    whole, first, second = (tmp_path / f"{name}.lib" for name in ("whole", "first", "second"))
    whole.write_text(library_text(INV, BUF, NAND, NOR))
    first.write_text(library_text(INV, BUF))
    second.write_text(library_text(NAND, NOR))
    small = ("--bits", "2", "--inputs", "2")
    wanted = figures_of(synth)(capsys, *small, "--liberty", str(whole))
    found = figures_of(synth)(capsys, *small, "--liberty", str(first), f"--liberty={second}")
    assert found["liberty"]["file"] == [str(first), str(second)] and len(found["liberty"]["sha256"]) == 2
    for key in ("area_gate_equivalents", "delay_ns", "library_cells"):
        assert found[key] == wanted[key]
