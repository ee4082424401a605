# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.layers``: a network's convolutions as MAC and as BM hardware, measured, with the ratios."""

import datetime
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.liberty import Library, load_library
from bmhw.flow.scripts import ABC_GATES, ABC_SIZING, GATES, OBJECTIVES
from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.choices import COMBINES, REQUANTIZATIONS, SUMS
from bmhw.measure.layers import CLAIM, FLAT_INPUTS, SCRIPTS, LayerMeasurement, Neurons, totals
from bmhw.measure.networks import NETWORKS, Layer
from bmhw.measure.neurons import tools
from bmhw.measure.selection import AUTO
from bmhw.show.progress import shares
from bmhw.show.tables import code_width, left_out, plain_table, print_whole

from .command_line import Parser, UsageError, run
from .options import jobs_from, jobs_option, liberty_option, number, run_options, stated_command, time_limit_from

__all__ = ["main"]

_EXAMPLES = """
examples:
  python -m bmhw.layers --network resnet20v2 --objective balanced
      the 22 convolutions at 8 bits, gates x depth as small as possible
  python -m bmhw.layers --log-bits 5 --branches signed --liberty cells.lib.gz --json layers.json
      5-bit log codes against 8-bit multipliers, also in gate equivalents and ns
"""

_METHOD = {
    "boundary": "from activation code to the next layer's activation code (output code), or to the linear result "
                "that a residual sum takes (output linear: no requantisation, no log2); the residual sum and what "
                "turns it into a code are part of neither",
    "gates": f"mapped to NOT, {', '.join(GATES)}, each counted once; one output's, and those of a layer with all "
             "its outputs in parallel",
    "depth": "gates on the longest path; total: the paths of all layers one behind the other",
    "mapping": f"flat up to {FLAT_INPUTS} inputs, above block by block with the critical path across all blocks",
    "ratio": "MAC / BM for gates and area, BM / MAC for depth and delay",
}


def parser() -> Parser:
    result = Parser(description="A network's convolutions, as multiply-accumulate and as bipolar morphological\n"
                                "hardware: gates, depth and ratios, layer by layer.", epilog=_EXAMPLES)
    result.add_argument("--network", choices=tuple(NETWORKS), default="resnet20v2", help="(default: resnet20v2)")
    result.add_argument("--bits", type=number, default=8, metavar="B", help="width of both neurons, 2..16 (default: 8)")
    for neuron in ("mac", "bm"):
        result.add_argument(f"--{neuron}-bits", type=number, metavar="B",
                            help=f"width of the {neuron.upper()} neurons (default: --bits)")
    result.add_argument("--mac-weight-bits", type=number, metavar="B",
                        help="width of the MAC neurons' weights (default: as their inputs)")
    result.add_argument("--log-bits", type=number, metavar="B",
                        help="BM layers: width of the log codes of activations and weights (default: --bm-bits, which "
                             "is half that of a linear result)")
    result.add_argument("--log-fraction", type=number, metavar="F",
                        help="BM layers: their bits behind the point (default: what spans the linear numbers)")
    result.add_argument("--branches", "--layout", choices=("relu", "signed", "wired"), default="relu",
                        help="BM layout: relu where the inputs allow it, else bipolar; signed; or wired where the "
                             "inputs allow it, else signed (default: relu)")
    result.add_argument("--objective", choices=OBJECTIVES, default="area",
                        help="few gates, few gates x depth, or a short path (default: area)")
    result.add_argument("--requantize", choices=REQUANTIZATIONS, default="scale",
                        help="MAC layers: a multiplication by a scale, or a power of two (default: scale)")
    result.add_argument("--sums", choices=SUMS, default="full",
                        help="BM layers: sums of codes with one bit more, or log codes of the same width, 0 below the "
                             "smallest (default: full)")
    result.add_argument("--maximum-bits", type=number, metavar="B",
                        help="BM layers: high bits of each sum that the maxima see (default: all)")
    result.add_argument("--linear-maximum-bits", type=number, metavar="B",
                        help="the same of layers with a linear result (default: --maximum-bits)")
    result.add_argument("--combine", choices=(AUTO, *COMBINES), default=AUTO,
                        help="BM layers before a code: linear end, logarithmic where it can be built, or the better "
                             "one for the objective (default: auto)")
    result.add_argument("--layers", metavar="NAME,...", help="only these layers (default: all)")
    liberty_option(result)
    jobs_option(result, "layers")
    run_options(result, "layer")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(sys.argv[1:] if argv is None else argv)
    layers = _chosen(NETWORKS[args.network](), args.layers)
    neurons = Neurons(mac_bits=args.bits if args.mac_bits is None else args.mac_bits,
                      mac_weight_bits=args.mac_weight_bits,
                      bm_bits=args.bits if args.bm_bits is None else args.bm_bits,
                      log_bits=args.log_bits, log_fraction=args.log_fraction, branches=args.branches,
                      objective=args.objective, requantize=args.requantize,
                      sums=args.sums, maximum_bits=args.maximum_bits, linear_maximum_bits=args.linear_maximum_bits,
                      combine=args.combine)
    try:
        for layer in layers:
            neurons.mac(layer), neurons.bm(layer)
    except ValueError as error:
        raise UsageError(str(error)) from error
    jobs = jobs_from(args.jobs)
    time_limit = time_limit_from(args.time_limit)
    if args.json is not None:
        check_writable(args.json)
    engine = Engine(args.engine, time_limit)
    cache = Cache(None if args.no_cache else cache_folder())
    library = load_library(args.liberty, cache) if args.liberty else None
    measurement = LayerMeasurement(neurons, BlockMapper(engine, cache), cache, library, time_limit)
    with shares("measuring layers") as progress:
        rows = measurement.measure(layers, jobs, progress)
    result = {
        "command": stated_command("bmhw.layers", sys.argv[1:] if argv is None else argv),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "network": args.network, "mac_bits": neurons.mac_bits, "mac_weight_bits": neurons.mac_weight_bits,
        "bm_bits": neurons.bm_bits, "log_bits": neurons.log_bits, "log_fraction": neurons.log_fraction,
        "branches": neurons.branches, "objective": neurons.objective, "requantize": neurons.requantize,
        "sums": neurons.sums, "maximum_bits": neurons.maximum_bits,
        "linear_maximum_bits": neurons.linear_maximum_bits, "combine": neurons.combine,
        "layers": rows, "total": totals(rows), "claim": CLAIM,
        "method": {**_METHOD, "abc_scripts": {script: ABC_GATES[script] for script in SCRIPTS[neurons.objective]},
                   **(_cell_method(library, neurons.objective) if library else {})},
        "tools": tools(engine, measurement.yosys),
    }
    result["total"] = result["total"] and {
        **result["total"], "by_output": {output: totals(row for row in rows if row["output"] == output)
                                         for output in ("code", "linear")}}
    if library:
        result["liberty"] = library.describe(whole_paths=False)
    if deliver_json(result, args.json):
        return 0
    _print(result)
    return 0


def _cell_method(library: Library, objective: str) -> dict[str, Any]:
    """How a library's cells are chosen: by size only where it knows delays."""
    scripts = {"abc_liberty_scripts": {script: library.scripts[script] for script in SCRIPTS[objective]}}
    sizing = f"of cells, block by block too: once in the joined netlist, by {ABC_SIZING}"
    return {**scripts, "sizing": sizing} if library.timed else scripts


def _chosen(layers: tuple[Layer, ...], names: str | None) -> list[Layer]:
    if names is None:
        return list(layers)
    known = {layer.name: layer for layer in layers}
    wanted = names.split(",")
    for name in wanted:
        if name not in known:
            raise UsageError(not_one_of("Layer", known, name))
    return [known[name] for name in known if name in wanted]


# -- the table

# What a library adds, by its key in the JSON.
_UNITS = {"area_gate_equivalents": "GE", "delay_ns": "ns"}


def _print(result: dict[str, Any]) -> None:
    cells = ["area_gate_equivalents"] if "liberty" in result else []
    cells += ["delay_ns"] if cells and "no_delays" not in result["liberty"] else []
    fraction = result["log_fraction"]
    usual = result["log_bits"] is None and fraction is None
    codes = "" if usual else f", log codes {code_width(result['log_bits'] or result['bm_bits'], fraction)}"
    weights = f" x {result['mac_weight_bits']}" if result["mac_weight_bits"] else ""
    title = (f"{result['network']}: MAC {result['mac_bits']}{weights} bits, requantised by {result['requantize']}, "
             f"against BM {result['bm_bits']} bits{codes}, {result['branches']}{_sums(result)}; objective "
             f"{result['objective']}")
    table = plain_table()
    for heading in ("layer", "layout", "output"):
        table.add_column(heading)
    extra = [_UNITS[name] for name in cells]
    figures = ["gates", "depth", *extra]
    for heading in ("fan-in", "outputs", *(f"{n} {f}" for n in ("MAC", "BM") for f in figures),
                    "layer MAC gates", "layer BM gates", "gates ratio", "path ratio",
                    *(f"{unit} ratio" for unit in extra)):
        table.add_column(heading, justify="right")
    table.add_column("MAC architecture")
    table.add_column("BM architecture")
    for row in result["layers"]:
        start = [row["name"], row["layout"], row["output"], f"{row['fan_in']:,}", str(row["outputs"])]
        if row["ratio"] is None:
            # behind the figures, where the table has room for words
            table.add_row(*start, *[""] * (len(table.columns) - len(start) - 1), row["error"])
            continue
        mac, bm = row["mac"], row["bm"]
        table.add_row(*start, *_figures(mac, cells), *_figures(bm, cells), f"{mac['layer']['gates']:,}",
                      f"{bm['layer']['gates']:,}", *_ratios(row["ratio"], cells),
                      *(", ".join([*neuron["architecture"].values(), f"script for {neuron['script']}"])
                        for neuron in (mac, bm)))
    total = result["total"]
    if total:
        table.add_section()
        measured = f"{total['layers_measured']} of {len(result['layers'])} layers"
        empty = [""] * (2 * len(figures) + 2)
        for name, part in (("code", total["by_output"]["code"]), ("linear", total["by_output"]["linear"]),
                           (measured, total)):
            if part:
                line = list(empty)
                line[1], line[1 + len(figures)] = (f"{part[n]['depth']:,}" for n in ("mac", "bm"))
                line[-2:] = [f"{part[n]['gates']:,}" for n in ("mac", "bm")]
                if "delay_ns" in cells:
                    line[3], line[3 + len(figures)] = (f"{part[n]['delay_ns']:.2f}" for n in ("mac", "bm"))
                table.add_row(f"total, {name}", "", "", "", "", *line, *_ratios(part["ratio"], cells), style="bold")
    claim = result["claim"]
    gates, depth = ("{:.2f} to {:.2f}".format(*claim[name]) for name in ("gates", "depth"))
    table.add_row(f"claim of {claim['source']}", *[""] * (4 + 2 * len(figures) + 2), gates, depth, style="italic")
    console = Console(highlight=False)
    console.print(Text(title, style="bold"), soft_wrap=True)
    print_whole(table)
    method, tool = result["method"], result["tools"]
    for line in (f"Ratios: {method['ratio']}. Boundary: {method['boundary']}.",
                 f"Gates: {method['gates']}. Mapping: {method['mapping']}. Depth: {method['depth']}.",
                 *filter(None, [left_out(result.get("liberty"))]),
                 f"bmhw {tool['bmhw']}, {tool['engine']} ({tool['yosys']}), amaranth {tool['amaranth']}, "
                 f"Python {tool['python']}."):
        console.print(Text(line, style="dim"))


def _sums(result: dict[str, Any]) -> str:
    """What the BM layers' sums and maxima do without, if anything."""
    words = ["clamped sums"] if result["sums"] == "clamped" else []
    words += [f"maxima of {result['maximum_bits']} bits"] if result["maximum_bits"] else []
    fewer = result["linear_maximum_bits"]
    words += [f"of {fewer} bits before a linear result"] if fewer else []
    return "".join(f", {word}" for word in words)


def _figures(neuron: dict[str, Any], cells: list[str]) -> list[str]:
    return [f"{neuron['gates']:,}", str(neuron["depth"]),
            *(f"{neuron[name]:,.0f}" if name == "area_gate_equivalents" else f"{neuron[name]:.2f}" for name in cells)]


def _ratios(ratio: dict[str, float], cells: list[str]) -> list[str]:
    return [f"{ratio[name]:.2f}" for name in ("gates", "depth", *cells)]


if __name__ == "__main__":
    run(main)
