# SPDX-License-Identifier: Apache-2.0
"""Formal equivalence of two designs by Yosys's SAT solver, and properties of one by its abc."""

import importlib.util
from pathlib import Path

import pytest
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
hierarchy -check -top top
proc
flatten
memory
opt -full
setattr -unset init w:* w:started %d
techmap
opt
dfflegalize -cell $_DFF_P_ 01
setundef -anyseq
clean
aigmap
write_aiger -zinit property.aig
exec -expect-return 0 -- {abc} -f prove.abc
"""


def always_low(block, cycles: int | None = None) -> bool:
    """Whether the output ``bad`` of a clocked block is never 1, whatever its inputs and resets and whatever is in its
    registers and memories in the beginning, but for one called ``started``, which is 0 then.

    For all times, by property-directed reachability of Yosys's abc, which finds the invariant itself; ``cycles``: in so
    many at least, where that takes too long.
    """
    package = importlib.util.find_spec("pyosys")
    if package is None:
        pytest.skip("needs the abc of a native Yosys")
    script = _PROPERTY.format(abc=Path(package.origin).parent / "yosys-abc")
    inputs = {"design": plain_rtlil(block, "top"),
              "prove.abc": f"read_aiger property.aig\npdr -F {cycles or 0}\n"}
    said = Engine("pyosys").run(script, inputs, ())["log"]
    if "was asserted in frame" in said:
        return False
    if "Property proved" in said or (cycles and "Reached limit on the number of timeframes" in said):
        return True
    raise RunError(f"abc neither proves nor refutes: {said[-300:]}")


def plain_rtlil(block, name: str) -> str:
    """The block through Amaranth's own hierarchy and back end."""
    return rtlil.convert(block, name=name, emit_src=False)


def _read(name: str, source: str) -> str:
    return f"read_verilog {name}" if "endmodule" in source else f"read_rtlil {name}"
