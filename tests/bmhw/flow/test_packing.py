# SPDX-License-Identifier: Apache-2.0
"""Logic cells counted in a netlist are those that nextpnr packs it into."""

import json

import pytest

from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, NextPnr, chip_script
from bmhw.flow.packing import logic_cells

# A counter, a sum, comparisons of both kinds, a memory, a register behind logic and one behind another one.
DESIGN = """
module chip(input clk, input [7:0] a, input [7:0] b, input [3:0] at, input write, output reg [8:0] sum,
            output reg below, output reg [5:0] count, output reg [4:0] shown, output reg [7:0] behind);
  reg [4:0] words [0:15];
  reg [7:0] held;
  always @(posedge clk) begin
    sum <= a + b;
    below <= $signed(a) < $signed(held);
    count <= count == 37 ? 0 : count + (a > b);
    if (write) words[at] <= a[4:0];
    shown <= words[b[3:0]];
    held <= a;
    behind <= held ^ (b & {8{below}});
  end
endmodule
"""


@pytest.mark.parametrize("name", ["ice40-hx8k", "ecp5-25k"])
def test_as_many_as_nextpnr_packs(name):
    device = DEVICES[name]
    netlist = Engine().run(chip_script(device, "chip", dsp=False, block_ram=False), {"design.v": DESIGN},
                           ("netlist.json",))["netlist.json"]
    cells = json.loads(netlist)["modules"]["chip"]["cells"]
    packed = logic_cells(device.family, cells)
    counted = NextPnr(device, 300).place(netlist, 1, 50)["utilization"][device.logic]["used"]
    # beside them, one cell for each constant that is needed
    assert 0 <= counted - sum(packed.values()) <= 2
    # more than the tables: carries' ways in and out, memories, registers alone
    assert sum(packed.values()) > sum(cell["type"] in ("LUT4", "SB_LUT4") for cell in cells.values()) + 8
    assert set(packed) <= set(cells)
