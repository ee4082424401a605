# SPDX-License-Identifier: Apache-2.0
"""Formal equivalence of two combinational designs, by Yosys's SAT solver."""

from amaranth.back import rtlil

from bmhw.errors import RunError
from bmhw.flow.engine import Engine

_SCRIPT = """
{read_gold}
hierarchy -check -top gold
proc -norom
flatten gold
design -stash gold
{read_gate}
hierarchy -check -top gate
proc -norom
flatten gate
design -stash gate
design -copy-from gold -as gold gold
design -copy-from gate -as gate gate
opt -full
miter -equiv -flatten gold gate miter
sat -verify -prove trigger 0 miter
"""


def equivalent(gold: str, gate: str) -> bool:
    """Whether two sources (RTLIL or Verilog), with modules ``gold`` and ``gate`` of equal ports, compute the same."""
    script = _SCRIPT.format(read_gold=_read("gold", gold), read_gate=_read("gate", gate))
    try:
        Engine().run(script, {"gold": gold, "gate": gate}, ())
    except RunError as error:
        # `sat -verify` found inputs for which they differ; anything else is a broken test
        if "proof did fail" in str(error) or "Called with -verify" in str(error):
            return False
        raise
    return True


def plain_rtlil(block, name: str) -> str:
    """The block through Amaranth's own hierarchy and back end."""
    return rtlil.convert(block, name=name, emit_src=False)


def _read(name: str, source: str) -> str:
    return f"read_verilog {name}" if "endmodule" in source else f"read_rtlil {name}"
