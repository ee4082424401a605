# SPDX-License-Identifier: Apache-2.0
"""The base of every hardware block, and how blocks are put into one another.

A block is a :class:`Block`: a ``wiring.Component`` with keyword-only, hashable parameters. A block places
another one with :func:`place`. Under Amaranth's own simulator and platforms that is an ordinary submodule. Under a
:class:`Hierarchy` (the Verilog back end) equal blocks become **one** module with many instances: the Verilog is
short enough to read, and synthesis can map each block once.
"""

import ast
import inspect
import re
import textwrap
from functools import cache
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow, In, Out

from .checks import check_range

__all__ = ["Block", "Hierarchy", "connect", "place"]


class Block(wiring.Component):
    """A hardware block with keyword-only, hashable parameters."""

    clocked = False
    """Whether the block holds registers and has ``clk`` and ``rst``."""

    levels = 1
    """Steps that the data take one after the other; between two of them there can be registers."""

    registers: tuple[int, ...] = ()
    """Levels with registers behind them, counted from 1, each a cycle of latency; never the last one."""

    memory_style = "auto"
    """What of a device the block's memory is to be made of: ``auto``, ``block`` (RAM) or ``logic``."""

    memory_collides = True
    """Whether a word of the block's memory may be asked for in the cycle in which it is written, and the old one is
    wanted: what block RAMs don't do by themselves."""

    memory_begins = False
    """Whether the block's memory can be written and yet is read before it is: zeros that it begins with count."""

    _parameters: dict[str, Any]

    def check_registers(self, registers: tuple[int, ...]) -> tuple[int, ...]:
        """The levels with registers behind them, as a constructor takes them; makes the block clocked."""
        for level in registers:
            check_range(f"Level of {self.block_name} with registers", level, 1, self.levels - 1)
        self.registers, self.clocked = registers, bool(registers)
        return registers

    def __new__(cls, **parameters):
        block = super().__new__(cls)
        block._parameters = parameters
        # A block may be made only to ask for its ports or its Verilog: not using it in a design is no mistake.
        block._MustUse__silence = True
        return block

    @property
    def key(self) -> tuple:
        """Equal for blocks that are built alike."""
        return type(self), tuple(sorted(self._parameters.items(), key=lambda item: item[0]))

    block_name: str
    """Name of the module, before numbering; by default the class in lower case."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "block_name" not in cls.__dict__:
            cls.block_name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @property
    def ports(self) -> dict[str, tuple[Flow, Signal]]:
        """Port name -> (direction, signal); what lies in an interface, such as a stream, is named as Amaranth names it,
        ``i__valid``."""
        return {"__".join(map(str, path)): (member.flow, value)
                for path, member, value in self.signature.flatten(self)}


class Hierarchy:
    """A platform that turns each kind of block into one RTLIL module.

    Parameters
    ----------
    prefix: put before the name of every module but the top's, which is the prefix itself.
    """

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.modules: dict[str, str] = {}
        """Module name -> RTLIL text, children first."""
        self.descriptions: dict[str, str] = {}
        """Module name -> the first sentence of the block's docstring."""
        self.ports: dict[str, list[tuple[str, str]]] = {}
        """Module name -> (``input`` or ``output``, port name), in order."""
        self.memory_attributes: dict[str, tuple[str, ...]] = {}
        """Module name -> what stands before its memory, in the words that Yosys and other tools know."""
        self.beginning: set[str] = set()
        """Modules whose memory must begin with its words, zeros or not."""
        self._names: dict[tuple, str] = {}
        self._numbers: dict[str, int] = {}

    def add(self, block: Block, name: str | None = None) -> str:
        """Convert a block (once for each key) and return its module's name."""
        if block.key in self._names:
            return self._names[block.key]
        if name is None:
            name = f"{self.prefix}_{block.block_name}"
            self._numbers[name] = number = self._numbers.get(name, 0) + 1
            if number > 1:
                name = f"{name}_{number}"
        self._names[block.key] = name
        # Strictly after the children: `place` adds them while this block elaborates.
        text = rtlil.convert(block, platform=self, name=name, emit_src=False)
        self.modules[name] = text
        clock = [("input", "clk"), ("input", "rst")] if block.clocked else []
        self.ports[name] = clock + [("input" if flow is Flow.In else "output", port)
                                    for port, (flow, _) in block.ports.items()]
        style = block.memory_style
        self.memory_attributes[name] = (
            *(() if style == "auto" else (f'ram_style = "{style}"', f'rom_style = "{style}"')),
            *(() if block.memory_collides else ("no_rw_check",)))
        if block.memory_begins:
            self.beginning.add(name)
        self.descriptions[name] = _plain(" ".join(_docstring(type(block)).split("\n\n")[0].split()))
        return name

    def instance(self, m: Module, name: str, block: Block) -> None:
        module = self.add(block)
        connections = {}
        for port, (flow, signal) in block.ports.items():
            # The block is converted: from here its signals are wires of the parent.
            signal.name = f"{name}_{port}"
            connections[f"{'i' if flow is Flow.In else 'o'}_{port}"] = signal
        if block.clocked:
            connections |= {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        m.submodules[name] = Instance(module, **connections)


@cache
def _docstring(kind: type[Block]) -> str:
    """The docstring of a block's class or of the nearest base that has one.

    ``python -OO`` leaves docstrings out of the program; there it is read from the source, so that the Verilog is the
    same.
    """
    for base in kind.__mro__[:kind.__mro__.index(Block)]:
        text = base.__dict__.get("__doc__")
        if text is None:
            text = ast.get_docstring(ast.parse(textwrap.dedent(inspect.getsource(base))).body[0], clean=False)
        if text:
            return text
    return ""


def _plain(text: str) -> str:
    """Documentation markup as plain text."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``", "")


def place(m: Module, platform: Any, name: str, block: Block) -> Block:
    """Put ``block`` into the module ``m`` under ``name``; returns the block, whose ports are now wires of m."""
    if isinstance(platform, Hierarchy):
        platform.instance(m, name, block)
    else:
        m.submodules[name] = block
    return block


def connect(m: Module, platform: Any, name: str, part: Block, values: dict[str, Value]) -> None:
    """Place a part, feed its inputs from ``values`` by name and put its outputs there."""
    place(m, platform, name, part)
    m.d.comb += [signal.eq(values[port]) for port, (flow, signal) in part.ports.items() if flow is In]
    values |= {port: signal for port, (flow, signal) in part.ports.items() if flow is Out}
