# SPDX-License-Identifier: Apache-2.0
"""The Yosys and abc scripts, pinned here: figures move by a quarter between scripts.

None of them uses ``&fraig -x`` (Yosys 0.70's own default), which runs for minutes on a multiplier tree.
"""

from collections.abc import Sequence

__all__ = ["ABC_GATES", "ABC_LIBERTY", "ABC_MAPPING", "ABC_SIZING", "GATES", "OBJECTIVES", "abc_files", "abc_script",
           "yosys_script"]

# What counts as a gate: no MUX, nothing with more than two inputs. Name -> what it computes.
_FUNCTIONS = {
    "NOT": "!A", "AND": "A*B", "NAND": "!(A*B)", "OR": "A+B", "NOR": "!(A+B)", "XOR": "A*!B+!A*B", "XNOR": "A*B+!A*!B",
    "ANDNOT": "A*!B", "ORNOT": "A+!B",
}
GATES = tuple(name for name in _FUNCTIONS if name != "NOT")  # the inverter goes without saying

# abc's library for them, in which each gate costs 1 and takes 1. In Yosys's own an inverter costs a quarter of an AND
# and an XOR five quarters, and abc leaves inverters behind that are gates like any other.
_UNIT_GATES = "".join(
    f"GATE {name} {cost} Y={function};{' PIN * UNKNOWN 1 999 1.0 0.0 1.0 0.0' if 'A' in function else ''}\n"
    for name, cost, function in (("ZERO", 0, "CONST0"), ("ONE", 0, "CONST1"), ("BUF", 0, "A"),
                                 *((name, 1, function) for name, function in _FUNCTIONS.items())))

# The area script rewrites nothing (no `dc2`) before it maps: rewriting undoes the structure that a generator chose,
# takes more than half the time, and gave more gates for a multiplier tree. A second round starts from what the first
# one found: fewer gates at the same depth, for MAC and BM neurons; a third one gained nothing.
_MAP_TWICE = "&get -n; &dch -f; &nf; &put; strash; &get -n; &dch -f; &nf; &put"
ABC_GATES = {
    "area": f"read_genlib unit.genlib; strash; ifraig; scorr; strash; {_MAP_TWICE}",
    "delay": f"read_genlib unit.genlib; strash; ifraig; scorr; dc2; strash; if -g -K 6; strash; {_MAP_TWICE}",
}
# To a library's cells, each of one size; and then the sizes, which only loads and paths of the whole design tell.
ABC_MAPPING = {
    "area": "strash; ifraig; scorr; strash; &get -n; &dch -f; &nf; &put",
    "delay": "strash; ifraig; dch; map -B 0.9; topo",
}
ABC_SIZING = "buffer -c; upsize; dnsize"
# A balanced design is one of another architecture, mapped by the area script.
for _scripts in (ABC_GATES, ABC_MAPPING):
    _scripts["balanced"] = _scripts["area"]
ABC_LIBERTY = {objective: f"{mapping}; {ABC_SIZING}" for objective, mapping in ABC_MAPPING.items()}
OBJECTIVES = ("area", "balanced", "delay")


def abc_script(commands: str) -> str:
    """The file that Yosys hands to abc: one command a line."""
    return commands.replace("; ", "\n") + "\n"


def abc_files(commands: str) -> dict[str, str]:
    """The files of a run of :func:`yosys_script` that abc reads, beside ``cells.lib``: name -> content."""
    return {"abc.script": abc_script(commands), "unit.genlib": _UNIT_GATES}


def yosys_script(top: str, parts: Sequence[str], liberty: bool, buffered: bool = False) -> str:
    """Map ``design.v`` with :func:`abc_files` (and ``cells.lib``) into ``netlist.json``.

    ``parts``: modules that stay modules and are mapped on their own; all others are dissolved. ``buffered``: a stand-in
    for a buffer, which is among the cells, becomes what ``buffer.v`` makes of it.
    Flip-flops become plain D flip-flops in either case: a synchronous reset is gates, as it is in a library
    without such a cell, and what a register holds at power-up is left open.
    """
    lines = [
        "read_verilog design.v",
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {part}" for part in parts),
        # Each module is made gates before it is copied into its parents: on a neuron of 64 inputs a tenth of
        # the time of `synth -flatten`, with gate counts within 1 %, as abc optimizes across the copies.
        "proc",
        "opt -fast",
        "memory -nordff",  # registers stay where the design has them, in front of a table too
        "opt -fast",
        "techmap",
        "opt -fast",
        "flatten",
        "setattr -unset init w:*",
        "dfflegalize -cell $_DFF_P_ x",
        "simplemap",
        "opt_clean -purge",
    ]
    if liberty:
        lines += ["dfflibmap -liberty cells.lib", "abc -liberty cells.lib -script abc.script",
                  *(["techmap -map buffer.v"] if buffered else [])]
    else:
        lines += [f"abc -g {','.join(GATES)} -script abc.script"]
    return "\n".join([*lines, "opt_clean -purge", "write_json netlist.json", ""])
