# SPDX-License-Identifier: Apache-2.0
"""The page of measured layers, networks and architectures: tables in Markdown, from the files of the runs."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bmhw.errors import RunError
from bmhw.flow.files import reading
from bmhw.measure.frontier import frontier
from bmhw.measure.layers import CLAIM

from .plots import by_shape
from .tables import code_width
from .tradeoff import MEANINGS, cells, frontier_lines, headings

__all__ = ["PAGE_MARK", "PAGE_PLOT", "PLOT_MARK", "markdown", "ranges", "read", "read_tradeoffs"]

PAGE_MARK = "Written by `python -m bmhw.report`"
"""What marks a page as one of this program's."""
PAGE_PLOT, PLOT_MARK = "gates-depth.svg", "Matplotlib"

FAN_IN = 64
"""Smallest fan-in of the layers that the goals are stated for."""

_OBJECTIVES = ("balanced", "area", "delay")
_Kind = tuple[str, int, int]
# What a BM neuron should reach in every layer: (comparison) -> objective -> ratio -> goal. At least that much for gates
# and GE, at most for path and ns.
_GOALS: dict[_Kind, dict[str, dict[str, float]]] = {
    ("relu", 8, 8): {"balanced": {"gates": 2.9, "depth": 0.75, "area_gate_equivalents": 3.5, "delay_ns": 0.75},
                     "area": {"gates": 3.5}, "delay": {"depth": 0.70}},
    ("signed", 8, 8): {"balanced": {"gates": 3.5, "depth": 0.75, "area_gate_equivalents": 4.5, "delay_ns": 0.75},
                       "area": {"gates": 4.5}, "delay": {"depth": 0.70}},
    ("signed", 8, 5): {"balanced": {"gates": 6.0, "depth": 0.50, "area_gate_equivalents": 8.0, "delay_ns": 0.50},
                       "area": {"gates": 8.0}, "delay": {"depth": 0.45}},
}
# The same for the path of layers that give a linear result; their gates have the goal of the others.
_LINEAR_PATHS: dict[_Kind, float] = {("relu", 8, 8): 0.95, ("signed", 8, 8): 0.95, ("signed", 8, 5): 0.75}
_RATIOS = ("gates", "depth", "area_gate_equivalents", "delay_ns")
_HEADINGS = {"gates": "gates", "depth": "path", "area_gate_equivalents": "GE", "delay_ns": "ns"}


def kind(result: dict[str, Any]) -> _Kind:
    """(layout, MAC bits, bits of the BM layers' log codes) of a run of ``bmhw.layers``."""
    return result["branches"], result["mac_bits"], result.get("log_bits") or result["bm_bits"]


def ranges(result: dict[str, Any], output: str) -> dict[str, tuple[float, float, float]]:
    """Ratio -> (smallest, geometric mean, largest) over the layers with that output and ``FAN_IN`` inputs or more."""
    measured = [row["ratio"] for row in result["layers"]
                if row["ratio"] and row["output"] == output and row["fan_in"] >= FAN_IN]
    found = {}
    for name in _RATIOS:
        values = [ratio[name] for ratio in measured if name in ratio]
        if values:
            found[name] = (min(values), math.exp(math.fsum(map(math.log, values)) / len(values)), max(values))
    return found


# -- tables


def markdown(results: Sequence[dict[str, Any]], tradeoffs: Sequence[dict[str, Any]] = ()) -> str:
    """The page: comparisons with goals, the runs behind them, networks against their neurons, the frontier of
    architectures."""
    lines = ["# Measured", "",
             f"{PAGE_MARK}; `make results` measures everything again.", ""]
    lines += _comparisons(results) + _runs(results)
    for result in tradeoffs:
        lines += _tradeoff(result)
    lines += _frontiers()
    return "\n".join(lines) + "\n"


def _comparisons(results: Sequence[dict[str, Any]]) -> list[str]:
    claim = "gates {0[0]} to {0[1]}, path {1[0]} to {1[1]}".format(CLAIM["gates"], CLAIM["depth"])
    lines = ["## ResNet20v2, layer by layer", "",
             f"Smallest to largest ratio over the layers of {FAN_IN} inputs or more, geometric mean in brackets. Gates "
             "and GE: MAC / BM, path and ns: BM / MAC; above 1 in the first and below 1 in the second BM is better. "
             f"{CLAIM['source']} estimates {claim} for most layers. A goal counts as met where every layer meets it. "
             "`wired` has the goals of `signed`, though the signs of its weights are not programmable.",
             ""]
    for output, what in (("code", "Layers that give a code"), ("linear", "Layers that give a linear result")):
        lines += [f"### {what}", "",
                  "| BM | sums, maxima | objective | MAC requantises by | gates | path | GE | ns | goal |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
        for result in results:
            found = ranges(result, output)
            if not found:
                continue
            layout, mac_bits, bm_bits = kind(result)
            weights = f" x {result['mac_weight_bits']}" if result.get("mac_weight_bits") else ""
            codes = code_width(bm_bits, result.get("log_fraction"))
            groups = f" in {result['groups']} groups" if _grouped(result) else ""
            cells = [f"`{layout}` {codes} bits{groups} against {mac_bits}{weights}", _sums(result, output),
                     result["objective"], result["requantize"], *(_range(found.get(name)) for name in _RATIOS),
                     _goal(result, output, found)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _sums(result: dict[str, Any], output: str) -> str:
    bits = result["maximum_bits"]
    if output == "linear":
        bits = result.get("linear_maximum_bits") or bits
    return f"{result['sums']}, {bits} bits" if bits else f"{result['sums']}, all bits"


def _grouped(result: dict[str, Any]) -> bool:
    """Whether the layers' maxima are in groups; of an older run they aren't."""
    return result.get("groups", 1) != 1


def _range(values: tuple[float, float, float] | None) -> str:
    return "" if values is None else f"{values[0]:.2f} to {values[2]:.2f} ({values[1]:.2f})"


def _goal(result: dict[str, Any], output: str, found: dict[str, tuple[float, float, float]]) -> str:
    layout, *widths = kind(result)
    stated: _Kind = ("signed" if layout == "wired" else layout, *widths)
    if _grouped(result):
        return ""
    goals = _GOALS.get(stated, {}).get(result["objective"], {})
    if output == "linear":
        path = {"depth": _LINEAR_PATHS[stated]} if "depth" in goals else {}
        goals = {name: goal for name, goal in goals.items() if name == "gates"} | path
    words = []
    for name, goal in goals.items():
        if name in found:
            smallest, _, largest = found[name]
            met = smallest >= goal if name in ("gates", "area_gate_equivalents") else largest <= goal
            words.append(f"{_HEADINGS[name]} {goal:g}: {'met' if met else 'missed'}")
    return ", ".join(words)


def _runs(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["### Whole network", "",
             "All 22 convolutions with all outputs in parallel, paths one behind the other.", "",
             "| file | command | MAC gates | BM gates | gates | MAC path | BM path | path | measured |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for result in results:
        total = result["total"]
        if total is None:
            continue
        lines.append("| " + " | ".join((
            f"[{result['file']}]({result['file']})", f"`{result['command']}`",
            f"{total['mac']['gates']:,}", f"{total['bm']['gates']:,}", f"{total['ratio']['gates']:.2f}",
            f"{total['mac']['depth']:,}", f"{total['bm']['depth']:,}", f"{total['ratio']['depth']:.2f}",
            f"{result['date']}, {result['tools']['engine']}")) + " |")
    return [*lines, ""]


def _tradeoff(result: dict[str, Any]) -> list[str]:
    plot, rows = Path(result["file"]).with_suffix(".svg").name, result["networks"]
    columns = headings(result)
    lines = [f"## Accuracy against hardware: {result['architecture']} on {result['dataset']}", "",
             f"`{result['command']}`, {result['date']}. {' '.join(MEANINGS).format(**result)} Bold: on the frontier: "
             "no other network is at least as accurate with at most as much of it. Widths of BM codes with those of "
             "the maxima.", "", f"![Accuracy against lookup tables and gates]({plot})", "",
             f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += ["| " + " | ".join(cells(row, mark="**{}**".format)) + " |" for row in rows]
    return [*lines, "", *(f"- {line}" for line in frontier_lines(rows)), ""]


def _frontiers() -> list[str]:
    lines = ["## Every architecture tried", "",
             "Gates / depth of those that no other one beats in both, from `bmhw/measure/data/architectures.json` "
             "(`python -m bmhw.explore`): one neuron, from activation code to activation code (MAC requantised by a "
             "scale) or, where it says so, to a linear result.", "", f"![Gates against depth]({PAGE_PLOT})", "",
             "| inputs | bits | neuron | tried | frontier |", "| --- | --- | --- | --- | --- |"]
    for (inputs, width), shapes in by_shape().items():
        for neuron, points in shapes.items():
            shown = ", ".join(f"{_architecture(p)} {p['gates']:,} / {p['depth']}" for p in frontier(points))
            lines.append(f"| {inputs} | {width} | {neuron} | {len(points)} | {shown} |")
    return [*lines, ""]


def _architecture(point: dict[str, Any]) -> str:
    script = " (delay script)" if point["script"] == "delay" else ""
    return " + ".join(point["architecture"].values()) + script


# -- the files of the runs


def read(folder: Path) -> list[dict[str, Any]]:
    """The runs of ``bmhw.layers`` in a folder, ordered by comparison and objective; RunError for another file."""

    def check(result: dict[str, Any]) -> None:
        _comparisons([result]), _runs([result]), order(result)

    def order(result: dict[str, Any]) -> tuple[str, int, str, str, int]:
        return (str(kind(result)[0]), -kind(result)[2], str(result["sums"]), str(result["requantize"]),
                _OBJECTIVES.index(result["objective"]))

    results = _read(folder, "layers", check)
    if not results:
        raise RunError(f"no layers-*.json in {folder}: make results measures them")
    return sorted(results, key=order)


def read_tradeoffs(folder: Path) -> list[dict[str, Any]]:
    """The runs of ``bmhw.tradeoff`` in a folder; RunError for another file."""

    return _read(folder, "tradeoff", _tradeoff)


def _read(folder: Path, command: str, check: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    results = []
    for path in sorted(folder.glob(f"{command}-*.json")):
        with reading(path, f"result of bmhw.{command}"):
            result = json.loads(path.read_text())
            result["file"] = path.name
            check(result)
        results.append(result)
    return results
