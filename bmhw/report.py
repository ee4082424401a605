# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.report``: tables and plots of what ``bmhw.layers``, ``bmhw.tradeoff``, ``bmhw.explore`` and
``bmhw.fpga --model`` measured.

Reads every ``layers-*.json``, ``tradeoff-*.json`` and ``chips/*.json`` of a folder and the table of architectures that
ships with the package; writes ``README.md``, ``gates-depth.svg``, ``tradeoff-*.svg`` and, of chips, ``networks.json``,
``networks.md`` and ``networks.svg`` beside them. No figure comes from anywhere else.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bmhw.flow.files import check_own, reading, write_atomically
from bmhw.show.plots import accuracy_cost, chip_cells, gates_depth
from bmhw.show.report import PAGE_MARK, PAGE_PLOT, PLOT_MARK, markdown, read, read_tradeoffs

from .command_line import Parser, RunError, run

__all__ = ["main", "parser"]

JSON_MARK = "python -m bmhw.report"


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
    networks = _networks(args.folder)
    plots = {PAGE_PLOT: gates_depth()}
    for name, result in of_tradeoffs.items():
        with reading(args.folder / result["file"], "result of bmhw.tradeoff"):
            plots[name] = accuracy_cost(result)
    for name, plot in plots.items():
        write_atomically(args.folder / name, plot)
    write_atomically(args.folder / "README.md", markdown(results, tradeoffs))
    for name, text in networks.items():
        write_atomically(args.folder / name, text)
    print(f"{args.folder / 'README.md'} and {', '.join((*plots, *networks))}, from "
          f"{len(results) + len(tradeoffs)} runs")
    return 0


def _networks(folder: Path) -> dict[str, str | bytes]:
    """What is written of placed networks: name -> text; nothing where there are none."""
    if not (folder / "chips").is_dir():
        return {}
    try:
        from bmhw.show.chips import KINDS, figures, page, read_chips
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    found = figures(read_chips(folder))
    if not found["networks"]:
        return {}
    for name, mark in (("networks.json", JSON_MARK), ("networks.md", PAGE_MARK), ("networks.svg", PLOT_MARK)):
        check_own(folder / name, mark, "bmhw.report")
    return {"networks.json": json.dumps({"command": JSON_MARK, **found}, indent=1) + "\n",
            "networks.md": page(found, PAGE_MARK, "networks.svg"),
            "networks.svg": chip_cells(found, KINDS)}


if __name__ == "__main__":
    run(main)
