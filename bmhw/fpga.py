# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.fpga``: what a neuron takes on an FPGA and how fast it runs, placed and routed."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json, reading, write_atomically
from bmhw.flow.fpga import DEVICES, NextPnr
from bmhw.hdl.checks import check_range
from bmhw.hdl.neurons.design import Design
from bmhw.measure.fpga import Fpga, compare
from bmhw.measure.pipelining import pipelined
from bmhw.measure.selection import AUTO
from bmhw.show.fpga_tables import markdown, print_chip, print_fpga
from bmhw.show.progress import say, steps

from .command_line import Parser, RunError, UsageError, run
from .options import (
    comparison_options,
    cycles_from,
    design_options,
    designs_from,
    folding_options,
    number,
    pipeline_options,
    run_options,
    stated_command,
    time_limit_from,
)

__all__ = ["main", "parser"]

_OPERATOR = "operator"
_PLAIN_END = "subtract"
_MOST_SEEDS = 100

_EXAMPLES = f"""
examples:
  python -m bmhw.fpga --compare --branches signed --log-bits 5 --latency 3 --seeds 5
      both neurons in an iCE40-HX8K at equal latency, Fmax as the median of five placements
  python -m bmhw.fpga --neuron mac --device ecp5-85k --no-dsp
      a multiply-accumulate neuron in lookup tables and carries alone
  python -m bmhw.fpga --model mnist-lenet-signed-4bit --cycles 40000 --device ecp5-25k
      a whole network with its weights: cells, Fmax, images a second
  python -m bmhw.fpga --model mnist-lenet-signed-4bit --device ecp5-45k --no-dsp
      folded as fast as that device has room for, by plan

Adders that are not named are `operator`: left to Yosys, which takes carry chains for them. Of a multiplier or a
maximum that is not named two are placed, `operator` and what --objective chooses by gates, and the one with the fewest
lookup tables (area), the shortest critical path (delay) or the least product of both (balanced) is shown. Of an end
that is not named, `subtract` is placed, too.
Results are kept in {cache_folder()}, which can always be deleted;
BMHW_CACHE_DIR names another folder for it.
"""


def parser() -> Parser:
    result = Parser(description="Map a neuron or a whole network to an FPGA with Yosys, place and route it with\n"
                                "nextpnr, and print its cells and how fast it runs.", epilog=_EXAMPLES)
    network = result.add_argument_group("whole network, in the place of a neuron")
    network.add_argument("--model", metavar="NAME",
                         help="name of a network (python -m bmhw.models list) or a path to its .json")
    folding_options(network)
    design_options(result)
    result.set_defaults(form="pipelined", objective="balanced")
    pipeline_options(result, stage_depth=False)
    fpga = result.add_argument_group("FPGA")
    fpga.add_argument("--device", choices=DEVICES, default="ice40-hx8k", help="(default: ice40-hx8k)")
    fpga.add_argument("--no-dsp", action="store_true", help="no DSP blocks (ECP5)")
    fpga.add_argument("--no-block-ram", action="store_true", help="no block RAMs: tables become LUTs")
    fpga.add_argument("--frequency", metavar="MHZ", default=100.0, help="nextpnr's target (default: 100)")
    fpga.add_argument("--seed", type=number, metavar="S", default=1, help="nextpnr's first seed (default: 1)")
    fpga.add_argument("--seeds", type=number, metavar="N", default=1,
                      help=f"how many seeds, 1..{_MOST_SEEDS}, one placement each: Fmax is their median (default: 1)")
    comparison_options(fpga)
    run_options(fpga, "run of Yosys and nextpnr")
    fpga.add_argument("--append", metavar="FILE",
                      help="with --compare: add the figures, this command and the date to a JSON list of such rows")
    fpga.add_argument("--show", metavar="FILE", help="measure nothing: print such a list as a Markdown table")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    if args.show is not None:
        print(markdown(_rows(args.show)))
        return 0
    for file in filter(None, (args.json, args.append)):
        check_writable(file)
    if args.model is not None:
        return _network(args, argv)
    for option in _OF_NETWORKS_ALONE:
        if getattr(args, option) not in (None, []):
            raise UsageError(f"--{option.replace('_', '-')} needs --model NAME")
    designs = designs_from(args)
    if designs[0].element:
        raise UsageError("--boundary element: an element is placed among others; python -m bmhw.elements measures that")
    if args.append is not None:
        if not args.compare:
            raise UsageError(f"--append {args.append} needs --compare")
        _appended(args.append)  # its errors before a long run
    fpga = _fpga(args)
    with steps("generating") as fpga.progress, fpga.engine.stopping(), fpga.nextpnr.stopping():
        neurons = [_measure(fpga, design, args) for design in designs]
    result = compare(*neurons) if args.compare else neurons[0]
    if args.append is not None:
        row = {"command": stated_command("bmhw.fpga", argv), "date": time.strftime("%Y-%m-%d"), **result}
        write_atomically(args.append, json.dumps([*_appended(args.append), row], indent=1) + "\n")
    if deliver_json(result, args.json):
        return 0
    print_fpga(neurons, result if args.compare else None)
    return 0


def _network(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """A whole network on the device; options of neurons have no place there."""
    defaults = parser().parse_args(["--model", args.model])
    for name, value in vars(args).items():
        if name not in _OF_NETWORKS and value != getattr(defaults, name):
            raise UsageError(f"--{name.replace('_', '-')} is of a neuron, not of --model {args.model}")
    if args.time_limit == defaults.time_limit:
        args.time_limit = DEVICES[args.device].chip_time_limit
    fpga, cycles = _fpga(args), cycles_from(args)
    try:
        from bmhw.chip.folding import assembled, overrides, shortage
        from bmhw.chip.placement import measure_chip
        from bmhw.chip.plan import plan
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    assembly = assembled(args.model, cycles, args.fold, args.device, writable=args.weights == "writable")
    planned = plan(assembly, fpga.device)
    if planned.missing:
        why = shortage(assembly, args.device, planned, overrides(assembly.network, args.fold))
        if planned.block_rams > fpga.device.block_rams:  # these are no estimate
            raise RunError(why)
        say(f"{why}; it is placed nevertheless")
    with steps("generating") as fpga.progress, fpga.engine.stopping(), fpga.nextpnr.stopping():
        result = measure_chip(fpga, assembly)
    result = {"command": stated_command("bmhw.fpga", argv), **result}
    if not deliver_json(result, args.json):
        print_chip(result)
    return 0


_OF_NETWORKS_ALONE = ("cycles", "frames_per_second", "clock", "fold", "weights")
_OF_NETWORKS = (*_OF_NETWORKS_ALONE, "model", "device", "no_dsp", "frequency", "seed", "seeds", "engine", "time_limit",
                "no_cache", "json")


def _measure(fpga: Fpga, design: Design, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of a design; of architectures that are left open, those that the objective likes best."""
    if args.adder == AUTO:
        design = dataclasses.replace(design, adder=_OPERATOR)
    own = "multiplier" if design.neuron == "mac" else "maximum"
    candidates = [design]
    if getattr(args, own) in (None, AUTO) and getattr(design, own) != _OPERATOR:
        candidates.append(dataclasses.replace(design, **{own: _OPERATOR}))
    # what is selected by the last bits costs few gates, but a table as it is written fits a block RAM
    if design.neuron == "bm" and args.end in (None, AUTO) and design.end != _PLAIN_END:
        candidates.append(dataclasses.replace(candidates[-1], end=_PLAIN_END))
    return fpga.best([pipelined(candidate, args, fpga.steps) for candidate in candidates], args.objective)


def _fpga(args: argparse.Namespace) -> Fpga:
    try:
        check_range("Seed", args.seed, 0, (1 << 31) - _MOST_SEEDS)
        check_range("Number of seeds", args.seeds, 1, _MOST_SEEDS)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        frequency = float(args.frequency)
    except ValueError:
        frequency = 0.0
    if not 1 <= frequency <= 1000:
        raise UsageError(f"Frequency must be a number from 1 to 1000 MHz, not {args.frequency!r}")
    limit = time_limit_from(args.time_limit)
    return Fpga(args.device, Engine(args.engine, limit), NextPnr(DEVICES[args.device], limit),
                Cache(None if args.no_cache else cache_folder()), dsp=not args.no_dsp,
                block_ram=not args.no_block_ram, frequency=frequency,
                seeds=tuple(range(args.seed, args.seed + args.seeds)))


def _rows(path: str) -> list[dict[str, Any]]:
    """The rows that ``--append`` wrote."""
    with reading(path, "file that --append wrote"):
        rows = json.loads(Path(path).read_text())
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "command" in row for row in rows):
            raise ValueError("no list of rows")
        markdown(rows)
    return rows


def _appended(path: str) -> list[dict[str, Any]]:
    """The rows that are there already; none where there is no file."""
    return _rows(path) if Path(path).exists() else []


if __name__ == "__main__":
    run(main)
