# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.models list``: the networks that come with the package."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from .errors import ModelError
from .store import WEIGHTS, card_path, list_models, read_card


def table() -> Table:
    result = Table(title="Trained networks", title_justify="left")
    for heading, justify in (("name", "left"), ("data", "left"), ("layers", "right"), ("layouts", "left"),
                             ("classical %", "right"), ("BM float %", "right"), ("BM integer %", "right"),
                             ("log bits", "right"), ("KB", "right")):
        result.add_column(heading, justify=justify)
    for name in list_models():
        card = read_card(card_path(name))
        formats, accuracy = card["layers"].values(), card["accuracy"]
        layouts = sorted({entry.get("layout", "mac") for entry in formats})
        widths = sorted({entry["log_bits"] for entry in formats if "log_bits" in entry})
        figures = (accuracy[f"{kind}_accuracy"] for kind in ("classical", "bm_float", "bm_integer"))
        result.add_row(name, card["data"]["name"], str(len(card["layers"])), ", ".join(layouts),
                       *(f"{figure:.2f}" for figure in figures), ", ".join(map(str, widths)),
                       f"{card['weights']['bytes'] / 1e3:.0f}")
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bmhw.models", description=f"Trained networks in {WEIGHTS}.")
    parser.add_argument("command", choices=["list"], help="list: names, layouts and accuracies (of the cards)")
    parser.parse_args(arguments)
    try:
        Console().print(table())
    except ModelError as error:
        print(f"bmhw.models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
