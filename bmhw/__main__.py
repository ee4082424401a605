# SPDX-License-Identifier: Apache-2.0
"""``bmhw``: every command line of the package as one command; ``bmhw synth`` is ``python -m bmhw.synth``."""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from . import __version__, command_line
from .hdl.checks import nearest

__all__ = ["COMMANDS", "command", "main"]

COMMANDS = {
    "synth": ("bmhw.synth", "what a neuron costs: gates, path, parts; both neurons side by side"),
    "export": ("bmhw.export", "a neuron's Verilog, description, FuseSoC core and self-checking bench"),
    "evaluate": ("bmhw.evaluate", "the accuracy of a trained network, as floating point and as hardware computes it"),
    "sim": ("bmhw.sim.__main__", "a trained neuron's Verilog against the integer model, bit for bit"),
    "layers": ("bmhw.layers", "a network's layers as MAC and as BM hardware"),
    "fpga": ("bmhw.fpga", "both neurons placed and routed on an FPGA"),
    "tradeoff": ("bmhw.tradeoff", "every trained network's accuracy against its neuron's hardware"),
    "train": ("bmhw.train", "train a network and write its integer weights"),
    "models": ("bmhw.models.__main__", "the networks that ship, or those in a folder"),
    "accuracy": ("bmhw.accuracy", "accuracy tables and plots of trained networks"),
    "report": ("bmhw.report", "docs/results from the measured files"),
    "explore": ("bmhw.explore", "measure every architecture again"),
    "doctor": ("bmhw.doctor", "versions, which tools are found where, and what to install for the rest"),
    "completion": ("bmhw.completion", "a completion script for bash, zsh or tcsh"),
}
"""Name of a command -> its module and what it does."""

_FIRST = """\
bmhw {version}: multiplier-free neurons as hardware, measured. Five things to try first:

  bmhw synth --bits 8 --neuron bm
      what a bipolar morphological neuron costs, part by part, and its critical path
  bmhw synth --compare --boundary layer --inputs 64 --branches signed
      the same as it stands in a network, against the best multiply-accumulate neuron
  bmhw export --out build --bits 8 --branches signed
      its Verilog, to read and to use, with a bench of its own
  bmhw models list
      the trained networks; bmhw evaluate --model digits measures one
  bmhw doctor
      which tools are found here, and what to install for the rest

bmhw --help lists every command, bmhw COMMAND --help its options.
"""


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: bmhw COMMAND [options]", "", "commands:", *lines, "",
                      "examples:", "  bmhw synth --compare --inputs 64", "  bmhw export --help", ""])


def module_of(name: str) -> ModuleType:
    """The module of a command: ``main(argv)`` runs it, ``parser()`` has its options."""
    return importlib.import_module(COMMANDS[name][0])


def main(argv: Sequence[str] | None = None) -> int:
    """What ``bmhw`` does with these arguments; a command ends the process with its own exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(_FIRST.format(version=__version__), end="")
        return 0
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"bmhw {__version__}")
        return 0
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        raise command_line.UsageError(f"unknown {kind} {name}{nearest(name, COMMANDS)}; bmhw --help lists the commands")
    with command_line.called_as(f"bmhw {name}"):
        # here and not outside, so that errors carry the command's name
        command_line.run(lambda _: module_of(name).main(rest))


def command() -> None:
    """The entry point of the program ``bmhw``."""
    command_line.run(main)


if __name__ == "__main__":
    command()
