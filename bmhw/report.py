# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.report``: tables and plots of what ``bmhw.layers``, ``bmhw.tradeoff`` and ``bmhw.explore`` measured.

Reads every ``layers-*.json`` and ``tradeoff-*.json`` of a folder and the table of architectures that ships with the
package; writes ``README.md``, ``gates-depth.svg`` and ``tradeoff-*.svg`` beside them. No figure comes from anywhere
else.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bmhw.flow.files import check_own, reading, write_atomically
from bmhw.show.plots import accuracy_cost, gates_depth
from bmhw.show.report import PAGE_MARK, PAGE_PLOT, PLOT_MARK, markdown, read, read_tradeoffs

from .command_line import Parser, run

__all__ = ["main", "parser"]


def parser() -> Parser:
    result = Parser(description="Write the tables and the plots of measured layers, networks and architectures.")
    result.add_argument("--folder", type=Path, default=Path("docs/results"), metavar="DIR",
                        help="where the results lie (default: docs/results)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(sys.argv[1:] if argv is None else argv)
    results, tradeoffs = read(args.folder), read_tradeoffs(args.folder)
    of_tradeoffs = {Path(result["file"]).with_suffix(".svg").name: result for result in tradeoffs}
    check_own(args.folder / "README.md", PAGE_MARK, "bmhw.report")
    for name in (PAGE_PLOT, *of_tradeoffs):
        check_own(args.folder / name, PLOT_MARK, "bmhw.report")
    plots = {PAGE_PLOT: gates_depth()}
    for name, result in of_tradeoffs.items():
        with reading(args.folder / result["file"], "result of bmhw.tradeoff"):
            plots[name] = accuracy_cost(result)
    for name, plot in plots.items():
        write_atomically(args.folder / name, plot)
    write_atomically(args.folder / "README.md", markdown(results, tradeoffs))
    print(f"{args.folder / 'README.md'} and {', '.join(plots)}, from {len(results) + len(tradeoffs)} runs")
    return 0


if __name__ == "__main__":
    run(main)
