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

from rich.console import Console
from rich.text import Text

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json, reading, write_atomically
from bmhw.flow.fpga import DEVICES, NextPnr
from bmhw.hdl.checks import check_range
from bmhw.hdl.neurons.design import Design
from bmhw.measure.fpga import Fpga, compare
from bmhw.measure.pipelining import pipelined
from bmhw.measure.selection import AUTO
from bmhw.show.progress import steps
from bmhw.show.tables import pipeline, plain_table, title

from .command_line import Parser, UsageError, run
from .options import (
    comparison_options,
    design_options,
    designs_from,
    number,
    pipeline_options,
    run_options,
    stated_command,
    time_limit_from,
)

__all__ = ["main"]

_OPERATOR = "operator"
_PLAIN_END = "subtract"
_MOST_SEEDS = 100

_EXAMPLES = f"""
examples:
  python -m bmhw.fpga --compare --branches signed --log-bits 5 --latency 3 --seeds 5
      both neurons in an iCE40-HX8K at equal latency, Fmax as the median of five placements
  python -m bmhw.fpga --neuron mac --device ecp5-85k --no-dsp
      a multiply-accumulate neuron in lookup tables and carries alone

Adders that are not named are `operator`: left to Yosys, which takes carry chains for them. Of a multiplier or a
maximum that is not named two are placed, `operator` and what --objective chooses by gates, and the one with the fewest
lookup tables (area), the shortest critical path (delay) or the least product of both (balanced) is shown. Of an end
that is not named, `subtract` is placed, too.
Results are kept in {cache_folder()}, which can always be deleted;
BMHW_CACHE_DIR names another folder for it.
"""

_ROWS = (("LUTs", "luts", "MAC / BM"), ("carries", "carries", "MAC / BM"), ("flip-flops", "flip_flops", "MAC / BM"),
         ("DSPs", "dsps", "MAC / BM"), ("block RAMs", "block_rams", "MAC / BM"),
         ("Fmax, MHz", "fmax_mhz", "BM / MAC"), ("latency, cycles", "latency_cycles", "BM / MAC"))


def parser() -> Parser:
    result = Parser(description="Map a neuron to an FPGA with Yosys, place and route it with nextpnr, and print its\n"
                                "cells and how fast it runs.", epilog=_EXAMPLES)
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
    designs = designs_from(args)
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
    _print(neurons, result if args.compare else None)
    return 0


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


def _print(neurons: list[dict[str, Any]], comparison: dict[str, Any] | None) -> None:
    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    first = neurons[0]
    for neuron in neurons:
        say(title(neuron), "bold")
        if neuron["latency_cycles"] and neuron["design"]["form"] == "pipelined":
            say(f"Pipeline: {pipeline(neuron)}")
        if len(neuron["candidates"]) > 1:
            say(f"Tried: {_tried(neuron['candidates'])}")
        say(f"Critical path: {_path(neuron['critical_path'])}")
        say(f"Placed with its wrapper ({neuron['wrapper']['luts']} LUTs, {neuron['wrapper']['flip_flops']} flip-flops, "
            f"counted in no other line): {_placed(neuron['placed'])}")
        console.print()
    say(f"{first['device']['chip']}" + (f": MAC against BM, {comparison['comparison']}" if comparison else ""), "bold")
    table = plain_table()
    table.add_column("")
    for neuron in neurons:
        table.add_column(neuron["design"]["neuron"].upper(), justify="right")
    if comparison:
        table.add_column("ratio", justify="right", style="bold")
        table.add_column("")
    for label, key, meaning in _ROWS:
        values = [f"{neuron[key]:,.1f}" if key == "fmax_mhz" else f"{neuron[key]:,}" for neuron in neurons]
        if comparison:
            ratio = comparison["ratio"].get(key)
            values += ["", ""] if ratio is None else [f"{ratio:.2f}", meaning]
        table.add_row(label, *values)
        if key == "fmax_mhz" and len(first["seeds"]) > 1:
            table.add_row(f"  of {len(first['seeds'])} seeds", *(
                f"{neuron['fmax_lowest_mhz']:.1f}..{neuron['fmax_highest_mhz']:.1f}" for neuron in neurons))
    console.print(table)
    seeds = [run["seed"] for run in first["seeds"]]
    tools = first["tools"]
    console.print(Text(
        f"Fmax: from register to register, target {first['target_mhz']:g} MHz, "
        f"{f'seed {seeds[0]}' if len(seeds) == 1 else f'median of seeds {seeds[0]}..{seeds[-1]}'}. "
        f"{'DSPs allowed' if first['device']['dsps_allowed'] else 'No DSPs'}, "
        f"{'block RAMs allowed' if first['device']['block_rams_allowed'] else 'no block RAMs'}; objective "
        f"{first['objective']}.", style="dim"))
    console.print(Text(
        f"bmhw {tools['bmhw']}, {tools['engine']} ({tools['yosys']}), {tools['nextpnr']}, "
        f"amaranth {tools['amaranth']}, Python {tools['python']}.", style="dim"))


def _tried(candidates: list[dict[str, Any]]) -> str:
    """The figures of each, named by the architectures in which they differ."""
    differing = [name for name, value in candidates[0].items()
                 if isinstance(value, str) and any(one[name] != value for one in candidates)]
    return "; ".join(f"{' and '.join(one[name] for name in differing)} {one['luts']:,} LUTs, {one['flip_flops']:,} "
                     f"flip-flops, {one['fmax_mhz']:.1f} MHz" for one in candidates)


def _path(path: dict[str, Any]) -> str:
    steps = " > ".join(f"{step['part']} {step['logic_ns'] + step['routing_ns']:.1f} ns" for step in path["steps"])
    logic = sum(step["logic_ns"] for step in path["steps"])
    routing = sum(step["routing_ns"] for step in path["steps"])
    cells = sum(step["cells"] for step in path["steps"])
    return f"{path['from']} > {steps} > {path['to']}; {cells} cells {logic:.1f} ns, routing {routing:.1f} ns"


def _placed(placed: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{kind} {number['used']:,} of {number['available']:,}" for kind, number in placed.items()
                     if kind in {device.logic for device in DEVICES.values()} | {
                         "ICESTORM_RAM", "MULT18X18D", "DP16KD", "TRELLIS_FF"})


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


def markdown(rows: list[dict[str, Any]]) -> str:
    """Comparisons as a Markdown table, MAC first in each pair."""
    heads = ("device", "BM neuron", "architectures", "cycles", "LUTs", "MAC / BM", "flip-flops", "DSPs", "block RAMs",
             "Fmax, MHz", "BM / MAC")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        mac, bm, ratio = row["mac"], row["bm"], row["ratio"]
        design, device = bm["design"], mac["device"]
        allowed = device["name"]
        allowed += ", no DSPs" if DEVICES[allowed].has_dsp and not device["dsps_allowed"] else ""
        allowed += "" if device["block_rams_allowed"] else ", no block RAMs"
        pairs = [f"{mac[key]:,} / {bm[key]:,}" for key in ("luts", "flip_flops", "dsps", "block_rams")]
        name = f"{design['layout']} {design['bits']} bits, log codes {design['log_bits']}.{design['log_fraction']}"
        name += ", layer boundary" if design["boundary"] == "layer" else ""
        name += ", logarithmic end" if design["combine"] == "logarithmic" else ""
        # rows of before ends had architectures don't name one
        architecture = ", ".join(design[part] for part in ("maximum", "end") if part in design)
        fmax = " / ".join(_with_spread(neuron) for neuron in (mac, bm))
        cells = (allowed, name, f"{mac['design']['multiplier']} / {architecture}",
                 f"{mac['latency_cycles']} / {bm['latency_cycles']}", pairs[0], f"{ratio['luts']:.2f}",
                 *pairs[1:], fmax, f"{ratio['fmax_mhz']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_spread(neuron: dict[str, Any]) -> str:
    text = f"{neuron['fmax_mhz']:.1f}"
    if len(neuron["seeds"]) > 1:
        text += f" ({neuron['fmax_lowest_mhz']:.1f}..{neuron['fmax_highest_mhz']:.1f})"
    return text


if __name__ == "__main__":
    run(main)
