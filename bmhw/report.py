# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.report``: tables and a plot of what ``bmhw.layers`` and ``bmhw.explore`` measured.

Reads every ``layers-*.json`` of a folder and the table of architectures that ships with the package; writes
``README.md`` and ``gates-depth.svg`` beside them. No figure comes from anywhere else.
"""

import io
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .command_line import Parser, RunError, run, write_atomically
from .layer_measurement import CLAIM
from .selection import rows as architectures

__all__ = ["frontier", "main", "ranges"]

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


def frontier(points: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that none of the others beats in gates and depth, from short to long."""
    best: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: (point["depth"], point["gates"])):
        if not best or point["gates"] < best[-1]["gates"]:
            best.append(point)
    return best


# -- tables


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The page: comparisons with goals, the runs behind them, the frontier of architectures."""
    lines = ["# Measured", "",
             "Written by `python -m bmhw.report`; `make results` measures everything again.", ""]
    lines += _comparisons(results) + _runs(results) + _frontiers()
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
            cells = [f"`{layout}` {bm_bits} bits against {mac_bits}{weights}", _sums(result, output),
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


def _range(values: tuple[float, float, float] | None) -> str:
    return "" if values is None else f"{values[0]:.2f} to {values[2]:.2f} ({values[1]:.2f})"


def _goal(result: dict[str, Any], output: str, found: dict[str, tuple[float, float, float]]) -> str:
    layout, *widths = kind(result)
    stated: _Kind = ("signed" if layout == "wired" else layout, *widths)
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


def _frontiers() -> list[str]:
    lines = ["## Every architecture tried", "",
             "Gates / depth of those that no other one beats in both, from `bmhw/data/architectures.json` "
             "(`python -m bmhw.explore`): one neuron, from activation code to activation code (MAC requantised by a "
             "scale) or, where it says so, to a linear result.", "", "![Gates against depth](gates-depth.svg)", "",
             "| inputs | bits | neuron | tried | frontier |", "| --- | --- | --- | --- | --- |"]
    for (inputs, width), shapes in _by_shape().items():
        for label, points in shapes.items():
            shown = ", ".join(f"{_architecture(p)} {p['gates']:,} / {p['depth']}" for p in frontier(points))
            lines.append(f"| {inputs} | {width} | {label} | {len(points)} | {shown} |")
    return [*lines, ""]


def _architecture(point: dict[str, Any]) -> str:
    script = " (delay script)" if point["script"] == "delay" else ""
    return " + ".join(point["architecture"].values()) + script


def _by_shape() -> dict[tuple[int, int], dict[str, list[dict[str, Any]]]]:
    """(inputs, width) -> neuron -> its rows in the table of architectures."""
    found: dict[tuple[int, int], dict[str, list[dict[str, Any]]]] = {}
    for row in sorted(architectures(), key=lambda row: (row["inputs"], row["bits"])):
        label = "MAC" if row["neuron"] == "mac" else (
            f"BM {row['layout']}, {row['sums']} sums, {row['maximum_bits']} bits"
            + (", linear result" if row["result"] == "linear" else ""))
        found.setdefault((row["inputs"], row["bits"]), {}).setdefault(label, []).append(row)
    return found


# -- the plot


def plot() -> bytes:
    """Gates against depth of all architectures, MAC and BM, one panel a fan-in, as SVG."""
    try:
        import matplotlib
    except ImportError as error:
        raise RunError(f"the plot needs {error.name}: pip install 'bmhw[report]'") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    # the same bytes for the same figures
    matplotlib.rcParams.update({"svg.hashsalt": "bmhw", "font.size": 9})
    shapes = _by_shape()
    fan_ins = sorted({inputs for inputs, _ in shapes})
    figure, panels = pyplot.subplots(1, len(fan_ins), figsize=(6.2 * len(fan_ins), 5), squeeze=False)
    styles = {"MAC": ("tab:red", "s"), "BM relu": ("tab:blue", "o"), "BM signed": ("tab:green", "^"),
              "BM wired": ("tab:purple", "v")}
    for inputs, panel in zip(fan_ins, panels[0], strict=True):
        named = set()
        for (n, width), neurons in shapes.items():
            if n != inputs:
                continue
            for label, points in neurons.items():
                family = label.split(",")[0]
                if "full sums" in label or "linear result" in label:
                    continue  # the plot shows codes, as the networks are trained for; the table shows all
                color, marker = styles[family]
                panel.plot([p["depth"] for p in points], [p["gates"] for p in points], marker, color=color, alpha=0.15,
                           markersize=3, linestyle="none")
                best = frontier(points)
                panel.plot([p["depth"] for p in best], [p["gates"] for p in best], color=color, marker=marker,
                           markersize=4, linewidth=1, label=None if family in named else family)
                bits = f"{width}" if label == "MAC" else f"{width}:{best[0]['maximum_bits']}"
                panel.annotate(bits, (best[0]["depth"], best[0]["gates"]), textcoords="offset points",
                               xytext=(-4, 3), ha="right", color=color)
                named.add(family)
        panel.set(xlabel="depth (gates on the longest path)", ylabel="gates", yscale="log",
                  title=f"{inputs} inputs, code to code; numbers: bits, of BM with those of the maxima")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return out.getvalue()


# -- the command


def read(folder: Path) -> list[dict[str, Any]]:
    """The runs of ``bmhw.layers`` in a folder, ordered by comparison and objective; RunError for another file."""
    results = []
    for path in sorted(folder.glob("layers-*.json")):
        try:
            result = json.loads(path.read_text())
            result["file"] = path.name
            (*kind(result), result["objective"], result["layers"], result["total"], result["command"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is no result of bmhw.layers: {error!r}") from None
        results.append(result)
    if not results:
        raise RunError(f"no layers-*.json in {folder}: make results measures them")
    return sorted(results, key=lambda r: (kind(r)[0], -kind(r)[2], r["sums"], r["requantize"],
                                          _OBJECTIVES.index(r["objective"])))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description="Write the tables and the plot of measured layers and architectures.")
    parser.add_argument("--folder", type=Path, default=Path("docs/results"), metavar="DIR",
                        help="where the results lie (default: docs/results)")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    results = read(args.folder)
    write_atomically(args.folder / "gates-depth.svg", plot())
    write_atomically(args.folder / "README.md", markdown(results))
    print(f"{args.folder / 'README.md'} and gates-depth.svg, from {len(results)} runs")
    return 0


if __name__ == "__main__":
    run(main)
