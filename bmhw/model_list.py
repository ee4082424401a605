# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.models``: the networks that come with the package, or those in folders of runs, listed or packed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bmhw.flow.files import check_writable, deliver_json
from bmhw.models.files.cards import card_paths, entries
from bmhw.models.files.store import WEIGHTS, repack
from bmhw.show.tables import plain_table, widths

from .command_line import Parser, UsageError, run

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


_EXAMPLES = """
examples:
  bmhw models list models/weights docs/results/cards
      all networks of a checkout, those too of which only the card is kept
  bmhw models repack runs/mnist
      what an older version trained into that folder, in about half its bytes
"""


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
    result = Parser(description=f"Trained networks in {WEIGHTS}, or in other folders.", epilog=_EXAMPLES)
    result.add_argument("command", choices=["list", "repack"],
                        help="list: names, formats and accuracies; repack: write weights of older versions anew, the "
                             "same integers in fewer bytes")
    result.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folders with cards")
    result.add_argument("--json", metavar="FILE", help="write the rows as JSON; - is stdout")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.json is not None:
        check_writable(args.json)
    return repack_all(args.folders, args.json) if args.command == "repack" else show(args.folders, args.json)


def repack_all(folders: Sequence[Path], json_file: str | None) -> int:
    if not folders:
        raise UsageError("repack needs the folders of the networks")
    rows = []
    for card in card_paths(folders):
        weights = card.with_suffix(".safetensors")
        if weights.is_file():
            before = weights.stat().st_size
            rows.append({"name": repack(card).stem, "bytes_before": before, "bytes": weights.stat().st_size})
    if not deliver_json(rows, json_file):
        for row in rows:
            print(f"{row['name']}: {row['bytes']:,} bytes, {row['bytes_before']:,} before")
    return 0


def show(folders: Sequence[Path], json_file: str | None) -> int:
    rows = entries(folders or [WEIGHTS])
    if deliver_json(rows, json_file):
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
