# SPDX-License-Identifier: Apache-2.0
"""Trained networks beside their neurons' hardware, as rows and as a table for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bmhw.measure.tradeoff import FIGURES, OUTPUTS

from .tables import plain_table, print_whole, widths

__all__ = ["HEADINGS", "cells", "label", "print_tradeoff"]

HEADINGS = ("network", "neuron", "right, %", "gates", "path", "gates, linear", "path, linear")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A network under :data:`HEADINGS`."""
    return [row["name"], label(row), f"{row['accuracy']:.2f}",
            *(f"{row[output][name]:,}" for output in OUTPUTS for name in FIGURES)]


def print_tradeoff(result: Mapping[str, Any]) -> None:
    table = plain_table()
    for index, heading in enumerate(("", *HEADINGS)):
        table.add_column(heading, justify="left" if index < 3 else "right", no_wrap=True)
    for row in result["networks"]:
        best = row["on_frontier"]
        table.add_row("*" if best else "", *cells(row), style="bold" if best else None)
    title = (f"{result['dataset']}, {result['architecture']}: a neuron of {result['inputs']} inputs, from code to code "
             f"and from code to linear result; objective {result['objective']}")
    tool = result["tools"]
    notes = ("*: no other network is at least as accurate with at most as many gates on at most as long a path.",
             f"bmhw {tool['bmhw']}, {tool['engine']} ({tool['yosys']}), amaranth {tool['amaranth']}.",
             "Next: all layers of a network beside MAC layers: python -m bmhw.layers --network resnet20v2")
    console = Console(highlight=False)
    console.print(title, style="bold", soft_wrap=True)
    print_whole(table)
    for note in notes:
        console.print(note, style="dim", soft_wrap=True)


def label(row: Mapping[str, Any]) -> str:
    """A network's neuron in words: widths of codes and maxima, sums, ends."""
    if row["neuron"] == "mac":
        return f"MAC {widths(row)} bits"
    maxima = ", ".join(map(str, row["maximum_bits"]))
    return f"BM {row['layout']} {widths(row)}:{maxima} bits, {row['sums'][0]} sums, {row['ends'][0]} ends"
