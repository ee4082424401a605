# SPDX-License-Identifier: Apache-2.0
"""A network's layers as a table for people, drawn from the result that is written as JSON."""

from typing import Any

from rich.console import Console
from rich.text import Text

from .tables import code_width, left_out, plain_table, print_whole

__all__ = ["print_layers"]

# What a library adds, by its key in the JSON.
_UNITS = {"area_gate_equivalents": "GE", "delay_ns": "ns"}


def print_layers(result: dict[str, Any]) -> None:
    """The layers of a result of :func:`~bmhw.measure.layer_results.layers_result`, totals, the claim, the method."""
    cells = ["area_gate_equivalents"] if "liberty" in result else []
    cells += ["delay_ns"] if cells and "no_delays" not in result["liberty"] else []
    table = plain_table()
    for heading in ("layer", "layout", "output"):
        table.add_column(heading)
    grouped = any(row["groups"] > 1 for row in result["layers"])
    if grouped:
        table.add_column("groups", justify="right")
    extra = [_UNITS[name] for name in cells]
    figures = ["gates", "depth", *extra]
    for heading in ("fan-in", "outputs", *(f"{n} {f}" for n in ("MAC", "BM") for f in figures),
                    "layer MAC gates", "layer BM gates", "gates ratio", "path ratio",
                    *(f"{unit} ratio" for unit in extra)):
        table.add_column(heading, justify="right")
    table.add_column("MAC architecture")
    table.add_column("BM architecture")
    for row in result["layers"]:
        groups = [str(row["groups"])] if grouped else []
        start = [row["name"], row["layout"], row["output"], *groups, f"{row['fan_in']:,}", str(row["outputs"])]
        if row["ratio"] is None:
            # behind the figures, where the table has room for words
            table.add_row(*start, *[""] * (len(table.columns) - len(start) - 1), row["error"])
            continue
        mac, bm = row["mac"], row["bm"]
        table.add_row(*start, *_figures(mac, cells), *_figures(bm, cells), f"{mac['layer']['gates']:,}",
                      f"{bm['layer']['gates']:,}", *_ratios(row["ratio"], cells), _architecture(mac),
                      _architecture(bm))
    total = result["total"]
    if total:
        table.add_section()
        measured = f"{total['layers_measured']} of {len(result['layers'])} layers"
        empty = [""] * (2 * len(figures) + 2)
        for name, part in (("code", total["by_output"]["code"]), ("linear", total["by_output"]["linear"]),
                           (measured, total)):
            if part:
                line = list(empty)
                line[1], line[1 + len(figures)] = (f"{part[n]['depth']:,}" for n in ("mac", "bm"))
                line[-2:] = [f"{part[n]['gates']:,}" for n in ("mac", "bm")]
                if "delay_ns" in cells:
                    line[3], line[3 + len(figures)] = (f"{part[n]['delay_ns']:.2f}" for n in ("mac", "bm"))
                ratios = _ratios(part["ratio"], cells)
                table.add_row(f"total, {name}", *[""] * (4 + grouped), *line, *ratios, style="bold")
    claim = result["claim"]
    gates, depth = ("{:.2f} to {:.2f}".format(*claim[name]) for name in ("gates", "depth"))
    empty = [""] * (4 + grouped + 2 * len(figures) + 2)
    table.add_row(f"claim of {claim['source']}", *empty, gates, depth, style="italic")
    console = Console(highlight=False)
    console.print(Text(_title(result), style="bold"), soft_wrap=True)
    print_whole(table)
    method, tool = result["method"], result["tools"]
    for line in (f"Architectures, {method['choice']}: {method['architectures']}.",
                 f"Ratios: {method['ratio']}. Boundary: {method['boundary']}.",
                 f"Gates: {method['gates']}. Mapping: {method['mapping']}. Depth: {method['depth']}.",
                 *filter(None, [left_out(result.get("liberty"))]),
                 f"bmhw {tool['bmhw']}, {tool['engine']} ({tool['yosys']}), amaranth {tool['amaranth']}, "
                 f"Python {tool['python']}."):
        console.print(Text(line, style="dim"))


def _title(result: dict[str, Any]) -> str:
    weights = f" x {result['mac_weight_bits']}" if result["mac_weight_bits"] else ""
    mac = f"MAC {result['mac_bits']}{weights} bits, requantised by {result['requantize']}"
    fraction = result["log_fraction"]
    usual = result["log_bits"] is None and fraction is None
    codes = "" if usual else f", log codes {code_width(result['log_bits'] or result['bm_bits'], fraction)}"
    groups = result["groups"]
    in_groups = ", in groups as its layers say" if groups is None else f", {groups} groups" if groups > 1 else ""
    bm = f"BM {result['bm_bits']} bits{codes}, {result['branches']}{_sums(result)}{in_groups}"
    own = " (formats from its card)" if result["formats"] == "card" else ""
    return f"{result['network']}: {mac}, against {bm}{own}; objective {result['objective']}"


def _sums(result: dict[str, Any]) -> str:
    """What the BM layers' sums and maxima do without, if anything."""
    words = ["clamped sums"] if result["sums"] == "clamped" else []
    words += [f"maxima of {result['maximum_bits']} bits"] if result["maximum_bits"] else []
    fewer = result["linear_maximum_bits"]
    words += [f"of {fewer} bits before a linear result"] if fewer and fewer != result["maximum_bits"] else []
    return "".join(f", {word}" for word in words)


def _architecture(neuron: dict[str, Any]) -> str:
    """How a neuron is built, and what that was chosen from."""
    words = [*neuron["architecture"].values(), f"script for {neuron['script']}"]
    own = [one for one in neuron["candidates"] if one["inputs"] == neuron["design"]["inputs"]]
    place = neuron["chosen_from"]
    source = f"best of {len(own)} here" if len(own) > 1 or place is None else "chosen"
    if place is not None:
        maxima = f":{place['maximum_bits']}" if place["maximum_bits"] else ""
        source += f" from those at {place['bits']}{maxima} bits, {place['inputs']} inputs, {place['result']}"
    return f"{', '.join(words)} ({source})"


def _figures(neuron: dict[str, Any], cells: list[str]) -> list[str]:
    return [f"{neuron['gates']:,}", str(neuron["depth"]),
            *(f"{neuron[name]:,.0f}" if name == "area_gate_equivalents" else f"{neuron[name]:.2f}" for name in cells)]


def _ratios(ratio: dict[str, float], cells: list[str]) -> list[str]:
    return [f"{ratio[name]:.2f}" for name in ("gates", "depth", *cells)]
