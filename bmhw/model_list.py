# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.models list``: the networks that come with the package, or those in folders of runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bmhw.flow.files import check_writable, deliver_json
from bmhw.models.files.cards import entries
from bmhw.models.files.store import WEIGHTS
from bmhw.show.tables import plain_table, widths

from .command_line import Parser, run

COLUMNS = {
    "name": "name",
    "bits": "bits",
    "maximum_bits": "maxima",
    "ends": "ends",
    "classical_accuracy": "classical",
    "bm_float_accuracy": "BM",
    "bm_integer_accuracy": "integer",
}
"""Key of a row -> its heading."""
TEXT = ("name", "ends")
WIDEST = 1000  # columns; no table is as wide


def table(rows: list[dict[str, Any]]) -> Table:
    result = plain_table()
    for key, heading in COLUMNS.items():
        text = key in TEXT
        result.add_column(heading, justify="left" if text else "right", no_wrap=True)
    for row in rows:
        result.add_row(*(widths(row) if key == "bits" else _cell(row.get(key, "")) for key in COLUMNS))
    return result


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def parser() -> Parser:
    result = Parser(description=f"Trained networks in {WEIGHTS}, or in other folders.")
    result.add_argument("command", choices=["list"], help="list: names, formats and accuracies")
    result.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folders with cards")
    result.add_argument("--json", metavar="FILE", help="write the rows as JSON; - is stdout")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.json is not None:
        check_writable(args.json)
    rows = entries(args.folders or [WEIGHTS])
    if deliver_json(rows, args.json):
        return 0
    networks, wide, console = table(rows), Console(width=WIDEST), Console()
    wide.width = wide.measure(networks).maximum  # names stay whole, to be copied, however narrow the terminal is
    wide.print(networks)
    console.print(
        "Widths in bits; accuracies on held-out images in %: classical network, BM network in floating point, "
        "integer network. All that the cards say: --json -"
    )
    console.print("Next: python -m bmhw.evaluate --model NAME [--data DIR]", markup=False)
    return 0


if __name__ == "__main__":
    run(main)
