# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.export``: a neuron's Verilog, its description, a FuseSoC core and a self-checking bench."""

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import __version__
from .command_line import Parser, RunError, UsageError, design_from, design_options, number, run, write_atomically
from .hdl.checks import check_range
from .hdl.design import Design
from .hdl.neuron_formats import BmFormat, MacFormat
from .hdl.verilog import to_verilog
from .sim.stimulus import vectors
from .sim.trained import TrainedNeuron, load_neuron
from .sim.verilog_bench import verilog_bench

__all__ = ["export", "main"]

_DESCRIPTION = """\
Write a neuron for an FPGA or ASIC flow: NAME.v (the Verilog), NAME.json (ports, formats, latency), NAME.core
(FuseSoC) and NAME_tb.v (a bench with vectors; iverilog -g2005 NAME.v NAME_tb.v && ./a.out prints PASS).
The same parameters give the same bytes."""

# Options that describe the number format: a trained network brings its own.
_FORMAT_OPTIONS = ("neuron", "bits", "inputs", "signed_inputs", "weight_bits", "branches", "log_bits",
                   "log_fraction", "log", "exp", "maximum_bits", "combine")
# Options that don't change what is in the files.
_PLACE_OPTIONS = ("out",)

_MARK = "bmhw.export"


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    defaults = {option: parser.get_default(option) for option in _FORMAT_OPTIONS}
    parser.set_defaults(**dict.fromkeys(_FORMAT_OPTIONS))
    args = parser.parse_args(argv)
    trained = _trained(args)
    for option, value in defaults.items():
        if getattr(args, option) is None:
            setattr(args, option, value)
    design = _trained_design(args, trained) if trained else design_from(args)
    name = args.name or design.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UsageError(f"--name must be letters, digits and underscores, a letter first, not {name!r}")
    command = _command(parser, args, defaults)
    if trained is not None:
        inputs, expected = trained.inputs, trained.expected
        source = f"{len(expected)} activations of {trained.model}, layer {trained.layer}, channel {trained.channel}"
    else:
        inputs = vectors(design.format, args.vectors, args.seed)
        expected = design.format.compute(**inputs)
        source = f"{len(expected)} vectors: corners, then random ones (seed {args.seed})"
    files = export(design, name, inputs, expected, command=command, source=source)
    for path in write_together(Path(args.out), files):
        print(path)
    return 0


def _parser() -> Parser:
    parser = Parser(description=_DESCRIPTION)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the files; made if missing")
    parser.add_argument("--name", metavar="NAME", help="name of the module and the files (default: from the design)")
    design_options(parser)
    bench = parser.add_argument_group("vectors of the bench")
    bench.add_argument("--vectors", type=number, default=200, metavar="N", help="how many (default: 200)")
    bench.add_argument("--seed", type=number, default=0, metavar="S", help="of the random ones (default: 0)")
    bench.add_argument("--model", metavar="NAME", help="take format and vectors from a trained network")
    bench.add_argument("--layer", metavar="NAME", help="its layer")
    bench.add_argument("--channel", type=number, metavar="K", help="output channel of the layer, from 0")
    return parser


def _trained(args: argparse.Namespace) -> TrainedNeuron | None:
    try:
        check_range("Number of vectors", args.vectors, 1)
        check_range("Seed", args.seed, 0)
        if args.channel is not None:
            check_range("Channel", args.channel, 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    given = [option for option in ("model", "layer", "channel") if getattr(args, option) is not None]
    if not given:
        return None
    if len(given) < 3:
        missing = next(option for option in ("model", "layer", "channel") if option not in given)
        raise UsageError(f"--{given[0]} needs --{missing} as well")
    for option in _FORMAT_OPTIONS:
        if getattr(args, option):
            raise UsageError(f"{_flag(option)} contradicts --model {args.model}, which brings its own format")
    return load_neuron(args.model, args.layer, args.channel, args.vectors, args.seed)
