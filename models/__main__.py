# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.models list``: the networks that come with the package, or those in folders of runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bmhw.command_line import Parser, RunError, check_writable, run, write_atomically

from .errors import ModelError
from .store import WEIGHTS, list_models, read_card

COLUMNS = {
    "name": "name",
    "layouts": "layouts",
    "bits": "bits",
    "maximum_bits": "maxima",
    "classical_accuracy": "classical",
    "bm_float_accuracy": "BM float",
    "bm_integer_accuracy": "integer",
    "weights_bytes": "bytes",
}
TEXT = ("name", "layouts")


def entry(path: Path) -> dict[str, Any]:
    """What a card says in one row: accuracies in per cent on the held-out images; ``bits``: widths of the
    log codes (of the inputs, for multiply-accumulate networks); ``maximum_bits``: of the sums that the
    maxima see."""
    card = read_card(path)
    try:
        formats = list(card["layers"].values())
        bm = [fmt for fmt in formats if fmt["neuron"] == "bm"]
        figures: dict[str, Any] = {
            "name": card["name"],
            "data": card["data"]["name"],
            "layouts": sorted({fmt.get("layout", "mac") for fmt in formats}),
            "bits": sorted({fmt["log_bits"] for fmt in bm} or {fmt["bits"] for fmt in formats}),
            "maximum_bits": sorted({fmt["maximum_bits"] for fmt in bm}),
            "seed": card["training"]["seed"],
            "epochs": card["training"]["epochs"],
            "commit": card["training"]["commit"],
            "weights_bytes": card["weights"]["bytes"],
        }
        kinds = ("classical", "bm_float", "bm_integer") if bm else ("classical", "bm_integer")
        figures |= {f"{kind}_accuracy": card["accuracy"][f"{kind}_accuracy"] for kind in kinds}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"Model card {path.name} lacks {error}") from None
    return figures


def entries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of all cards in the folders, in the order of the folders and names."""
    for folder in folders:
        if not list_models(folder):
            raise RunError(f"Folder {folder} must hold cards of networks (NAME.json)")
    return [entry(folder / f"{name}.json") for folder in folders for name in list_models(folder)]


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table()
    for key, heading in COLUMNS.items():
        result.add_column(heading, justify="left" if key in TEXT else "right", no_wrap=key == "name")
    for row in rows:
        result.add_row(*(_cell(row.get(key, "")) for key in COLUMNS))
    return result


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=f"Trained networks in {WEIGHTS}, or in other folders.")
    parser.add_argument("command", choices=["list"], help="list: names, formats and accuracies")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folders with cards")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON; - is stdout")
    args = parser.parse_args(argv)
    if args.json is not None:
        check_writable(args.json)
    rows = entries(args.folders or [WEIGHTS])
    text = json.dumps(rows, indent=1) + "\n"
    if args.json == "-":
        print(text, end="")
        return 0
    if args.json is not None:
        write_atomically(Path(args.json), text)
    Console().print(table(rows))
    return 0


if __name__ == "__main__":
    run(main)
