# SPDX-License-Identifier: Apache-2.0
"""The figures of ``bmhw.accuracy`` as tables, in a terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from bmhw.models.files.cards import HISTORY

from .tables import plain_table, widths

__all__ = ["curves", "drawn", "markdown", "page", "tables"]

COLUMNS = {
    "name": "network",
    "bits": "bits",
    "maximum_bits": "maxima",
    "sums": "sums",
    "ends": "ends",
    "classical_accuracy": "classical",
    "bm_float_accuracy": "BM float",
    "integer_accuracy": "integer",
}

Tables = dict[str, tuple[tuple[str, ...], list[list[str]]]]


def tables(figures: Mapping[str, Any]) -> Tables:
    """Title -> (headings, rows of cells) of what people read; the first column is text, the others numbers."""
    result: Tables = {}
    accuracies = [[widths(row) if key == "bits" else _cell(row.get(key)) for key in COLUMNS]
                  for row in figures["networks"]]
    by_name = {row["name"]: row for row in figures["networks"]}
    result["Accuracy in % on the held-out images"] = tuple(COLUMNS.values()), accuracies
    equal = []
    for row in figures["equal_accuracy"]:
        mac_bits = "none" if row["mac"] is None else widths(by_name[row["mac"]])
        if mac_bits == widths(by_name[row["narrowest_mac"]]):
            mac_bits += " or fewer"
        equal.append([row["bm"], _cell(row["bm_accuracy"]), mac_bits, _cell(row["mac_accuracy"])])
    if equal:
        headings = ("BM network", "%", "MAC bits", "%")
        result["The narrowest MAC network that is at least as accurate"] = headings, equal
    repeated = [[row["networks"][0], _cell(row["method"]), str(len(row["seeds"])),
                 *(_spread(row.get(key)) for key in ("bm_float_accuracy", "integer_accuracy"))]
                for row in figures["repeats"]]
    if repeated:
        headings = ("first network", "method", "seeds", "BM float", "integer")
        result["Alike but for the seed: mean and standard deviation, %"] = headings, repeated
    return result


def curves(figures: Mapping[str, Any]) -> Tables:
    """The epochs of every network whose card tells them."""
    headings = tuple(HISTORY[:-1])
    return {
        f"Epochs of {row['name']}": (headings, [[_cell(event[key]) for key in headings] for event in row["history"]])
        for row in figures["networks"]
        if row["history"]
    }


def drawn(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    result = plain_table()
    for index, heading in enumerate(headings):
        result.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        result.add_row(*row)
    return result


def markdown(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _spread(values: Mapping[str, float] | None) -> str:
    return "" if values is None else f"{values['mean']:.2f} ± {values['standard_deviation']:.2f}"


def page(figures: Mapping[str, Any], plot: str | None) -> str:
    """All tables and learning curves as one page of Markdown; ``plot``: where the plot lies as seen from it."""
    parts = ["# Accuracy against width", "", f"Written by `python -m bmhw.accuracy`, {figures['date']}.", ""]
    if plot is not None:
        parts += [f"![Error against width, and learning curves]({plot})", ""]
    every = tables(figures) | curves(figures)
    parts += [markdown(title, headings, cells) for title, (headings, cells) in every.items()]
    return "\n".join(parts)
