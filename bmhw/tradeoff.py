# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.tradeoff``: what networks cost in hardware, against what they classify right.

    $ python -m bmhw.tradeoff --dataset cifar10 --plot tradeoff-cifar10.svg
    $ python -m bmhw.tradeoff --dataset mnist --layers mnist-resnet20
"""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json, write_atomically
from bmhw.flow.scripts import OBJECTIVES
from bmhw.hdl.formats.choices import REQUANTIZATIONS
from bmhw.measure.layers import FLAT_INPUTS
from bmhw.measure.neurons import tools
from bmhw.show.progress import shares

from .command_line import Parser, RunError, UsageError, run
from .options import jobs_from, jobs_option, number, run_options, stated_command, time_limit_from

__all__ = ["main", "parser"]

_DESCRIPTION = """\
What networks cost in hardware, against what they classify right.

For each trained network, from its card: the lookup tables of an element with its share of the ends on two FPGAs, the
mean over its layers weighted by their work, each of the layer's own format; the bits of its weights; gates and path of
a parallel neuron of --inputs inputs. Networks of MAC, BM and mixed layers stand beside each other; a network is on a
frontier if no other one is at least as accurate with at most as much. With --layers NAME: what each layer of that
network costs, and what it would cost as a MAC of 4 bits.

  python -m bmhw.tradeoff --dataset cifar10 --plot tradeoff-cifar10.svg
  python -m bmhw.tradeoff --dataset mnist --layers mnist-resnet20"""


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("folders", nargs="*", type=Path, metavar="FOLDER",
                        help="folders with cards of networks (default: the package's and a checkout's "
                             "docs/results/cards)")
    result.add_argument("--dataset", default="mnist", help="the networks' images (default: mnist)")
    result.add_argument("--architecture", default="resnet20", help="of the networks (default: resnet20)")
    result.add_argument("--layers", metavar="NAME", help="the layers of this network in the place of all networks")
    result.add_argument("--inputs", type=number, default=FLAT_INPUTS, metavar="N",
                        help=f"inputs of the parallel neuron (default: {FLAT_INPUTS})")
    result.add_argument("--objective", choices=OBJECTIVES, default="balanced",
                        help="few gates, few gates x depth, or a short path (default: balanced)")
    result.add_argument("--requantize", choices=REQUANTIZATIONS, default="scale",
                        help="MAC neurons: a multiplication by a scale, or a power of two (default: scale)")
    result.add_argument("--plot", metavar="FILE.svg",
                        help="plot error against lookup tables and against gates (needs bmhw[report])")
    jobs_option(result, "syntheses")
    run_options(result, "synthesis")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    jobs, time_limit = _checked(args)
    try:
        from bmhw.measure.tradeoff import card_folders, measure, measure_layers, named, networks, repeated
        from bmhw.show.tradeoff import print_layers, print_tradeoff

        folders = args.folders or card_folders()
        found = networks(folders, args.dataset, args.architecture)
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    chosen = None if args.layers is None else named(found, args.layers)
    engine, cache = Engine(args.engine, time_limit), Cache(None if args.no_cache else cache_folder())
    result: dict[str, Any] = {
        "command": stated_command("bmhw.tradeoff", argv),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "dataset": args.dataset, "architecture": args.architecture, "requantize": args.requantize,
    }
    if chosen is not None:
        with shares("measuring elements") as progress:
            layers, version = measure_layers(chosen, args.requantize, engine, cache, jobs, progress)
        result |= {"network": chosen.name, "layers": layers, "tools": tools(engine, version)}
        if not deliver_json(result, args.json):
            print_layers(result)
        return 0
    with shares("measuring networks") as progress:
        rows, version = measure(found, args.inputs, args.objective, args.requantize, engine, cache, jobs, progress)
    same = repeated(folders)
    result |= {"inputs": args.inputs, "objective": args.objective,
               "networks": [row | same.get(row["name"], {}) for row in rows], "tools": tools(engine, version)}
    if args.plot is not None:
        from bmhw.show.plots import accuracy_cost

        write_atomically(args.plot, accuracy_cost(result))
    if not deliver_json(result, args.json):
        print_tradeoff(result)
    return 0


def _checked(args: Any) -> tuple[int, float]:
    """Jobs and time limit; UsageError or RunError for options that make no sense, before anything is measured."""
    jobs = jobs_from(args.jobs)
    if not isinstance(args.inputs, int) or args.inputs < 2 or args.inputs % 2:
        raise UsageError(f"Number of inputs must be an even number of 2 or more, not {args.inputs!r}")
    if args.plot is not None and (args.layers is not None or not args.plot.endswith(".svg")):
        raise UsageError(f"--plot {args.plot} shows all networks, not the layers of {args.layers}" if args.layers
                         else f"--plot must name a file that ends in .svg, not {args.plot}")
    for file in (args.json, args.plot):
        if file is not None:
            check_writable(file)
    return jobs, time_limit_from(args.time_limit)


if __name__ == "__main__":
    run(main)
