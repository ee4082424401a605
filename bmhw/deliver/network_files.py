# SPDX-License-Identifier: Apache-2.0
"""The text of the files that a network on a chip is delivered as."""

import importlib.metadata
from dataclasses import dataclass
from functools import cached_property

from bmhw import __version__
from bmhw.chip.assembly import Assembly
from bmhw.chip.edge import chip_of
from bmhw.chip.loading import image_of, turned, with_network
from bmhw.chip.memories import fitted
from bmhw.chip.plan import plan
from bmhw.flow.fpga import DEVICES, Device
from bmhw.hdl.network.edge import Chip
from bmhw.hdl.verilog.convert import block_to_verilog, converter
from bmhw.models.integer.network import IntegerNetwork

from .datasheet import datasheet, ports_of
from .fusesoc import core_targets
from .network_bench import BenchVectors, bench_text
from .weights_image import described, hexadecimal

__all__ = ["Delivery"]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A network on a chip as it is handed over.

    ``command``: stands in each file. ``logits``, ``counters``: of :func:`~bmhw.chip.edge.chip_of`. ``megahertz``: of
    the clock that synthesis aims at. ``device``: that the memories are cut for, if any. The same network, folding and
    values give the same bytes.
    """

    assembly: Assembly
    name: str
    command: str
    logits: bool = False
    counters: bool = False
    megahertz: int
    device: str | None = None

    @property
    def network(self) -> IntegerNetwork:
        return self.assembly.network

    @cached_property
    def chip(self) -> Chip:
        return chip_of(self.assembly, logits=self.logits, counters=self.counters)

    def verilog(self) -> str:
        """The chip with its weights: the text of ``NAME.v``."""
        return _comment("//", self._head()) + "\n" + block_to_verilog(self.chip, self.name)

    def files(self, images: int) -> dict[str, str]:
        """All files by name; the bench has so many of the network's held-out images."""
        name, chip = self.name, self.chip
        other = turned(self.network) if self.assembly.writable else None
        vectors = BenchVectors.of(self.network, self.network.samples[:images], logits=self.logits, other=other)
        data = vectors.files(name, self.command, len(chip.m_axis_tdata))
        weights = {}
        if self.assembly.writable:
            both = (*image_of(self.assembly), *image_of(with_network(self.assembly, other)))
            data[f"{name}_weights.hex"] = hexadecimal(both, self.command)
            weights[f"{name}_weights.json"] = described(self.assembly, self.command)
        run = f"iverilog -g2005 -o {name}_tb {name}.v {name}_tb.v && ./{name}_tb"
        head = _comment("//", [
            "SPDX-License-Identifier: Apache-2.0",
            f"Self-checking bench of {name}, written by: {self.command}",
            f"{images} held-out images and what the integer network gives for them: {', '.join(data)}.",
            f"Run: {run}",
            f"  or, a hundred times faster, verilator --binary --timing -O3 -Wno-fatal --top-module {name}_tb {name}.v "
            f"{name}_tb.v && ./obj_dir/V{name}_tb",
            "  (with -CFLAGS '-std=c++20 -fcoroutines' where the compiler misses coroutines)"])
        planned = plan(self.assembly, self.device and DEVICES[self.device])
        return {
            f"{name}.v": self.verilog(),
            "DATASHEET.md": datasheet(self.assembly, chip, name, planned, command=self.command,
                                      versions=self._versions, run=run, logits=self.logits),
            f"{name}_tb.v": bench_text(chip, name, vectors, cycles=planned.cycles, head=head.rstrip()),
            **data, **weights,
            f"{name}.core": self._core(list(data)),
            f"{name}.sdc": self._constraints(),
        }

    @cached_property
    def _versions(self) -> str:
        versions = {"bmhw": __version__, "amaranth": importlib.metadata.version("amaranth"),
                    "yosys": ".".join(map(str, converter().version()))}
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    def _head(self) -> list[str]:
        chip = self.chip
        ports = ports_of(chip, self.network)
        wide = max(len(port.name) for port in ports)
        return [
            "SPDX-License-Identifier: Apache-2.0", f"{self.name}: network {self.network.name} with its weights.", "",
            f"Written by: {self.command}", f"Versions:   {self._versions}", "", "Ports:",
            *(f"  {port.name:{wide}}  {port.direction:6}  {port.bits:2}  {port.meaning}" for port in ports)]

    def _constraints(self) -> str:
        return _comment("#", [
            "SPDX-License-Identifier: Apache-2.0", f"Constraints of {self.name}, written by: {self.command}",
            f"{self.megahertz} MHz; the edge is registers, so paths outside have the rest of their cycles"]) + (
            f"create_clock -name clk -period {1000 / self.megahertz:.3f} [get_ports clk]\n")

    def _core(self, vectors: list[str]) -> str:
        """FuseSoC's description (CAPI2)."""
        name, ecp5 = self.name, self._ecp5
        # where the simulation runs, and not among the sources
        hexadecimal = "\n".join(f"      - {file}: {{file_type: user, copyto: {file}}}" for file in vectors)
        return f"""\
CAPI=2:
# SPDX-License-Identifier: Apache-2.0
# Written by: {self.command}
name: bmhw:networks:{name}:{__version__}
description: Network {self.network.name} with AXI4-Stream at its edge

filesets:
  rtl:
    files: [{name}.v]
    file_type: verilogSource-2005
  clock:
    files: [{name}.sdc]
    file_type: SDC
  bench:
    files:
      - {name}_tb.v: {{file_type: verilogSource-2005}}
{hexadecimal}

{core_targets(name, _VERILATOR)}  synth:
    <<: *default
    description: {ecp5.chip}, alone, to see what it takes; pins where nextpnr likes
    default_tool: trellis
    filesets: [rtl, clock]
    tools:
      trellis:
        nextpnr_options: [{", ".join(ecp5.options[:3])}, --lpf-allow-unconstrained, --freq, "{self.megahertz}"]
"""

    @property
    def _ecp5(self) -> Device:
        """The chip's own device or, where that is none of the family, the smallest one that has room for it by plan,
        else the largest one."""
        if self.device is not None and DEVICES[self.device].family == "ecp5":
            return DEVICES[self.device]
        devices = sorted((device for device in DEVICES.values() if device.family == "ecp5"), key=lambda of: of.luts)
        return next((device for device in devices if not plan(fitted(self.assembly, device), device).missing),
                    devices[-1])


_VERILATOR = """\
      verilator:
        mode: binary
        verilator_options: [--timing, -Wno-fatal]
"""


def _comment(mark: str, lines: list[str]) -> str:
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in lines)
