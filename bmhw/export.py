# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.export``: a neuron's Verilog, description, FuseSoC core and self-checking bench."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmhw.deliver.export_files import export_files
from bmhw.deliver.export_names import check_name, check_unused, default_name
from bmhw.deliver.together import command_text, write_together
from bmhw.hdl.checks import check_range
from bmhw.sim.stimulus import vectors
from bmhw.sim.trained import MOST_VECTORS, TrainedNeuron, load_neuron
from bmhw.sim.vectors import joined

from .command_line import Parser, UsageError, run
from .options import design_from, design_options, number, registers_from

__all__ = ["main"]

_DESCRIPTION = """\
Write a neuron for an FPGA or ASIC flow: NAME.v (the Verilog), NAME.json (ports, formats, latency), NAME.core
(FuseSoC) and NAME_tb.v (a bench with vectors; iverilog -g2005 NAME.v NAME_tb.v && ./a.out prints PASS).
The same parameters give the same bytes."""

# Of the options that describe a design, those that a trained network leaves open; it brings its own format.
_ARCHITECTURE = ("form", "registers", "objective", "adder", "maximum", "end", "multiplier")
# Real activations in the bench of a trained neuron, unless the command line says otherwise.
_ACTIVATIONS = 100
# Options that don't change what is in the files.
_PLACE_OPTIONS = ("out", "force")
# What chooses the architecture of which a default name says nothing.
_USUAL_OBJECTIVE = "area"


def main(argv: Sequence[str] | None = None) -> int:
    options = parser()
    # without defaults, to tell whether an option was given that a trained network contradicts
    format_defaults = _format_defaults()
    options.set_defaults(**dict.fromkeys(format_defaults))
    args = options.parse_args(argv)
    if args.name is not None:
        check_name(args.name)
    trained = _trained(args, format_defaults)
    defaults = {option: options.get_default(option) for option in vars(args)} | format_defaults
    for option, value in format_defaults.items():
        if getattr(args, option) is None:
            setattr(args, option, value)
    if trained is not None:
        architecture = {option: getattr(args, option) for option in _ARCHITECTURE}
        design = trained.design(**{**architecture, "registers": registers_from(args.registers)})
    else:
        design = design_from(args)
    if design.element:
        raise UsageError("--boundary element is for measuring: an element without an end has no result that a bench "
                         "could check")
    name = default_name(design, _USUAL_OBJECTIVE, trained) if args.name is None else args.name
    command = command_text("bmhw.export", args, defaults, *_PLACE_OPTIONS)
    inputs = vectors(design.format, None if trained is not None else args.vectors, args.seed)
    expected = design.format.compute(**inputs)
    source = f"{len(expected)} vectors chosen by what they exercise (seed {args.seed})"
    slots = None
    if trained is not None:
        source = f"{len(trained.expected)} activations of {trained}, then {source}"
        slots = trained.slots.tolist()
        inputs = joined(design.format, trained.inputs, inputs)
        expected = np.concatenate([trained.expected, expected])
    files = export_files(design, name, inputs, expected, command=command, source=source, slots=slots)
    check_unused(name, {file: text for file, text in files.items() if file.endswith(".v")})
    for path in write_together(Path(args.out), files, command=command, force=args.force):
        print(path)
    return 0


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("--out", required=True, metavar="DIR", help="folder for the files; made if missing")
    result.add_argument(
        "--name", metavar="NAME", help="name of the module and the files (default: from the design, or network, layer "
        "and channel; and the architecture where it isn't the one that --objective area chooses)"
    )
    result.add_argument("--force", action="store_true", help="overwrite what another command exported under that name")
    design_options(result)
    bench = result.add_argument_group("vectors of the bench")
    bench.add_argument(
        "--vectors",
        type=number,
        metavar="N",
        help="how many (default: as many as the format takes to be exercised: 320, more for large tables and many "
        "inputs); with --model: real activations before those (default: 100)",
    )
    bench.add_argument("--seed", type=number, default=0, metavar="S", help="of the random choices (default: 0)")
    bench.add_argument(
        "--model", metavar="NAME", help="take the format and weights from a trained network, its activations first; "
        "with --bits from NAME or NAME-Bbit, whichever was trained in codes of that width"
    )
    bench.add_argument("--layer", metavar="NAME", help="its layer")
    bench.add_argument("--channel", type=number, metavar="K", help="output channel of the layer, from 0")
    return result


def _format_defaults() -> dict[str, Any]:
    """The options that describe a design's format, and their defaults."""
    designs = Parser()
    design_options(designs)
    return {name: value for name, value in vars(designs.parse_args([])).items() if name not in _ARCHITECTURE}


def _trained(args: argparse.Namespace, format_options: Iterable[str]) -> TrainedNeuron | None:
    try:
        if args.vectors is not None:
            check_range("Number of vectors", args.vectors, 1, MOST_VECTORS)
        check_range("Seed", args.seed, 0)
        if args.channel is not None:
            check_range("Channel", args.channel, 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    names = ("model", "layer", "channel")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if not given:
        return None
    for name in names:
        if name not in given:
            raise UsageError(f"--{next(iter(given))} needs --{name} as well")
    for option in format_options:
        if option != "bits" and getattr(args, option) is not None:
            raise UsageError(f"{_flag(option)} contradicts --model {args.model}, which brings its own format")
    count = _ACTIVATIONS if args.vectors is None else args.vectors
    return load_neuron(**given, count=count, seed=args.seed, bits=args.bits)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


if __name__ == "__main__":
    run(main)
