# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.tradeoff``: what a neuron costs in hardware, against what its trained network classifies right."""

import datetime
import itertools
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.scripts import OBJECTIVES
from bmhw.flow.synthesis import in_parallel
from bmhw.hdl.formats.neurons import REQUANTIZATIONS
from bmhw.measure.frontier import unbeaten
from bmhw.measure.layers import FLAT_INPUTS, LayerMeasurement, Neurons
from bmhw.measure.networks import Layer
from bmhw.measure.neurons import tools
from bmhw.show.progress import shares
from bmhw.show.tables import plain_table, print_whole, widths

from .command_line import Parser, RunError, UsageError, run
from .errors import TimeLimitError
from .options import jobs_from, jobs_option, number, run_options, stated_command, time_limit_from

__all__ = ["HEADINGS", "cells", "label", "main", "neurons_of", "on_frontier"]

_DESCRIPTION = """\
What a neuron costs in hardware, against what its trained network classifies right.

For each trained network one neuron of --inputs inputs with the network's own number formats, from activation code
to activation code and from activation code to the linear result that a residual sum takes: the best architecture
known, as in bmhw.layers. A network is on the frontier if no other one is at least as accurate with at most as many
gates on at most as long a path, by the neuron that gives a code."""

OUTPUTS = ("code", "linear")
FIGURES = ("gates", "depth")
HEADINGS = ("network", "neuron", "right, %", "gates", "path", "gates, linear", "path, linear")


def neurons_of(training: Mapping[str, Any], objective: str, requantize: str) -> Neurons:
    """The neurons of a network that was trained with these settings (``training`` of its card); what a card of an older
    version lacks has its default. RunError for formats that ``Neurons`` can't say."""
    chosen = training["quantisation"]
    for name in ("log2", "exp2"):
        if chosen.get(name) is not None:
            raise RunError(f"Only networks with the usual {name} can be measured, not with {chosen[name]!r}")
    if training["layout"] == "mac":
        return Neurons(mac_bits=chosen["bits"], mac_weight_bits=chosen.get("mac_weight_bits"), objective=objective,
                       requantize=requantize)
    return Neurons(
        bm_bits=chosen["bits"], log_bits=chosen["log_bits"], log_fraction=chosen.get("log_fraction"),
        branches="relu" if training["layout"] == "auto" else training["layout"], objective=objective,
        sums=chosen.get("sums", "full"), maximum_bits=chosen.get("maximum_bits"),
        linear_maximum_bits=chosen.get("linear_maximum_bits"), combine=chosen.get("combine", "linear"))


def on_frontier(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether no other row is at least as good in accuracy, gates and depth and better in one of them."""
    return unbeaten([(-row["accuracy"], *(row["code"][name] for name in FIGURES)) for row in rows])


def networks(
    folders: Sequence[Path], dataset: str, architecture: str
) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """(what ``cards.entry`` says, training settings) of each network of that kind; UsageError where there is none."""
    from bmhw.models.files.cards import card_paths, entry
    from bmhw.models.files.store import read_card

    found = [(entry(path), read_card(path)["training"]) for path in card_paths(folders)]
    kinds = sorted({(row["data"], row["architecture"]) for row, _ in found})
    if (dataset, architecture) not in kinds:
        raise UsageError(f"--dataset and --architecture must be one of {', '.join(map(' '.join, kinds))}, "
                         f"not {dataset} {architecture}")
    return [pair for pair in found if (pair[0]["data"], pair[0]["architecture"]) == (dataset, architecture)]


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("folders", nargs="*", type=Path, metavar="FOLDER",
                        help="folders with cards of networks (default: the package's)")
    result.add_argument("--dataset", default="mnist", help="the networks' images (default: mnist)")
    result.add_argument("--architecture", default="resnet20", help="of the networks (default: resnet20)")
    result.add_argument("--inputs", type=number, default=FLAT_INPUTS, metavar="N",
                        help=f"inputs of the neuron (default: {FLAT_INPUTS})")
    result.add_argument("--objective", choices=OBJECTIVES, default="balanced",
                        help="few gates, few gates x depth, or a short path (default: balanced)")
    result.add_argument("--requantize", choices=REQUANTIZATIONS, default="scale",
                        help="MAC neurons: a multiplication by a scale, or a power of two (default: scale)")
    jobs_option(result, "neurons")
    run_options(result, "neuron")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(sys.argv[1:] if argv is None else argv)
    jobs = jobs_from(args.jobs)
    if not isinstance(args.inputs, int) or args.inputs < 2 or args.inputs % 2:
        raise UsageError(f"Number of inputs must be an even number of 2 or more, not {args.inputs!r}")
    time_limit = time_limit_from(args.time_limit)
    if args.json is not None:
        check_writable(args.json)
    try:
        from bmhw.models.files.store import WEIGHTS

        found = networks(args.folders or [WEIGHTS], args.dataset, args.architecture)
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    engine, cache = Engine(args.engine, time_limit), Cache(None if args.no_cache else cache_folder())
    mapper = BlockMapper(engine, cache)
    layers = [Layer(name=output, kernel=1, inputs=args.inputs, outputs=1, stride=1, nonnegative=True, output=output)
              for output in OUTPUTS]
    kinds = [(neurons_of(training, args.objective, args.requantize), _neuron(training)) for _, training in found]
    measurements = {kind: LayerMeasurement(kind[0], mapper, cache, None, time_limit) for kind in kinds}

    def measure(kind: tuple[Neurons, str], layer: Layer) -> dict[str, Any]:
        try:
            return measurements[kind].neuron(layer, kind[1])
        except TimeLimitError:
            names = [network["name"] for (network, _), other in zip(found, kinds, strict=True) if other == kind]
            raise RunError(f"The neuron of {names[0]} was not synthesised within {time_limit:g} s; --time-limit gives "
                           "it longer") from None
        finally:
            progress(1 / len(work))

    work = list(itertools.product(measurements, layers))
    with shares("measuring neurons") as progress:
        done = in_parallel(engine, [partial(measure, *one) for one in work], jobs)
    figures = {(kind, layer.name): result for (kind, layer), result in zip(work, done, strict=True)}
    version = next(measurement.yosys for measurement in measurements.values())
    rows = [_row(network, training, {output: figures[kind, output] for output in OUTPUTS})
            for (network, training), kind in zip(found, kinds, strict=True)]
    rows.sort(key=lambda row: (-row["accuracy"], row["code"]["gates"]))
    for row, best in zip(rows, on_frontier(rows), strict=True):
        row["on_frontier"] = best
    result = {
        "command": stated_command("bmhw.tradeoff", sys.argv[1:] if argv is None else argv),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "dataset": args.dataset, "architecture": args.architecture, "inputs": args.inputs,
        "objective": args.objective, "requantize": args.requantize, "networks": rows,
        "tools": tools(engine, version),
    }
    if deliver_json(result, args.json):
        return 0
    _print(result)
    return 0


def _neuron(training: Mapping[str, Any]) -> str:
    return "mac" if training["layout"] == "mac" else "bm"


def _row(
    network: Mapping[str, Any], training: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    layout = None if training["layout"] == "mac" else measured["code"]["design"]["layout"]
    return {"name": network["name"], "accuracy": network["bm_integer_accuracy"], "neuron": _neuron(training),
            "layout": layout,
            **{key: network[key]
               for key in ("bits", "log_fraction", "mac_weight_bits", "maximum_bits", "sums", "ends")},
            **{output: {key: figures[key] for key in (*FIGURES, "architecture", "script")}
               for output, figures in measured.items()}}


def cells(row: Mapping[str, Any]) -> list[str]:
    """A network under :data:`HEADINGS`."""
    return [row["name"], label(row), f"{row['accuracy']:.2f}",
            *(f"{row[output][name]:,}" for output in OUTPUTS for name in FIGURES)]


def _print(result: Mapping[str, Any]) -> None:
    table = plain_table()
    for index, heading in enumerate(("", *HEADINGS)):
        table.add_column(heading, justify="left" if index < 3 else "right", no_wrap=True)
    for row in result["networks"]:
        best = row["on_frontier"]
        table.add_row("*" if best else "", *cells(row), style="bold" if best else None)
    title = (f"{result['dataset']}, {result['architecture']}: a neuron of {result['inputs']} inputs, from code to code "
             f"and from code to linear result; objective {result['objective']}")
    tool = result["tools"]
    notes = ("*: no other network is at least as accurate with at most as many gates on at most as long a path.",
             f"bmhw {tool['bmhw']}, {tool['engine']} ({tool['yosys']}), amaranth {tool['amaranth']}.",
             "Next: all layers of a network beside MAC layers: python -m bmhw.layers --network resnet20v2")
    console = Console(highlight=False)
    console.print(title, style="bold", soft_wrap=True)
    print_whole(table)
    for note in notes:
        console.print(note, style="dim", soft_wrap=True)


def label(row: Mapping[str, Any]) -> str:
    """A network's neuron in words: widths of codes and maxima, sums, ends."""
    if row["neuron"] == "mac":
        return f"MAC {widths(row)} bits"
    maxima = ", ".join(map(str, row["maximum_bits"]))
    return f"BM {row['layout']} {widths(row)}:{maxima} bits, {row['sums'][0]} sums, {row['ends'][0]} ends"


if __name__ == "__main__":
    run(main)
