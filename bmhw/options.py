# SPDX-License-Identifier: Apache-2.0
"""The options that several commands share, and what they mean: designs, comparisons, runs."""

import argparse
import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from bmhw.flow.engine import ENGINES, TIME_LIMIT
from bmhw.flow.scripts import OBJECTIVES
from bmhw.flow.synthesis import processors
from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.checks import check_range
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import (
    BOUNDARIES,
    COMBINES,
    ELEMENT,
    LARGEST_BIAS_BITS,
    LAYOUTS,
    REQUANTIZATIONS,
    SUMS,
    ZEROS,
)
from bmhw.hdl.formats.conversions import EXP2_METHODS, LOG2_METHODS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import FORMS, MOST_INPUTS, Design
from bmhw.hdl.neurons.linear_ends import ENDS
from bmhw.measure.selection import AUTO, choose

from .errors import UsageError

__all__ = [
    "NEURONS",
    "comparison_options",
    "cycles_from",
    "design_from",
    "design_options",
    "designs_from",
    "folding_options",
    "jobs_from",
    "jobs_option",
    "liberty_option",
    "number",
    "pipeline_options",
    "registers_from",
    "run_options",
    "stated_command",
    "time_limit_from",
]

NEURONS = ("mac", "bm")

WEIGHTS = ("rom", "writable")
"""What a chip's weights are."""

MOST_JOBS = 1024
"""Each is a thread and a tool beside it; more would only fill the memory."""

# Options that mean something to one neuron only: attribute of the parsed arguments -> field.
_BM_FIELDS = {
    "branches": "layout", "log_bits": "log_bits", "log_fraction": "log_fraction", "log": "log2",
    "exp": "exp2", "maximum_bits": "maximum_bits", "combine": "combine", "sums": "sums",
    "groups": "groups", "zero": "zero", "out_fraction": "out_fraction",
}
# neuron -> options that choose an architecture of its own, beside the adder
_ARCHITECTURES = {"mac": ("multiplier",), "bm": ("maximum", "end")}
_BM_ONLY = (*_BM_FIELDS, *_ARCHITECTURES["bm"])
_MAC_ONLY = (*_ARCHITECTURES["mac"], "requantize", "flush")


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
    common.add_argument("--boundary", choices=(*BOUNDARIES, ELEMENT), default="neuron",
                        help="linear inputs to linear output; as in a layer from activation code to activation code, "
                             "with the MAC neuron's requantisation; or what takes one input a cycle alone, without "
                             "an end (default: neuron)")
    common.add_argument("--residual", type=number, nargs="?", const=True, metavar="BITS",
                        help="a port r beside the bias, a signed number of so many bits that is added to the result, "
                             "such as a residual sum; without BITS as wide as the bias (default: no such port)")
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
                    help="its bits behind the point, below its width (default: log bits - ceil(log2(bits)), at most "
                         "weight bits - 1, and 8 with --combine logarithmic)")
    bm.add_argument("--log", choices=LOG2_METHODS,
                    help="logarithm of the inputs (default: exact up to 12 bits)")
    bm.add_argument("--exp", choices=EXP2_METHODS,
                    help="exponential of the maxima (default: exact up to 12 bits)")
    bm.add_argument("--maximum", choices=(AUTO, *MAXIMA),
                    help="architecture of the maxima; unary: of few bits, handed step by step to the exponentials "
                         "(default: auto, the best one measured)")
    bm.add_argument("--maximum-bits", type=number, metavar="B",
                    help="high bits of each sum that the maximum sees (default: all)")
    bm.add_argument("--sums", choices=SUMS,
                    help="sums of codes with one bit more, or log codes of the same width, 0 below the smallest "
                         "(default: full)")
    bm.add_argument("--groups", type=number, metavar="G",
                    help="maxima over a G-th of the inputs each, in the order of the ports, whose exponentials are all "
                         "added; divides --inputs (default: 1, the paper's neuron)")
    bm.add_argument("--zero", choices=ZEROS,
                    help="what code 0 stands for: the smallest step, or 0 exactly (default: step with one group, exact "
                         "with more)")
    bm.add_argument("--out-fraction", type=number, metavar="F",
                    help="fraction bits of the linear result, 0..40: fewer are a smaller and shorter end (default: 2 * "
                         "--bits - 2)")
    bm.add_argument("--combine", choices=COMBINES,
                    help="linear output, or the logarithm of the difference (default: linear)")
    bm.add_argument("--end", choices=(AUTO, *ENDS),
                    help="architecture of what follows the maxima: as the formula is written; selected by their last "
                         "bits, which arrive last; with a log2 that doesn't wait for the linear sum; or both (default: "
                         "auto, the best one measured)")

    mac = parser.add_argument_group("MAC neuron only")
    mac.add_argument("--multiplier", choices=(AUTO, *MULTIPLIERS),
                     help="architecture of the multiplier (default: auto, the best one measured)")
    mac.add_argument("--requantize", choices=REQUANTIZATIONS,
                     help="with --boundary layer: by a scale, or by a power of two (default: scale)")
    mac.add_argument("--flush", type=number, metavar="K",
                     help="with --boundary element: its accumulator holds K products, which a wider one elsewhere "
                          "takes over (default: all)")


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
    if args.signed_inputs and neuron == "bm" and layout in ("relu", "wired"):
        default = "" if args.branches else " (the default)"
        raise UsageError(f"--signed-inputs needs --branches bipolar or signed, not {layout}{default}")
    common = {
        "inputs": args.inputs, "bits": args.bits if bits is None else bits,
        "signed_inputs": signed, "weight_bits": args.weight_bits, "boundary": args.boundary,
    }
    if args.requantize is not None and args.boundary != "layer":
        raise UsageError(f"--requantize {args.requantize} needs --boundary layer, not {args.boundary}")
    if args.flush is not None and args.boundary != ELEMENT:
        raise UsageError(f"--flush {args.flush} needs --boundary {ELEMENT}, not {args.boundary}")
    try:
        # before the format looks for divisors of it
        check_range("Number of inputs", args.inputs, 1, MOST_INPUTS)
        if neuron == "mac":
            number_format = MacFormat(**common, **_given({"requantize": args.requantize, "flush": args.flush}))
        else:
            fields = {field: getattr(args, option) for option, field in _BM_FIELDS.items()}
            number_format = BmFormat(**common, **_given(fields | {"layout": layout}))
        if args.residual is not None:
            width = number_format.bias_bits if args.residual is True else args.residual
            check_range("Residual width in bits", width, 1, LARGEST_BIAS_BITS)
            number_format = dataclasses.replace(number_format, residual_bits=width)
        given = {name: getattr(args, name) for name in ("adder", *_ARCHITECTURES[neuron])
                 if getattr(args, name) not in (None, AUTO)}
        return Design(format=number_format, form=args.form, registers=registers_from(args.registers),
                      **choose(number_format, args.objective, given, args.form))
    except ValueError as error:
        raise UsageError(str(error)) from error


def registers_from(text: str | None) -> tuple[str, ...] | None:
    """The places that ``--registers`` names."""
    return None if text is None else tuple(filter(None, (place.strip() for place in text.split(","))))


def pipeline_options(parser: argparse.ArgumentParser, *, stage_depth: bool) -> None:
    """Add the options that place a pipeline's registers; :func:`bmhw.measure.pipelining.pipelined` reads them back."""
    group = parser.add_argument_group("with --form pipelined").add_mutually_exclusive_group()
    group.add_argument("--latency", type=number, metavar="N",
                       help="N ranks of registers, placed so that the stages are about equally deep; with --compare "
                            "the same for both neurons (default: registers behind each part); with --boundary element "
                            "1, or 2 for a register between sum or product and maximum or accumulator")
    if stage_depth:
        group.add_argument("--stage-depth", type=number, metavar="D",
                           help="the least latency with which no stage is more than D gates deep")


def comparison_options(parser: argparse._ArgumentGroup) -> None:
    """Add ``--compare`` and the widths that belong to it; :func:`designs_from` reads them back."""
    parser.add_argument("--compare", action="store_true",
                        help="both neurons in one run, ratios last; each takes its own options")
    for neuron in NEURONS:
        parser.add_argument(f"--{neuron}-bits", type=number, metavar="B",
                            help=f"with --compare: width of the {neuron.upper()} neuron (default: --bits)")


def folding_options(parser: argparse._ActionsContainer) -> None:
    """Add how a whole network is folded."""
    parser.add_argument("--cycles", type=number, metavar="N",
                        help="cycles an image (default: the fewest that the device has room for, by plan; without a "
                             "device 8 times the fewest)")
    parser.add_argument("--frames-per-second", metavar="F", help="as many cycles as so many images a second leave")
    parser.add_argument("--clock", metavar="MHZ", help="at this clock")
    parser.add_argument("--fold", action="append", default=[], metavar="LAYER=P",
                        help="outputs that a layer computes at a time, whatever the cycles are")
    parser.add_argument("--weights", choices=WEIGHTS,
                        help="whether weights and constants are fixed, or others can be loaded through a port of the "
                             "chip (default: rom)")


def cycles_from(args: argparse.Namespace) -> int | str | None:
    """What those options say of cycles an image, None: nothing."""
    asked = {"--frames-per-second": args.frames_per_second, "--clock": args.clock}
    if not any(value is not None for value in asked.values()):
        return args.cycles
    for option, value in asked.items():
        if value is None:
            raise UsageError(f"{' and '.join(asked)} belong together: {option} is missing")
    if args.cycles is not None:
        raise UsageError(f"--cycles {args.cycles} contradicts --frames-per-second {args.frames_per_second}")
    frames = _real("--frames-per-second", args.frames_per_second, 0.001, 1e9)
    clock = _real("--clock", args.clock, 1, 1000)
    cycles = math.floor(clock * 1e6 / frames)
    if not cycles:
        raise UsageError(f"--frames-per-second must be at most {clock * 1e6:,.0f}, one a cycle of --clock {clock:g}, "
                         f"not {args.frames_per_second}")
    return cycles


def _real(option: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UsageError(f"{option} must be a number from {low:g} to {high:g}, not {text!r}")
    return value


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
        if option in ("--json", "--jobs", "--append", "--folder", "--plot"):
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
