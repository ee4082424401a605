# SPDX-License-Identifier: Apache-2.0
"""Measured neurons as tables for people, drawn from the same dictionaries that are written as JSON."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["code_width", "left_out", "pipeline", "plain_table", "print_comparison", "print_neuron", "print_versions",
           "print_whole", "title", "widths"]


def print_neuron(console: Console, neuron: dict[str, Any]) -> None:
    """One neuron: its parts, where its gates go, its critical path."""
    cells = "area_gate_equivalents" in neuron
    console.print(Text(title(neuron), style="bold"), soft_wrap=True)
    table = plain_table()
    table.add_column("part", no_wrap=True)
    timed = neuron.get("delay_ns") is not None
    extra = (*(("GE",) if cells else ()), *(("ns", "path ns") if timed else ()))
    for name in ("gates", "share", "flip-flops" if not cells else "FFs", "depth", "path", *extra):
        table.add_column(name, justify="right")

    def add(name: str, part: dict[str, Any], share: float | None, **style: Any) -> None:
        row = [_count(part["gates"]), "" if share is None else f"{share:.0%}", _count(part["flip_flops"]),
               _count(part["depth"]), _count(part.get("critical_path_gates"))]
        if cells:
            row.append(_count(part["area_gate_equivalents"]))
        if timed:
            row += [_ns(part["delay_ns"]), _ns(part.get("critical_path_ns"))]
        table.add_row(name, *row, **style)

    joined = neuron["parts_joined"]
    for name, part in neuron["parts"].items():
        add(name, part, part["gates"] / max(joined["gates"], 1))
    table.add_section()
    add("parts joined", joined, 1.0)
    add("whole neuron", {**neuron, "critical_path_ns": None}, None, style="bold")
    console.print(table)
    if neuron["stages"]:
        depths = " + ".join(str(stage["depth"]) for stage in neuron["stages"])
        console.print(Text(f"Pipeline: {pipeline(neuron)}; stages {depths} gates deep"), soft_wrap=True)
    _print_path(console, "Critical path", neuron["critical_path"], "gates")
    if timed:
        _print_path(console, "Critical path, ns", neuron["critical_path_ns"], "delay_ns")


def pipeline(neuron: dict[str, Any]) -> str:
    """A pipelined neuron's latency and where its registers are."""
    cycles, places = neuron["latency_cycles"], neuron["design"].get("registers")
    return (f"{cycles} {'cycle' if cycles == 1 else 'cycles'}, registers behind "
            f"{', '.join(places) if places else 'every part'}")


def code_width(bits: object, fraction: int | None) -> str:
    """The width of log codes: ``5``, or ``5.3`` with another number of bits behind the point than usual."""
    return f"{bits}" if fraction is None else f"{bits}.{fraction}"


def widths(row: Mapping[str, Any]) -> str:
    """The widths of a network's codes (a row of ``models.cards``): those of log codes as :func:`code_width` has them,
    or ``3 x 2`` for a MAC network whose weights have others than its inputs."""
    bits, weights = (", ".join(map(str, row[key])) for key in ("bits", "mac_weight_bits"))
    if row["maximum_bits"]:
        return code_width(bits, row["log_fraction"])
    return bits if weights == bits else f"{bits} x {weights}"


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def print_whole(table: Table) -> None:
    """A row is one line even where a terminal is too narrow for it."""
    wide = Console(width=1000)
    width = Measurement.get(wide, wide.options, table).maximum
    Console(highlight=False, width=max(width, Console().width)).print(table)


def _print_path(console: Console, title: str, path: dict[str, Any], unit: str) -> None:
    show = _ns if unit == "delay_ns" else _count
    steps = " > ".join(f"{step['part']} {show(step[unit])}" for step in path["steps"])
    console.print(Text(f"{title}: {path['from']} > {steps} > {path['to']}"), soft_wrap=True)


def print_comparison(console: Console, comparison: dict[str, Any]) -> None:
    """Both neurons beside each other, the ratios last."""
    neurons = [comparison["mac"], comparison["bm"]]
    ratio = comparison["ratio"]
    rows = [("gates", "gates", _count), ("gates per input", "gates_per_input", _count),
            ("flip-flops", "flip_flops", _count), ("depth", "depth", _count)]
    rows = [row for row in rows if row[1] in neurons[0]]
    if "latency_cycles" in ratio:
        rows[-1] = ("depth between registers", "depth", _count)
        rows.append(("latency, cycles", "latency_cycles", _count))
    if "area_gate_equivalents" in ratio:
        rows.append(("area, GE", "area_gate_equivalents", _count))
    if "delay_ns" in ratio:
        rows.append(("delay, ns", "delay_ns", _ns))
    console.print(Text(f"MAC against BM: {comparison['comparison']}", style="bold"), soft_wrap=True)
    table = plain_table()
    table.add_column("")
    for neuron in neurons:
        table.add_column(neuron["design"]["neuron"].upper(), justify="right")
    table.add_column("ratio", justify="right", style="bold")
    table.add_column("")
    for label, key, show in rows:
        value = ratio.get(key)
        inverse = key in ("depth", "delay_ns", "latency_cycles")
        table.add_row(label, *(show(neuron[key]) for neuron in neurons),
                      "" if value is None else f"{value:.2f}",
                      "" if value is None else ("BM / MAC" if inverse else "MAC / BM"))
    console.print(table)


def print_versions(console: Console, neurons: list[dict[str, Any]]) -> None:
    """How the figures came about, and with what."""
    method, tools = neurons[-1]["method"], neurons[-1]["tools"]
    lines = [
        f"Whole neuron: {method['gates']}. Parts: {method['parts']}.",
        f"Boundary: {method['boundary']}." if "bm" in {neuron["design"]["neuron"] for neuron in neurons} else "",
        f"Area: {method['area']} ({neurons[-1]['liberty']['nand2']}). Delay: {method['delay']}."
        if "area" in method else "",
        left_out(neurons[-1].get("liberty")),
        f"bmhw {tools['bmhw']}, {tools['engine']} ({tools['yosys']}), amaranth {tools['amaranth']}, "
        f"Python {tools['python']}; script for {neurons[-1]['objective']}.",
    ]
    for line in filter(None, lines):
        console.print(Text(line, style="dim"))


def left_out(liberty: dict[str, Any] | None) -> str:
    """Which cells of a library are not used, and why."""
    reasons = liberty["unused_cells"] if liberty else {}
    if not reasons:
        return ""
    words = (f"{reason}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
             for reason, names in reasons.items())
    return f"Cells not mapped to. {'; '.join(words)}."


def title(neuron: dict[str, Any]) -> str:
    """What a measured neuron is: kind, widths, architecture, fan-in, form."""
    design = neuron["design"]
    if design["neuron"] == "mac":
        kind = f"MAC, {design['bits']} x {design['weight_bits']} bits, {design['multiplier']} multiplier"
    else:
        kind = (f"BM {design['layout']}, {design['bits']} bits, log codes {design['log_bits']}."
                f"{design['log_fraction']}" + (f", {design['maximum']} maximum" if "maximum" in design else ""))
    layer = {"layer": ", as in a layer", "element": ", an element"}.get(design["boundary"], "")
    groups = f" in {design['groups']} groups" if design.get("groups", 1) > 1 else ""
    residual = f", residual of {design['residual_bits']} bits" if design.get("residual_bits") else ""
    return f"{kind}, {design['adder']} adder, {design['inputs']} inputs{groups}{layer}{residual}, {design['form']}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _ns(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
