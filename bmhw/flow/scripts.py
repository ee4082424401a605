# SPDX-License-Identifier: Apache-2.0
"""The Yosys and abc scripts, pinned here: figures move by a quarter between scripts.

None of them uses ``&fraig -x`` (Yosys 0.70's own default), which runs for minutes on a multiplier tree.
The path in ``stime -p`` is what abc's own timing analysis says of a netlist mapped to a library.
"""

from collections.abc import Sequence

__all__ = ["ABC_GATES", "ABC_LIBERTY", "GATES", "MODULE_MARK", "OBJECTIVES", "yosys_script"]

# What counts as a gate: no MUX, nothing with more than two inputs.
GATES = ("AND", "NAND", "OR", "NOR", "XOR", "XNOR", "ANDNOT", "ORNOT")

ABC_GATES = {
    "area": "strash; ifraig; scorr; dc2; dretime; strash; &get -n; &dch -f; &nf; &put",
    "delay": "strash; ifraig; scorr; dc2; strash; if -g -K 6; strash; dch -f; map -B 0.9; topo",
}
ABC_LIBERTY = {
    "area": "strash; ifraig; scorr; dc2; dretime; strash; &get -n; &dch -f; &nf; &put; "
            "buffer -c; upsize; dnsize; stime -p",
    "delay": "strash; ifraig; dch; map -B 0.9; topo; buffer -c; upsize; dnsize; stime -p",
}
OBJECTIVES = tuple(ABC_GATES)


# Stands in the log before what abc says of a module.
MODULE_MARK = "mapping module"


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
        # -nordff: registers stay where the design has them, in front of a table too
        f"synth -flatten -noabc -nordff -top {top}",
        "setattr -unset init w:*",
        "dfflegalize -cell $_DFF_P_ x",
        "simplemap",
        "opt_clean",
    ]
    if liberty:
        lines += ["dfflibmap -liberty cells.lib"]
        for module in (*parts, top):  # one by one, so that the log tells which delay is whose
            lines += [f"log {MODULE_MARK} {module}", f"abc -liberty cells.lib -script abc.script {module}"]
    else:
        lines += [f"abc -g {','.join(GATES)} -script abc.script"]
    return "\n".join([*lines, "opt_clean -purge", "stat", "write_json netlist.json", ""])
