# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.synth``: how many gates a neuron takes, where they go, and which path is critical."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.liberty import load_library
from bmhw.measure.neurons import compare, figures, measure
from bmhw.measure.pipelining import pipelined
from bmhw.show.progress import waiting
from bmhw.show.tables import print_comparison, print_neuron, print_versions

from .command_line import Parser, run
from .options import (
    comparison_options,
    design_options,
    designs_from,
    liberty_option,
    pipeline_options,
    run_options,
    time_limit_from,
)

__all__ = ["main"]

_EXAMPLES = f"""
examples:
  python -m bmhw.synth --bits 8 --neuron bm
      gates, depth and parts of a bipolar morphological neuron with nine 8-bit inputs
  python -m bmhw.synth --compare --mac-bits 8 --bm-bits 5 --inputs 64 --liberty cells.lib.gz --json out.json
      both neurons at unequal widths, also in gate equivalents and ns of a cell library
  python -m bmhw.synth --compare --boundary layer --bits 4 --inputs 64 --branches signed --groups 4
      from code to code, the maxima in four groups of 16 inputs whose exponentials are added

Results are kept in {cache_folder()}, which can always be deleted;
BMHW_CACHE_DIR names another folder for it.
"""


def parser() -> Parser:
    result = Parser(
        description="Generate a neuron, map it with Yosys and abc, and print what it costs: gates,\n"
                    "flip-flops, depth, part by part.", epilog=_EXAMPLES)
    design_options(result)
    pipeline_options(result, stage_depth=True)
    synthesis = result.add_argument_group("synthesis")
    liberty_option(synthesis)
    comparison_options(synthesis)
    run_options(synthesis, "run of Yosys")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    designs = designs_from(args)
    if args.json is not None:
        check_writable(args.json)
    engine = Engine(args.engine, time_limit_from(args.time_limit))
    cache = Cache(None if args.no_cache else cache_folder())
    with waiting("generating and mapping"), engine.stopping():
        mapped = partial(figures, objective=args.objective, engine=engine, cache=cache)
        designs = [pipelined(design, args, lambda every: mapped(every, by_parts=True).stages,
                             lambda chosen: mapped(chosen, by_parts=False).depth) for design in designs]
        library = load_library(args.liberty, cache) if args.liberty else None
        # the BM neuron first: it is generated sooner, and mapped while the MAC neuron is generated
        neurons = measure(designs[::-1], args.objective, engine, cache, library)[::-1]
    result = compare(*neurons) if args.compare else neurons[0]
    if deliver_json(result, args.json):
        return 0
    _print(neurons, result, args, argv)
    return 0


def _print(neurons: list[dict[str, Any]], result: dict[str, Any], args: Any, argv: Sequence[str]) -> None:
    console = Console(highlight=False)
    for neuron in neurons:
        print_neuron(console, neuron)
        console.print()
    if args.compare:
        print_comparison(console, result)
        console.print()
    print_versions(console, neurons)
    console.print(f"Next: {_advice(args, argv)}", style="bold", soft_wrap=True)


def _advice(args: Any, argv: Sequence[str]) -> str:
    """One thing to try next, as a command that continues this one."""
    command = shlex.join(["python", "-m", "bmhw.synth", *argv])
    if not args.compare:
        return f"set it against the other neuron: {command} --compare"
    if args.objective == "area":
        return f"the shortest path instead of the fewest gates: {command} --objective delay"
    if not args.liberty:
        return f"in the cells of your process: {command} --liberty FILE"
    return "the Verilog with its bench: python -m bmhw.export --out DIR, with the same design options"


if __name__ == "__main__":
    run(main)
