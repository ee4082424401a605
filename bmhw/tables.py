# SPDX-License-Identifier: Apache-2.0
"""Measured neurons as tables for people, drawn from the same dictionaries that are written as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_comparison", "print_neuron", "print_versions"]

def print_neuron(console: Console, neuron: dict[str, Any]) -> None:
    """One neuron: its parts, where its gates go, its critical path."""
    cells = "area_gate_equivalents" in neuron
    console.print(Text(_title(neuron), style="bold"), soft_wrap=True)
    table = Table()
    table.add_column("part")
    for name in ("gates", "share", "flip-flops", "depth", "path", *(("GE", "ns") if cells else ())):
        table.add_column(name, justify="right")
    total = neuron["parts_joined"]["gates"] or 1
    for name, part in neuron["parts"].items():
        table.add_row(
            name, _count(part["gates"]), f"{part['gates'] / total:.0%}", _count(part["flip_flops"]),
            _count(part["depth"]), _count(part["critical_path_gates"]),
            *((_count(part["area_gate_equivalents"]), _ns(part["delay_ns"])) if cells else ()))
    joined = neuron["parts_joined"]
    table.add_section()
    table.add_row("parts joined", _count(joined["gates"]), "100%", _count(joined["flip_flops"]),
                  _count(joined["depth"]), _count(joined["depth"]),
                  *((_count(joined["area_gate_equivalents"]), "") if cells else ()))
    table.add_row("whole neuron", _count(neuron["gates"]), "", _count(neuron["flip_flops"]),
                  _count(neuron["depth"]), "",
                  *((_count(neuron["area_gate_equivalents"]), _ns(neuron["delay_ns"])) if cells else ()),
                  style="bold")
    console.print(table)
    path = neuron["critical_path"]
    steps = " > ".join(f"{step['part']} {step['gates']}" for step in path["steps"])
    console.print(Text(f"Critical path: {path['from']} > {steps} > {path['to']}"), soft_wrap=True)


def print_comparison(console: Console, comparison: dict[str, Any]) -> None:
    """Both neurons beside each other, the ratios last."""
    neurons = [comparison["mac"], comparison["bm"]]
    ratio = comparison["ratio"]
    rows = [("gates", "gates", _count), ("gates per input", "gates_per_input", _count),
            ("flip-flops", "flip_flops", _count), ("depth", "depth", _count)]
    if "area_gate_equivalents" in ratio:
        rows += [("area, GE", "area_gate_equivalents", _count), ("delay, ns", "delay_ns", _ns)]
    table = Table(title=f"MAC against BM: {comparison['comparison']}", title_justify="left",
                  title_style="bold")
    table.add_column("")
    for neuron in neurons:
        design = neuron["design"]
        table.add_column(f"{design['neuron'].upper()}, {design['bits']} bits", justify="right")
    table.add_column("ratio", justify="right", style="bold")
    table.add_column("")
    for label, key, show in rows:
        value = ratio.get(key)
        inverse = key in ("depth", "delay_ns")
        table.add_row(label, *(show(neuron[key]) for neuron in neurons),
                      "" if value is None else f"{value:.2f}",
                      "" if value is None else ("BM / MAC" if inverse else "MAC / BM"))
    console.print(table)


def print_versions(console: Console, neurons: list[dict[str, Any]]) -> None:
    """How the figures came about, and with what."""
    method, tools = neurons[-1]["method"], neurons[-1]["tools"]
    lines = [
        f"Whole neuron: {method['gates']}. Parts: {method['parts']}.",
        f"BM: {method['boundary']}." if "bm" in {neuron["design"]["neuron"] for neuron in neurons} else "",
        f"Area: {method['area']} ({neurons[-1]['liberty']['nand2']}). Delay: {method['delay']}."
        if "area" in method else "",
        f"bmhw {tools['bmhw']}, {tools['engine']} ({tools['yosys']}), amaranth {tools['amaranth']}, "
        f"Python {tools['python']}; script for {neurons[-1]['objective']}.",
    ]
    for line in filter(None, lines):
        console.print(Text(line, style="dim"))


def _title(neuron: dict[str, Any]) -> str:
    design = neuron["design"]
    if design["neuron"] == "mac":
        kind = f"MAC, {design['bits']} x {design['weight_bits']} bits, {design['multiplier']} multiplier"
    else:
        kind = (f"BM {design['layout']}, {design['bits']} bits, log codes {design['log_bits']}."
                f"{design['log_fraction']}, {design['maximum']} maximum")
    return f"{kind}, {design['adder']} adder, {design['inputs']} inputs, {design['form']}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _ns(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
