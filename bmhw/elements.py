# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.elements``: what takes one input a cycle, with its share of the ends, in gates and on FPGAs."""

import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_own, check_writable, reading, write_atomically
from bmhw.flow.fpga import DEVICES, NextPnr
from bmhw.flow.liberty import load_library
from bmhw.hdl.checks import check_range
from bmhw.measure.element_cells import CHIPS
from bmhw.measure.elements import FAN_INS, KINDS, Elements, cases, measure, ratios
from bmhw.measure.neurons import tools
from bmhw.show.element_tables import PAGE_MARK, PLOT_MARK, markdown
from bmhw.show.plots import elements as plot
from bmhw.show.progress import shares

from .command_line import Parser, UsageError, run
from .options import jobs_from, jobs_option, liberty_option, number, run_options, stated_command, time_limit_from

__all__ = ["main", "parser"]

_DESCRIPTION = """\
Measure elements, which take one activation code and one weight a cycle: BM's running maxima and MAC's accumulators,
each with the registers into which its results are copied and its share of the ends. Writes elements.json, elements.md
and elements.svg. Hours from nothing; goes on where it was stopped."""

_MOST_SEEDS = 100


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("--bits", type=number, nargs="+", default=list(range(2, 9)), metavar="B",
                        help="widths of codes, of inputs and weights, 2..16 (default: 2 to 8)")
    result.add_argument("--inputs", type=number, nargs="+", default=list(FAN_INS), metavar="N",
                        help=f"fan-ins, of {', '.join(map(str, FAN_INS))} (default: all)")
    result.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND",
                        help=f"of {', '.join(KINDS)} (default: all)")
    result.add_argument("--no-place", action="store_true", help="gates alone, no FPGA")
    result.add_argument("--seeds", type=number, default=3, metavar="N",
                        help=f"placements of each array, 1..{_MOST_SEEDS}: Fmax is their median (default: 3)")
    result.add_argument("--folder", type=Path, default=Path("docs/results"), metavar="DIR",
                        help="where the files go (default: docs/results)")
    result.add_argument("--redraw", action="store_true", help="measure nothing: page and plot of the folder's JSON")
    liberty_option(result)
    jobs_option(result, "rows")
    run_options(result, "run of Yosys and nextpnr")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    files = {suffix: args.folder / f"elements.{suffix}" for suffix in ("json", "md", "svg")}
    for path in files.values():
        check_writable(path)
    check_own(files["md"], PAGE_MARK, "bmhw.elements")
    check_own(files["svg"], PLOT_MARK, "bmhw.elements")
    if args.redraw:
        with reading(files["json"], "result of bmhw.elements"):
            result = json.loads(files["json"].read_text())
            page, picture = markdown(result), plot(result)
    else:
        result = _measured(args, argv)
        page, picture = markdown(result), plot(result)
        write_atomically(files["json"], json.dumps(result, indent=1) + "\n")
    write_atomically(files["md"], page)
    write_atomically(files["svg"], picture)
    print(f"{files['md']} and elements.svg, {len(result['elements'])} elements")
    return 0


def _measured(args: Any, argv: Sequence[str]) -> dict[str, Any]:
    try:
        for fan_in in args.inputs:
            if fan_in not in FAN_INS:
                raise ValueError(f"Fan-in must be one of {', '.join(map(str, FAN_INS))}, not {fan_in!r}")
        check_range("Number of seeds", args.seeds, 1, _MOST_SEEDS)
        work = list(cases(args.bits, args.inputs, [KINDS[name] for name in args.kinds]))
        for case in work:
            _ = case.format
    except ValueError as error:
        raise UsageError(str(error)) from None
    jobs, limit = jobs_from(args.jobs), time_limit_from(args.time_limit)
    cache = Cache(None if args.no_cache else cache_folder())
    engine = Engine(args.engine, limit)
    library = load_library(args.liberty, cache) if args.liberty else None
    chips = {} if args.no_place else {chip.device: NextPnr(DEVICES[chip.device], limit) for chip in CHIPS.values()}
    elements = Elements(engine, cache, library, tuple(range(1, args.seeds + 1)), chips)
    with shares("measuring elements") as progress:
        rows, yosys = measure(work, elements, jobs, progress)
    return {
        "command": stated_command("bmhw.elements", argv),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seeds": args.seeds, "elements": rows, "ratios": ratios(rows),
        "liberty": library.describe() | {"file": [Path(file).name for file in args.liberty]} if library else None,
        "tools": tools(engine, yosys) | {f"nextpnr {nextpnr.device.family}": nextpnr.version
                                         for nextpnr in chips.values()},
    }


if __name__ == "__main__":
    run(main)
