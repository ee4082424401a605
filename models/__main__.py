# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.models list``: the networks that come with the package."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bmhw.command_line import Parser, run

from .errors import ModelError
from .store import WEIGHTS, card_path, list_models, read_card

COLUMNS = (
    ("name", "left"),
    ("layouts", "left"),
    ("layers", "right"),
    ("classical", "right"),
    ("BM float", "right"),
    ("BM integer", "right"),
    ("bits", "right"),
    ("KB", "right"),
)


def table() -> Table:
    """One row a network, from the cards: accuracies in per cent on held-out images, log code width."""
    result = Table()
    for heading, justify in COLUMNS:
        result.add_column(heading, justify=justify)
    for name in list_models():
        card = read_card(card_path(name))
        try:
            formats, accuracy = card["layers"].values(), card["accuracy"]
            layouts = sorted({entry.get("layout", "mac") for entry in formats})
            widths = sorted({entry["log_bits"] for entry in formats if "log_bits" in entry})
            figures = [accuracy[f"{kind}_accuracy"] for kind in ("classical", "bm_float", "bm_integer")]
            result.add_row(
                name,
                ", ".join(layouts),
                str(len(card["layers"])),
                *(f"{figure:.2f}" for figure in figures),
                ", ".join(map(str, widths)),
                f"{card['weights']['bytes'] / 1e3:.0f}",
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"Model card {name}.json lacks {error}") from None
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=f"Trained networks in {WEIGHTS}.")
    parser.add_argument("command", choices=["list"], help="list: names, layouts and accuracies")
    parser.parse_args(argv)
    Console().print(table())
    return 0


if __name__ == "__main__":
    run(main)
