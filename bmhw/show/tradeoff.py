# SPDX-License-Identifier: Apache-2.0
"""Trained networks beside what they cost in hardware, as rows and as tables for people."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from bmhw.measure.tradeoff import FIGURES, FRONTIERS, KEPT_BITS, OUTPUTS
from bmhw.models.networks.groups import GroupInputs, from_json, has_groups

from .tables import plain_table, print_whole, widths

__all__ = [
    "FAMILIES", "MEANINGS", "cells", "frontier_lines", "headings", "label", "network_family", "print_layers",
    "print_tradeoff",
]

MEANINGS = (
    "LUTs: the mean element of the network's layers, weighted by their multiply-accumulates, as a folded design has "
    "them; each layer's cheapest element of its own format with its share of the ends, after synthesis, without DSP "
    "blocks and block RAM. Weights: those of all layers, in 1,000 bits.",
    "Gates and path: a parallel neuron of {inputs} inputs with the network's number formats, from activation code to "
    "activation code and to the linear result that a residual sum takes; of a mixed network the mean gates, weighted "
    "by the multiply-accumulates, and the longest path; objective {objective}, MAC requantised by a {requantize}.",
)
"""What the columns are, to be filled from a result."""

FAMILIES = ("MAC", "BM, one group", "BM, grouped", "mixed")


def network_family(row: Mapping[str, Any]) -> str:
    """One of :data:`FAMILIES`."""
    if row["neuron"] == "bm":
        return FAMILIES[2 if has_groups(from_json(row["groups"])) else 1]
    return FAMILIES[0 if row["neuron"] == "mac" else 3]


def headings(result: Mapping[str, Any]) -> tuple[str, ...]:
    chips = [heading for chip in _chips(result["networks"]) for heading in (f"LUTs, {chip}", "of ends")]
    return ("network", "neuron", "right, %", "seeds", *chips, "weights, kbit", "gates", "path", "gates, linear",
            "path, linear")


def _chips(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(rows[0]["elements"])


def cells(row: Mapping[str, Any], mark: Callable[[str], str] = "{}*".format) -> list[str]:
    """A network under :func:`headings`; ``mark``: a figure that is on its frontier."""

    def figure(text: str, frontier: str) -> str:
        return mark(text) if row["frontiers"][frontier] else text

    elements = [cell for chip, found in row["elements"].items()
                for cell in (figure(f"{found['luts']:.1f}", chip), f"{found['of_ends']:.1f}")]
    neurons = [f"{row[output][name]:,}" for output in OUTPUTS for name in FIGURES]
    code = len(FIGURES)
    return [row["name"], label(row), f"{row['accuracy']:.2f}", _seeds(row), *elements,
            figure(f"{row['weight_kbit']:,.0f}", "weights"), *(figure(text, "neuron") for text in neurons[:code]),
            *neurons[code:]]


def _seeds(row: Mapping[str, Any]) -> str:
    """How many there are; of several their accuracies' mean and standard deviation."""
    if "mean" not in row:
        return str(len(row["seeds"]))
    return f"{len(row['seeds'])}: {row['mean']:.2f} ± {row['standard_deviation']:.2f}"


def frontier_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each frontier, how many of the BM, the mixed and the MAC networks are on it."""
    meant = {"neuron": "gates and path", "weights": "bits of weights"}
    lines = []
    for name in FRONTIERS:
        counts = []
        for neuron, words in (("bm", "BM"), ("mixed", "mixed"), ("mac", "MAC")):
            same = [row for row in rows if row["neuron"] == neuron]
            best = sum(row["frontiers"][name] for row in same)
            if same:
                counts.append(f"{best or 'none'} of {len(same)} {words}")
        lines.append(f"On the frontier of {meant.get(name, f'LUTs, {name}')}: {', '.join(counts)}.")
    return lines


def print_tradeoff(result: Mapping[str, Any]) -> None:
    rows, tool = result["networks"], result["tools"]
    table = plain_table()
    for index, heading in enumerate(headings(result)):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row), style="bold" if any(row["frontiers"].values()) else None)
    notes = (*(text.format(**result) for text in MEANINGS),
             "*: on the frontier: no other network is at least as accurate with at most as much of it.",
             *frontier_lines(rows), _versions(tool),
             f"Next: what each layer costs: python -m bmhw.tradeoff --dataset {result['dataset']} --architecture "
             f"{result['architecture']} --layers {rows[0]['name']}")
    console = Console(highlight=False)
    console.print(f"{result['dataset']}, {result['architecture']}", style="bold", soft_wrap=True)
    print_whole(table)
    for note in notes:
        console.print(note, style="dim", soft_wrap=True)


def print_layers(result: Mapping[str, Any]) -> None:
    """What each layer of a network costs as it is, and as a MAC of a few bits."""
    rows = result["layers"]
    chips = list(rows[0]["elements"])
    table = plain_table()
    for heading in ("layer", "neuron"):
        table.add_column(heading, no_wrap=True)
    for heading in ("fan-in", "groups", "work, %",
                    *(heading for chip in chips for heading in (f"LUTs, {chip}", f"MAC {KEPT_BITS}", "adds")),
                    "weights, kbit", f"MAC {KEPT_BITS}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        mac = row["as_mac"]
        luts = [cell for chip in chips for cell in (
            f"{row['elements'][chip]['luts']:.1f}", f"{mac['elements'][chip]['luts']:.1f}",
            f"{row['price'][chip]:+.2f}")]
        table.add_row(row["name"], row["neuron"].upper(), str(row["fan_in"]), str(row["groups"]),
                      f"{100 * row['share_of_work']:.1f}", *luts, f"{row['weight_kbit']:,.1f}",
                      f"{mac['weight_kbit']:,.1f}")
    console = Console(highlight=False)
    console.print(f"{result['network']}: its layers, and what each costs as a MAC of {KEPT_BITS} bits", style="bold",
                  soft_wrap=True)
    print_whole(table)
    for note in (
        "LUTs: of the layer's element with its share of the ends. Adds: what keeping the layer classical adds to the "
        "network's mean element, which is weighted by work, or with a minus saves of it; the cheapest first.",
        _versions(result["tools"]),
        "Next: what it gives back: python -m bmhw.train --mac-layers NAME,... trains such a network",
    ):
        console.print(note, style="dim", soft_wrap=True)


def _versions(tool: Mapping[str, str]) -> str:
    return f"bmhw {tool['bmhw']}, {tool['engine']} ({tool['yosys']}), amaranth {tool['amaranth']}."


def label(row: Mapping[str, Any]) -> str:
    """A network's neuron in words: widths of codes and maxima, sums, ends, groups, edges; MAC layers by their names."""
    edges = f", edges {row['edge_bits']} bits" if row["edge_bits"] else ""
    if row["neuron"] == "mac":
        return f"MAC {widths(row)} bits{edges}"
    maxima = ", ".join(map(str, row["maximum_bits"]))
    groups = from_json(row["groups"])
    in_groups = f" in groups {groups}" if isinstance(groups, GroupInputs) else f" in {groups} groups"
    mac = row["mac_layers"]
    kept = f"; MAC {', '.join(map(str, row['mac_weight_bits']))} bits: {', '.join(mac)}" if mac else ""
    return (f"BM {row['layout']} {widths(row)}:{maxima} bits{in_groups if has_groups(groups) else ''}, "
            f"{row['sums'][0]} sums, {row['ends'][0]} ends{edges}{kept}")
