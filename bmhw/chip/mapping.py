# SPDX-License-Identifier: Apache-2.0
"""A whole chip in the cells of a device, kept in the cache."""

from bmhw.flow.cache import Cache, digest
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import Device, chip_script
from bmhw.flow.memory_files import with_memory_files

__all__ = ["TOP", "mapped_chip", "script_of"]

TOP = "chip"
"""What the chip's module is called."""


def script_of(device: Device, *, dsp: bool, block_ram: bool) -> str:
    """Yosys's, for a chip."""
    return chip_script(device, TOP, dsp=dsp, block_ram=block_ram)


def mapped_chip(engine: Engine, cache: Cache, verilog: str, script: str) -> dict[str, str]:
    """``cells.json`` and ``netlist.json`` of a chip's Verilog, by :func:`script_of`."""
    def key() -> str:  # asked for again, as another tool may have taken the place of one that doesn't work
        return digest("chip cells", 1, verilog, script, engine.version)

    found = cache.get(key())
    if found is None:
        design, memories = with_memory_files(verilog)
        found = engine.run(script, {"design.v": design, **memories}, ("cells.json", "netlist.json"))
        cache.set(key(), found)
    return found
