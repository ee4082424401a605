# SPDX-License-Identifier: Apache-2.0
"""``bmhw``: every command line of the package as one command; ``bmhw synth`` is ``python -m bmhw.synth``."""

import sys
from collections.abc import Sequence

from . import __version__, command_line
from .commands import COMMANDS, module_of
from .hdl.checks import nearest

__all__ = ["command", "main"]

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
