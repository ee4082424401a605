# SPDX-License-Identifier: Apache-2.0
"""Measured elements as a page of tables, drawn from the dictionary that is written as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from bmhw.hdl.verilog.element_array import ELEMENTS
from bmhw.measure.elements import PLACED

from .tables import code_width

__all__ = ["PAGE_MARK", "PLOT_MARK", "markdown"]

PAGE_MARK = "<!-- written by bmhw.elements"
PLOT_MARK = "Matplotlib"

_ELEMENTS = """
An element takes one activation code and one weight a cycle. BM: a sum, a comparison, the running maxima. MAC: a product
and the accumulator, which holds all n products or, flushed, those of one group and is then added to a wider sum
elsewhere. Between its two parts each has a register. Every figure counts with the element the registers into which its
results are copied (a *cell*) and its share of the ends: what comes once a group or flush of K inputs (BM: exponentials
and a sum; MAC: a sum) serves K elements, what comes once a result of n inputs (BM: ReLU and log2; MAC: ReLU and a scale
of 8 bits) n elements. In memories, in bits: the weights, and of each element the sum that waits between groups.
"""
_PLACED_ARRAYS = """
Arrays of {elements} cells that read one activation, without DSP blocks unless they are named; the median Fmax of
{seeds} placements and their range; fan-in {inputs}, groups of {group}. *Cells*: logic cells (iCE40: a table of four
inputs, a carry and a register) or TRELLIS_COMB (ECP5), an element's part of the array. *Of a weight*: those that hold
the element's weight in the place of its memory's output; they don't count in *cells with share*. Ends are counted in
tables and not placed. Flip-flops: of the cell. Of the architectures tried, the one with the least cells x ns.
"""
_IN_GATES = """
The architecture with the least gates x depth, script `balanced`; of the ends those with the fewest gates, script
`area`. Gate equivalents count the flip-flops, not the memories.
"""


def markdown(result: Mapping[str, Any]) -> str:
    rows = result["elements"]
    placed = [row for row in rows if "placed" in row]
    return "\n".join([
        f"{PAGE_MARK}; edits are lost -->",
        "# Elements", "",
        _one_line(_ELEMENTS), "",
        *(_ratios(result["ratios"]) if result["ratios"] else []),
        *(_placed(placed, result["seeds"]) if placed else []),
        *_gates(rows),
        f"Measured {result['date']} by `{result['command']}`: "
        + ", ".join(f"{name} {version}" for name, version in result["tools"].items()) + ".",
        ""])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(headings)} |", "| " + " | ".join("---" for _ in headings) + " |",
            *(f"| {' | '.join(row)} |" for row in rows), ""]


def _ratios(ratios: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[ratio["chip"], f"{ratio['mac']}, {ratio['mac_bits']} bits", f"{ratio['cells']:.2f}",
             f"{ratio['fmax_mhz']:.2f}"] for ratio in ratios]
    return ["## BM signed, 4 bits, against MACs of 4, 3 and 2 bits", "",
            "The cheaper MAC of each width; groups of 36 inputs of 576. Above 1 the BM element is better.", "",
            *_table(("chip", "MAC", "cells, MAC / BM", "Fmax, BM / MAC"), rows)]


def _placed(rows: Sequence[Mapping[str, Any]], seeds: int) -> list[str]:
    lines = []
    for chip in dict.fromkeys(name for row in rows for name in row["placed"]):
        of_chip = [(row, row["placed"][chip]) for row in rows if chip in row["placed"]]
        dsps = any(figures["dsps"] for _, figures in of_chip)
        cells = [[row["kind"], _width(row), f"{figures['cells']:.1f}", str(figures["weight_cells"]),
                  f"{figures['share']:.1f}", f"**{figures['with_share']:.1f}**", str(figures["flip_flops"]),
                  *([str(figures["dsps"])] if dsps else []),
                  f"{figures['fmax_mhz']:.0f} ({figures['fmax_lowest_mhz']:.0f}..{figures['fmax_highest_mhz']:.0f})",
                  str(row["weight_bits"]), str(row["waiting_bits"]), _architecture(figures["architecture"])]
                 for row, figures in of_chip]
        lines += [f"### {chip}: {of_chip[0][1]['chip']}", "", *_table(
            ("element", "bits", "cells", "of a weight", "share", "cells with share", "flip-flops",
             *(["DSPs"] if dsps else []), "Fmax, MHz", "weight, bits", "waits, bits", "architecture"),
            cells)]
    return ["## Placed and routed", "",
            _one_line(_PLACED_ARRAYS.format(elements=ELEMENTS, seeds=seeds, inputs=PLACED[0], group=PLACED[1])), "",
            *lines]


def _gates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    timed = all("delay_ns" in row["gates"]["cell"] for row in rows)
    cells = []
    for row in rows:
        gates, total = row["gates"], row["gates"]["with_share"]
        group = "" if row["neuron"] == "mac" and row["flush"] is None else str(row["group_inputs"])
        cells.append([row["kind"], _width(row), str(row["inputs"]), group, str(gates["cell"]["gates"]),
                      f"{total['gates'] - gates['cell']['gates']:.1f}", f"**{total['gates']:.0f}**",
                      f"{total['flip_flops']:.1f}", str(total["depth"]),
                      *([f"{total['gate_equivalents']:.0f}", f"{total['delay_ns']:.2f}"] if timed else []),
                      str(row["weight_bits"]), str(row["waiting_bits"])])
    return ["## Gates", "",
            _one_line(_IN_GATES), "",
            *_table(("element", "bits", "inputs", "group", "gates of a cell", "share", "with share", "flip-flops",
                     "depth", *(["GE", "ns"] if timed else []), "weight, bits", "waits, bits"), cells)]


def _width(row: Mapping[str, Any]) -> str:
    return code_width(row["bits"], row["log_fraction"])


def _architecture(chosen: Mapping[str, str]) -> str:
    return ", ".join(chosen.values())
