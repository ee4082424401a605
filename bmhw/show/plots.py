# SPDX-License-Identifier: Apache-2.0
"""Plots of measured architectures, of trained networks and of their neurons, as SVG: the same bytes for the same
figures."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bmhw.errors import RunError
from bmhw.measure.exploration import family_of
from bmhw.measure.frontier import frontier, unbeaten
from bmhw.measure.selection import rows as architectures

from .tables import widths
from .tradeoff import FAMILIES, network_family

__all__ = ["accuracy_cost", "accuracy_width", "by_shape", "chip_cells", "elements", "gates_depth"]

# family -> color, marker
_STYLES = {"MAC": ("tab:red", "s"), "BM relu": ("tab:blue", "o"), "BM signed": ("tab:green", "^"),
           "BM wired": ("tab:purple", "v")}


def by_shape() -> dict[tuple[int, int], dict[str, list[dict[str, Any]]]]:
    """(inputs, width) -> neuron -> its rows in the table of architectures."""
    found: dict[tuple[int, int], dict[str, list[dict[str, Any]]]] = {}
    for row in sorted(architectures(), key=lambda row: (row["inputs"], row["bits"])):
        label = "MAC" if row["neuron"] == "mac" else (
            f"BM {row['layout']}, {row['sums']} sums, {row['maximum_bits']} bits")
        if family_of(row) == "groups":
            label += f", {row['groups']} groups" if row["groups"] > 1 else ", linear end"
        label += ", linear result" if row["result"] == "linear" else ""
        found.setdefault((row["inputs"], row["bits"]), {}).setdefault(label, []).append(row)
    return found


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise RunError(f"the plot needs {error.name}: pip install 'bmhw[report]'") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "bmhw", "font.size": 9})
    return pyplot


def _svg(figure: Any, pyplot: Any) -> bytes:
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return out.getvalue()


def _plain_numbers(axis: Any, *, many: bool = False) -> None:
    """A logarithmic axis with 1, 2 and 5 of each power of ten, or ``many``, written out."""
    from matplotlib import ticker

    ticks = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8) if many else (1, 2, 5)
    axis.set_major_locator(ticker.LogLocator(subs=ticks))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def gates_depth() -> bytes:
    """Gates against depth of all architectures, MAC and BM, one panel a fan-in."""
    pyplot = _pyplot()
    shapes = by_shape()
    fan_ins = sorted({inputs for inputs, _ in shapes})
    figure, panels = pyplot.subplots(1, len(fan_ins), figsize=(6.2 * len(fan_ins), 5), squeeze=False)
    for inputs, panel in zip(fan_ins, panels[0], strict=True):
        named = set()
        for (n, width), neurons in shapes.items():
            if n != inputs:
                continue
            for label, points in neurons.items():
                family = label.split(",")[0]
                if "full sums" in label or "linear result" in label or family_of(points[0]) == "groups":
                    continue  # the plot shows codes and one group, as the networks are trained for; the table shows all
                color, marker = _STYLES[family]
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
    return _svg(figure, pyplot)


# family of networks -> color, marker
_NETWORKS = dict(zip(FAMILIES, (("tab:red", "s"), ("tab:blue", "o"), ("tab:green", "^"), ("tab:orange", "D")),
                     strict=True))


def accuracy_cost(result: Mapping[str, Any]) -> bytes:
    """Test error of trained networks (a result of ``bmhw.tradeoff``) against the lookup tables of their elements, on
    the first chip, where MACs are nearest to BM, and against the gates of their parallel neuron. In each panel those
    that no other one beats are filled, joined and labelled with their layout and widths."""
    pyplot = _pyplot()
    rows = result["networks"]
    chip = next(iter(rows[0]["elements"]))
    figure, panels = pyplot.subplots(1, 2, figsize=(12.4, 5), sharey=True)
    for panel, cost, title in (
            (panels[0], lambda row: row["elements"][chip]["luts"],
             f"lookup tables of an element with its share of the ends, {chip}"),
            (panels[1], lambda row: row["code"]["gates"],
             f"gates of one neuron of {result['inputs']} inputs, code to code")):
        points = [(cost(row), 100 - row["accuracy"]) for row in rows]
        best = unbeaten(points)
        line = sorted({point for point, kept in zip(points, best, strict=True) if kept})
        panel.plot(*zip(*line, strict=True), color="0.6", linewidth=1, drawstyle="steps-post", zorder=1)
        present = {network_family(row) for row in rows}
        for name, (color, marker) in _NETWORKS.items():
            if name in present:
                panel.plot([], [], marker, color=color, linestyle="none", label=name)
        for row, at, kept in zip(rows, points, best, strict=True):
            color, marker = _NETWORKS[network_family(row)]
            panel.plot(*at, marker, color=color, markersize=7 if kept else 5, linestyle="none",
                       fillstyle="full" if kept else "none")
            if kept:
                words = widths(row) if row["layout"] is None else f"{row['layout']} {widths(row)}"
                panel.annotate(words, at, textcoords="offset points", xytext=(5, 4), color=color)
        panel.set(xlabel=title, xscale="log", yscale="log")
        panel.grid(alpha=0.3, which="both")
        panel.legend()
        _plain_numbers(panel.xaxis)
    _plain_numbers(panels[0].yaxis, many=True)
    panels[0].set(ylabel="images classified wrong, %")
    figure.suptitle(f"{result['architecture']} on {result['dataset']}; filled: no other network is as accurate with as "
                    "few; numbers: bits")
    return _svg(figure, pyplot)


# phase of a training -> line
_PHASES = {"classical": ":", "bm": "-", "quantised": "--"}


def _layout_family(row: Mapping[str, Any]) -> str:
    """``MAC``, or ``BM`` and the layout that was asked for: others are in single layers, where that one can't be."""
    if row["neuron"] == "mac":
        return "MAC"
    return f"BM {next(layout for layout in ('wired', 'relu', 'signed') if layout in row['layouts'])}"


def _width(row: Mapping[str, Any]) -> float:
    """The mean of a MAC network's two widths; the width of a BM network's codes."""
    return min(row["bits"]) if row["neuron"] == "bm" else (min(row["bits"]) + min(row["mac_weight_bits"])) / 2


def _lineage(row: Mapping[str, Any], by_name: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The epochs of a network and, before them, of those that it was trained on from; of a MAC network the classical
    ones, as it starts from the classical half of what a BM network's file holds."""
    before = by_name.get(row.get("continues", ""))
    epochs = [] if before is None else _lineage(before, by_name)
    if row["neuron"] == "mac":
        epochs = [event for event in epochs if event["phase"] == "classical"]
    return [*epochs, *row["history"]]


def accuracy_width(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of ``bmhw.accuracy``. For each data set and architecture with MAC and BM networks: above, test error against
    the width of the codes, the best of each width joined, with its standard error; below, validation error after each
    epoch of the longest training of each kind. RunError if there is no such pair."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["architecture"], row["data"]), []).append(row)
    groups = {key: group for key, group in groups.items() if {row["neuron"] for row in group} == {"mac", "bm"}}
    if not groups:
        raise RunError("A plot needs a MAC and a BM network of the same architecture and data, there is no such pair")
    pyplot = _pyplot()
    by_name = {row["name"]: row for row in rows}
    figure, panels = pyplot.subplots(2, len(groups), figsize=(5 * len(groups), 8), squeeze=False)
    for (key, group), above, below in zip(groups.items(), *panels, strict=True):
        for family, (color, marker) in _STYLES.items():
            members = [row for row in group if _layout_family(row) == family]
            if not members:
                continue
            errors = [(_width(row), 100 - row["integer_accuracy"], row["test_images"]) for row in members]
            above.plot(*zip(*(error[:2] for error in errors), strict=True), marker, color=color, alpha=0.3,
                       linestyle="none", markersize=4)
            best = sorted({bits: min(e for e in errors if e[0] == bits) for bits, *_ in errors}.values())
            above.errorbar([bits for bits, *_ in best], [error for _, error, _ in best],
                           [math.sqrt(error * (100 - error) / images) for _, error, images in best],
                           color=color, marker=marker, markersize=5, linewidth=1, capsize=2, label=family)
            # the longest training, of equally long ones that of the best network
            members.sort(key=lambda row: -row["integer_accuracy"])
            longest = max((_lineage(row, by_name) for row in members), key=len)
            if all(event["phase"] == "quantised" for event in longest):
                continue
            # a BM network's classical epochs may be those of the MAC network, which stays to be seen below them
            thick = 4 if family == "MAC" else 1.2
            for phase, line in _PHASES.items():
                # a phase begins where the one before ended
                ran = [n for n, event in enumerate(longest) if event["phase"] == phase]
                shown = [n for n in range(len(longest)) if n in ran or n + 1 in ran]
                below.plot([n + 1 for n in shown], [100 - longest[n]["validation_accuracy"] for n in shown], line,
                           color=color, linewidth=thick, alpha=0.4 if family == "MAC" else 1)
            below.plot([], [], color=color, label=f"{family}, {len(longest)} epoch{'s' * (len(longest) > 1)}")
        above.set(title=f"{key[0]} on {key[1]}", xlabel="bits of the codes", yscale="log",
                  xticks=sorted({int(_width(row)) for row in group}))
        below.set(xlabel="epoch; dotted: classical, solid: BM, dashed: codes", yscale="log")
        for panel in (above, below):
            _plain_numbers(panel.yaxis)
            panel.grid(alpha=0.3, which="both")
            if panel.get_legend_handles_labels()[0]:  # cards need not tell epochs
                panel.legend()
    panels[0][0].set(ylabel="test images classified wrong, %")
    panels[1][0].set(ylabel="validation images classified wrong, %")
    return _svg(figure, pyplot)


# kind of element -> color, marker
_ELEMENTS = {"BM signed": ("tab:green", "^"), "BM signed, full sums": ("tab:olive", "<"),
             "BM relu": ("tab:blue", "o"), "BM wired": ("tab:purple", "v"), "MAC": ("tab:red", "s"),
             "MAC, flushed": ("tab:orange", "D")}


def elements(result: Mapping[str, Any]) -> bytes:
    """A result of ``bmhw.elements``: cells against Fmax on each chip without DSP blocks, and gates against depth, of a
    cell with its share of the ends; numbers are widths."""
    pyplot = _pyplot()
    rows = result["elements"]
    chips = [chip for chip in dict.fromkeys(name for row in rows for name in row.get("placed", {}))
             if not any(row["placed"][chip]["dsps"] for row in rows if chip in row.get("placed", {}))]
    figure, panels = pyplot.subplots(1, len(chips) + 1, figsize=(6.2 * (len(chips) + 1), 5), squeeze=False)

    def draw(panel: Any, points: Mapping[str, list[tuple[float, float, int]]]) -> None:
        for kind, found in points.items():
            color, marker = _ELEMENTS[kind]
            panel.plot([x for x, _, _ in found], [y for _, y, _ in found], color=color, marker=marker, markersize=5,
                       linewidth=1, label=kind)
            for x, y, bits in found:
                panel.annotate(str(bits), (x, y), textcoords="offset points", xytext=(5, 3), color=color)
        panel.grid(alpha=0.3, which="both")
        if points:
            panel.set(xscale="log")
            _plain_numbers(panel.xaxis)
            panel.legend()

    for chip, panel in zip(chips, panels[0], strict=False):
        points: dict[str, list[tuple[float, float, int]]] = {}
        for row in rows:
            if chip in row.get("placed", {}):
                found = row["placed"][chip]
                point = found["with_share"], found["fmax_mhz"], row["bits"]
                points.setdefault(row["kind"], []).append(point)
        draw(panel, points)
        panel.set(title=f"{chip}, placed: fan-in 576, groups of 36", ylabel="Fmax, MHz",
                  xlabel="cells of an element with its share of the ends")
    points = {}
    for row in rows:
        plain = row["neuron"] == "mac" and row["flush"] is None
        if row["inputs"] == 576 and (plain or row["group_inputs"] == 36):
            total = row["gates"]["with_share"]
            points.setdefault(row["kind"], []).append((total["gates"], total["depth"], row["bits"]))
    draw(panels[0][-1], points)
    panels[0][-1].set(title="gates: fan-in 576, groups of 36", xlabel="gates of an element with its share of the ends",
                      ylabel="depth (gates on the longest path)")
    return _svg(figure, pyplot)


def chip_cells(result: Mapping[str, Any], kinds: Sequence[str]) -> bytes:
    """Look-up tables of placed networks (``networks.json``) by ``kinds``, a bar for each network, BM and MAC beside
    each other; the number behind a bar is all of them."""
    pyplot = _pyplot()
    rows = result["networks"]
    figure, panel = pyplot.subplots(figsize=(10, 1.4 + 0.5 * len(rows)))
    places = range(len(rows))
    ends = [0] * len(rows)
    for color, kind in zip(pyplot.get_cmap("tab10").colors, kinds, strict=False):
        panel.barh(places, [row["luts_by_kind"][kind] for row in rows], left=ends, color=color, label=kind)
        ends = [end + row["luts_by_kind"][kind] for end, row in zip(ends, rows, strict=True)]
    for place, end in zip(places, ends, strict=True):
        panel.annotate(f"{end:,}", (end, place), textcoords="offset points", xytext=(4, 0), va="center")
    panel.set(yticks=places, yticklabels=[f"{row['network']}\n{row['device']}" for row in rows],
              xlabel="look-up tables of the chip, by what they are of", xlim=(0, 1.1 * max(ends)))
    panel.invert_yaxis()
    panel.grid(alpha=0.3, axis="x")
    panel.legend(ncols=len(kinds), loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, frameon=False,
                 columnspacing=1, handlelength=1)
    return _svg(figure, pyplot)
