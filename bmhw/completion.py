# SPDX-License-Identifier: Apache-2.0
"""``bmhw completion SHELL``: a script that completes ``bmhw``'s commands and options in a shell."""

from collections.abc import Sequence

import shtab

from .command_line import Parser, run
from .commands import COMMANDS, module_of

__all__ = ["main", "parser"]

_EXAMPLES = """
examples:
  bmhw completion bash > ~/.local/share/bash-completion/completions/bmhw
  bmhw completion zsh > ~/.zfunc/_bmhw
"""


def parser() -> Parser:
    result = Parser(description="Write a completion script for a shell to standard output.", epilog=_EXAMPLES)
    result.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help=", ".join(shtab.SUPPORTED_SHELLS))
    return result


def whole() -> Parser:
    """One parser with every command and its options below it."""
    result = Parser(prog="bmhw")
    commands = result.add_subparsers(dest="command")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, parents=[module_of(name).parser()], add_help=False, help=text)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    print(shtab.complete(whole(), args.shell))
    return 0


if __name__ == "__main__":
    run(main)
