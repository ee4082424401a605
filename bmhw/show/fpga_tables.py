# SPDX-License-Identifier: Apache-2.0
"""Placed neurons as tables for people, drawn from the dictionaries that are written as JSON."""

from typing import Any

from rich.console import Console
from rich.text import Text

from bmhw.flow.fpga import DEVICES

from .tables import pipeline, plain_table, title

__all__ = ["markdown", "print_fpga"]

_ROWS = (("LUTs", "luts", "MAC / BM"), ("carries", "carries", "MAC / BM"), ("flip-flops", "flip_flops", "MAC / BM"),
         ("DSPs", "dsps", "MAC / BM"), ("block RAMs", "block_rams", "MAC / BM"),
         ("Fmax, MHz", "fmax_mhz", "BM / MAC"), ("latency, cycles", "latency_cycles", "BM / MAC"))


def print_fpga(neurons: list[dict[str, Any]], comparison: dict[str, Any] | None) -> None:
    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    first = neurons[0]
    for neuron in neurons:
        say(title(neuron), "bold")
        if neuron["latency_cycles"] and neuron["design"]["form"] == "pipelined":
            say(f"Pipeline: {pipeline(neuron)}")
        if len(neuron["candidates"]) > 1:
            say(f"Tried: {_tried(neuron['candidates'])}")
        say(f"Critical path: {_path(neuron['critical_path'])}")
        say(f"Placed with its wrapper ({neuron['wrapper']['luts']} LUTs, {neuron['wrapper']['flip_flops']} flip-flops, "
            f"counted in no other line): {_placed(neuron['placed'])}")
        console.print()
    say(f"{first['device']['chip']}" + (f": MAC against BM, {comparison['comparison']}" if comparison else ""), "bold")
    table = plain_table()
    table.add_column("")
    for neuron in neurons:
        table.add_column(neuron["design"]["neuron"].upper(), justify="right")
    if comparison:
        table.add_column("ratio", justify="right", style="bold")
        table.add_column("")
    for label, key, meaning in _ROWS:
        values = [f"{neuron[key]:,.1f}" if key == "fmax_mhz" else f"{neuron[key]:,}" for neuron in neurons]
        if comparison:
            ratio = comparison["ratio"].get(key)
            values += ["", ""] if ratio is None else [f"{ratio:.2f}", meaning]
        table.add_row(label, *values)
        if key == "fmax_mhz" and len(first["seeds"]) > 1:
            table.add_row(f"  of {len(first['seeds'])} seeds", *(
                f"{neuron['fmax_lowest_mhz']:.1f}..{neuron['fmax_highest_mhz']:.1f}" for neuron in neurons))
    console.print(table)
    seeds = [run["seed"] for run in first["seeds"]]
    tools = first["tools"]
    console.print(Text(
        f"Fmax: from register to register, target {first['target_mhz']:g} MHz, "
        f"{f'seed {seeds[0]}' if len(seeds) == 1 else f'median of seeds {seeds[0]}..{seeds[-1]}'}. "
        f"{'DSPs allowed' if first['device']['dsps_allowed'] else 'No DSPs'}, "
        f"{'block RAMs allowed' if first['device']['block_rams_allowed'] else 'no block RAMs'}; objective "
        f"{first['objective']}.", style="dim"))
    console.print(Text(
        f"bmhw {tools['bmhw']}, {tools['engine']} ({tools['yosys']}), {tools['nextpnr']}, "
        f"amaranth {tools['amaranth']}, Python {tools['python']}.", style="dim"))


def _tried(candidates: list[dict[str, Any]]) -> str:
    """The figures of each, named by the architectures in which they differ."""
    differing = [name for name, value in candidates[0].items()
                 if isinstance(value, str) and any(one[name] != value for one in candidates)]
    return "; ".join(f"{' and '.join(one[name] for name in differing)} {one['luts']:,} LUTs, {one['flip_flops']:,} "
                     f"flip-flops, {one['fmax_mhz']:.1f} MHz" for one in candidates)


def _path(path: dict[str, Any]) -> str:
    steps = " > ".join(f"{step['part']} {step['logic_ns'] + step['routing_ns']:.1f} ns" for step in path["steps"])
    logic = sum(step["logic_ns"] for step in path["steps"])
    routing = sum(step["routing_ns"] for step in path["steps"])
    cells = sum(step["cells"] for step in path["steps"])
    return f"{path['from']} > {steps} > {path['to']}; {cells} cells {logic:.1f} ns, routing {routing:.1f} ns"


def _placed(placed: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{kind} {number['used']:,} of {number['available']:,}" for kind, number in placed.items()
                     if kind in {device.logic for device in DEVICES.values()} | {
                         "ICESTORM_RAM", "MULT18X18D", "DP16KD", "TRELLIS_FF"})


def markdown(rows: list[dict[str, Any]]) -> str:
    """Comparisons as a Markdown table, MAC first in each pair."""
    heads = ("device", "BM neuron", "architectures", "cycles", "LUTs", "MAC / BM", "flip-flops", "DSPs", "block RAMs",
             "Fmax, MHz", "BM / MAC")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        mac, bm, ratio = row["mac"], row["bm"], row["ratio"]
        design, device = bm["design"], mac["device"]
        allowed = device["name"]
        allowed += ", no DSPs" if DEVICES[allowed].has_dsp and not device["dsps_allowed"] else ""
        allowed += "" if device["block_rams_allowed"] else ", no block RAMs"
        pairs = [f"{mac[key]:,} / {bm[key]:,}" for key in ("luts", "flip_flops", "dsps", "block_rams")]
        name = f"{design['layout']} {design['bits']} bits, log codes {design['log_bits']}.{design['log_fraction']}"
        name += f", {design['groups']} groups" if design.get("groups", 1) > 1 else ""
        name += ", layer boundary" if design["boundary"] == "layer" else ""
        name += ", logarithmic end" if design["combine"] == "logarithmic" else ""
        # rows of before ends had architectures don't name one
        architecture = ", ".join(design[part] for part in ("maximum", "end") if part in design)
        fmax = " / ".join(_with_spread(neuron) for neuron in (mac, bm))
        cells = (allowed, name, f"{mac['design']['multiplier']} / {architecture}",
                 f"{mac['latency_cycles']} / {bm['latency_cycles']}", pairs[0], f"{ratio['luts']:.2f}",
                 *pairs[1:], fmax, f"{ratio['fmax_mhz']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_spread(neuron: dict[str, Any]) -> str:
    text = f"{neuron['fmax_mhz']:.1f}"
    if len(neuron["seeds"]) > 1:
        text += f" ({neuron['fmax_lowest_mhz']:.1f}..{neuron['fmax_highest_mhz']:.1f})"
    return text


def print_chip(chip: dict[str, Any]) -> None:
    """A placed network: what its cells are of, and how fast it is."""
    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    device = DEVICES[chip["device"]["name"]]
    say(f"{chip['name']} on {device.chip}: {chip['frames_per_second']:,.0f} images a second at "
        f"{chip['fmax_mhz']:.1f} MHz, {chip['cycles_per_image']:,.0f} cycles an image", "bold")
    table = plain_table()
    for column in ("", "LUTs", "flip-flops", "block RAMs"):
        table.add_column(column, justify="right" if column else "left")
    keys = ("luts", "flip_flops", "block_rams")
    for kind, found in chip["kinds"].items():
        if any(found.values()):
            table.add_row(kind, *(f"{found[key]:,}" for key in keys))
    table.add_row("all", *(f"{chip[key]:,}" for key in keys), style="bold")
    console.print(table)
    say(f"Placed: {_placed(chip['placed'])}")
    say(f"Critical path: {_path(chip['critical_path'])}")
    seeds = [run["seed"] for run in chip["seeds"]]
    tools = chip["tools"]
    say(f"{chip['elements']} elements; Fmax from register to register, target {chip['target_mhz']:g} MHz, "
        f"{f'seed {seeds[0]}' if len(seeds) == 1 else f'median of seeds {seeds[0]}..{seeds[-1]}'}; cycles measured in "
        "simulation.", "dim")
    say(f"bmhw {tools['bmhw']}, {tools['engine']} ({tools['yosys']}), {tools['nextpnr']}, amaranth "
        f"{tools['amaranth']}, Python {tools['python']}.", "dim")
