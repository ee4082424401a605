# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.explore``: measure every architecture, for the table that ``auto`` chooses from."""

from collections.abc import Sequence
from pathlib import Path

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import ENGINES, Engine
from bmhw.flow.files import check_writable, write_atomically
from bmhw.measure.exploration import FAMILIES, SHAPES, TABLE, designs, explore, merged, table_in, table_text
from bmhw.show.progress import shares

from .command_line import Parser, UsageError, run
from .options import jobs_from, jobs_option, number

__all__ = ["main", "parser"]


def parser() -> Parser:
    result = Parser(description="Measure every architecture of both neurons and write the table that `auto` chooses\n"
                                "from. Hours from nothing; goes on where it was stopped.")
    usual = "; ".join(f"{', '.join(map(str, bits))} at {n} inputs" for n, bits in SHAPES.items())
    result.add_argument("--bits", type=number, nargs="+", metavar="B",
                        help=f"only these widths; the table keeps its rows of others (default: {usual})")
    result.add_argument("--inputs", type=number, nargs="+", metavar="N", help="only these fan-ins (default: the same)")
    result.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, metavar="F",
                        help=f"only these neurons: {', '.join(FAMILIES)} (default: all)")
    result.add_argument("--out", type=Path, default=TABLE, metavar="FILE",
                        help="the table (default: the package's own)")
    result.add_argument("--engine", choices=ENGINES, default="auto", help="which Yosys (default: auto)")
    jobs_option(result, "runs")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    shapes = [(width, n) for n in args.inputs or SHAPES
              for width in args.bits or SHAPES.get(n, sorted(set().union(*SHAPES.values())))]
    try:
        for width, n in shapes:
            next(designs(width, n))
    except ValueError as error:
        raise UsageError(str(error)) from None
    jobs = jobs_from(args.jobs)
    check_writable(args.out)
    table_in(args.out)  # its errors before hours of work
    engine = Engine(args.engine)
    with engine.stopping(), shares("measuring designs") as progress:
        table = explore(engine, Cache(cache_folder()), shapes, jobs, args.families, progress)
    table = {"command": "python -m bmhw.explore", **merged(table, args.out, shapes, args.families)}
    write_atomically(args.out, table_text(table))
    return 0


if __name__ == "__main__":
    run(main)
