# SPDX-License-Identifier: Apache-2.0
"""Formal equivalence of two designs, and properties of one, by Yosys's SAT solver."""

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
setattr -unset init w:*
opt -full
miter -equiv -flatten gold gate miter
sat -verify -prove trigger 0 {steps} miter
"""


def equivalent(gold: str, gate: str, *, cycles: int = 0, unequal_cycles: int = 0, reset: bool = False) -> bool:
    """Whether two sources (RTLIL or Verilog), with modules ``gold`` and ``gate`` of equal ports, compute the same.

    Combinational ones for all inputs; clocked ones over so many ``cycles``, whatever the inputs and whatever the
    registers of each hold at the start, but for the first ``unequal_cycles``. ``reset``: rst is 1 in the first one.
    """
    steps = f"-seq {cycles} -prove-skip {unequal_cycles}" if cycles else ""
    steps += " -set-at 1 in_rst 1" if reset else ""
    script = _SCRIPT.format(read_gold=_read("gold", gold), read_gate=_read("gate", gate), steps=steps)
    try:
        Engine().run(script, {"gold": gold, "gate": gate}, ())
    except RunError as error:
        # `sat -verify` found inputs for which they differ; anything else is a broken test
        if "proof did fail" in str(error) or "Called with -verify" in str(error):
            return False
        raise
    return True


_PROPERTY = """
read_rtlil design
hierarchy -check -top {top}
proc
flatten
memory
opt -full
sat -verify -prove bad 0 -seq {cycles} {set_reset} {top}
"""


def always_low(block, cycles: int, *, reset_cycles: int = 2) -> bool:
    """Whether the output ``bad`` of a clocked block is never 1 in so many ``cycles``, whatever its inputs and whatever
    is in its registers in the beginning; in the first ``reset_cycles`` it is reset, and the first one may be bad."""
    reset = " ".join(f"-set-at {cycle} rst {int(cycle <= reset_cycles)}" for cycle in range(1, cycles + 1))
    script = _PROPERTY.format(top="top", cycles=cycles, set_reset=f"-prove-skip 1 {reset}")
    try:
        Engine().run(script, {"design": plain_rtlil(block, "top")}, ())
    except RunError as error:
        if "proof did fail" in str(error) or "Called with -verify" in str(error):
            return False
        raise
    return True


def plain_rtlil(block, name: str) -> str:
    """The block through Amaranth's own hierarchy and back end."""
    return rtlil.convert(block, name=name, emit_src=False)


def _read(name: str, source: str) -> str:
    return f"read_verilog {name}" if "endmodule" in source else f"read_rtlil {name}"
