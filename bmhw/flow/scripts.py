# SPDX-License-Identifier: Apache-2.0
"""The Yosys and abc scripts, pinned here: figures move by a quarter between scripts.

None of them uses ``&fraig -x`` (Yosys 0.70's own default), which runs for minutes on a multiplier tree.
"""

from collections.abc import Sequence

__all__ = ["ABC_GATES", "ABC_LIBERTY", "ABC_MAPPING", "ABC_SIZING", "GATES", "OBJECTIVES", "abc_script",
           "yosys_script"]

# What counts as a gate: no MUX, nothing with more than two inputs.
GATES = ("AND", "NAND", "OR", "NOR", "XOR", "XNOR", "ANDNOT", "ORNOT")

# The area script rewrites nothing (no `dc2`) before it maps: rewriting undoes the structure that a generator chose,
# takes more than half the time, and gave more gates for a multiplier tree.
ABC_GATES = {
    "area": "strash; ifraig; scorr; strash; &get -n; &dch -f; &nf; &put",
    "delay": "strash; ifraig; scorr; dc2; strash; if -g -K 6; strash; dch -f; map -B 0.9; topo",
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


def yosys_script(top: str, parts: Sequence[str], liberty: bool) -> str:
    """Map ``design.v`` with ``abc.script`` (and ``cells.lib``) into ``netlist.json``.

    ``parts``: modules that stay modules and are mapped on their own; all others are dissolved.
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
        lines += ["dfflibmap -liberty cells.lib", "abc -liberty cells.lib -script abc.script"]
    else:
        lines += [f"abc -g {','.join(GATES)} -script abc.script"]
    return "\n".join([*lines, "opt_clean -purge", "write_json netlist.json", ""])
