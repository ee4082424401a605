# SPDX-License-Identifier: Apache-2.0
"""A library's cells sized as one netlist, whatever modules they were mapped in.

How large a cell should be, its load and the critical path of the whole design tell: inside a small block everything
is on the longest path, and a neuron whose blocks are sized alone comes out far too large.
"""

import json
from collections.abc import Sequence
from typing import Any

from .engine import Engine
from .liberty import Library
from .scripts import ABC_SIZING, abc_script

__all__ = ["size_netlist", "sizing_files"]

# The cells that abc has for constants, and a module that gives Yosys a reason to start abc.
_HELPERS = """\
module _const0_(output z); assign z = 1'b0; endmodule
module _const1_(output z); assign z = 1'b1; endmodule
module pretext(input a, output y); \\$_NOT_ inverter (.A(a), .Y(y)); endmodule
"""

# The older reader (-n) is the one for cells; the sizing commands want them in topological order. What nothing is
# connected to is gone then. In the end abc hands back the pretext.
_ABC = (f"write_blif pretext.blif; read_blif -n gates.blif; topo; {ABC_SIZING}; write_blif sized.blif; "
        "read_blif pretext.blif; map")


def sizing_files(top: str, flip_flops: Sequence[str], buffered: bool = False) -> dict[str, str]:
    """What with ``blocks.json`` and ``cells.lib`` makes ``netlist.json``, by the Yosys script ``run.ys``.

    Yosys has no way to give abc cells that are mapped: abc reads and writes them by itself, as BLIF, while Yosys has
    it map a pretext. What abc sees is a module of gates alone. Flip-flops (cells of the kinds ``flip_flops``) stay
    around it, as when a design is mapped, and so do outputs that are inputs, constants or each other. ``buffered``: as
    for :func:`~bmhw.flow.scripts.yosys_script`.
    """
    yosys = [
        "read_liberty -lib cells.lib",
        "read_json blocks.json",
        f"hierarchy -check -top {top}",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean -purge",
        "splitnets -ports",  # BLIF knows bits only: the module of gates has the same ports before and after
        " ".join([f"submod -name gates {top}/c:*", *(f"{top}/t:{kind} %d" for kind in flip_flops)]),
        "design -save around",
        f"delete {top}",
        # constants are cells and nets have no second name: a table (.names) among cells is what abc can't read
        "write_blif -gates -noalias -true _const1_ z -false _const0_ z -undef _const0_ z gates.blif",
        "design -reset",
        "read_verilog -icells helpers.v",
        "abc -liberty cells.lib -script size.script pretext",
        "design -load around",
        "delete gates",
        "read_verilog -icells helpers.v",
        "read_blif sized.blif",
        f"hierarchy -check -top {top}",
        "flatten",
        *(["techmap -map buffer.v"] if buffered else []),
        "opt_clean -purge",
        "write_json netlist.json",
    ]
    return {"run.ys": "\n".join([*yosys, ""]), "size.script": abc_script(_ABC), "helpers.v": _HELPERS}


def size_netlist(document: dict[str, Any], top: str, engine: Engine, library: Library,
                 time_limit: float | None = None) -> dict[str, Any]:
    """The flat, sized netlist of ``top`` in a ``document`` of mapped modules, both as ``write_json`` gives them.

    ``time_limit`` in seconds; errors as of :meth:`~bmhw.flow.engine.Engine.run`.
    """
    inputs = sizing_files(top, library.flip_flops, library.buffered)
    script = inputs.pop("run.ys")
    files = library.run(engine, script, {**inputs, "blocks.json": json.dumps(document)}, ("netlist.json",),
                        time_limit)
    sized = json.loads(files["netlist.json"])
    return {"creator": sized["creator"], "modules": {top: sized["modules"][top]}}
