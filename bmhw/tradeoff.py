# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.tradeoff``: what a neuron costs in hardware, against what its trained network classifies right."""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.scripts import OBJECTIVES
from bmhw.hdl.formats.choices import REQUANTIZATIONS
from bmhw.measure.layers import FLAT_INPUTS
from bmhw.measure.neurons import tools
from bmhw.show.progress import shares

from .command_line import Parser, RunError, UsageError, run
from .options import jobs_from, jobs_option, number, run_options, stated_command, time_limit_from

__all__ = ["main", "parser"]

_DESCRIPTION = """\
What a neuron costs in hardware, against what its trained network classifies right.

For each trained network one neuron of --inputs inputs with the network's own number formats, from activation code
to activation code and from activation code to the linear result that a residual sum takes: the best architecture
known, as in bmhw.layers. A network is on the frontier if no other one is at least as accurate with at most as many
gates on at most as long a path, by the neuron that gives a code."""


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
        from bmhw.measure.tradeoff import measure, networks
        from bmhw.models.files.store import WEIGHTS
        from bmhw.show.tradeoff import print_tradeoff

        found = networks(args.folders or [WEIGHTS], args.dataset, args.architecture)
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    engine, cache = Engine(args.engine, time_limit), Cache(None if args.no_cache else cache_folder())
    with shares("measuring neurons") as progress:
        rows, version = measure(found, args.inputs, args.objective, args.requantize, engine, cache, jobs, progress)
    result = {
        "command": stated_command("bmhw.tradeoff", sys.argv[1:] if argv is None else argv),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "dataset": args.dataset, "architecture": args.architecture, "inputs": args.inputs,
        "objective": args.objective, "requantize": args.requantize, "networks": rows,
        "tools": tools(engine, version),
    }
    if deliver_json(result, args.json):
        return 0
    print_tradeoff(result)
    return 0


if __name__ == "__main__":
    run(main)
