# SPDX-License-Identifier: Apache-2.0
"""Delays in a library's cells: tables read and interpolated, paths as worked out by hand and by abc."""

import json
import re

import numpy as np
import pytest
from support.liberty_text import liberty_text

from bmhw.errors import RunError
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.liberty import load_library
from bmhw.flow.liberty_cells import read_cells
from bmhw.flow.netlist import Cell, join, read_blocks
from bmhw.flow.scripts import ABC_LIBERTY, OBJECTIVES, abc_files, yosys_script
from bmhw.flow.timing import timed_path

PINS = {"inverter": "A", "q7": "AB", "nor_two": "AB", "keeper": "CD"}


def cell_of(kind):
    if kind == "keeper":
        return Cell(frozenset("Q"), flip_flop=True)
    return Cell(frozenset("Y")) if kind in PINS else None


def path_of(cells, inputs, outputs, content=None):
    """The timed path of a module with these cells: name -> (kind, pin -> net)."""
    module = {
        "ports": {name: {"direction": direction, "bits": [net]}
                  for direction, ports in (("input", inputs), ("output", outputs))
                  for name, net in ports.items()},
        "cells": {name: {"type": kind, "connections": {pin: [net] for pin, net in pins.items()}}
                  for name, (kind, pins) in cells.items()}}
    netlist = join(read_blocks({"modules": {"top": module}}, cell_of), "top", cell_of)
    cells, _ = read_cells(content or liberty_text())
    return timed_path(netlist, {kind: cells[kind].timing() for kind in netlist.kinds})


def stage(delay, transition, fan_out):
    """Delay, and the same transition, of a cell of the test's library: linear in both axes of its tables."""
    return delay + 0.1 * transition + 3 * 0.002 * fan_out


def test_a_chain_adds_up_delays_with_each_cells_transition_and_load():
    found = path_of({"n0": ("inverter", {"A": 2, "Y": 3}), "n1": ("q7", {"A": 3, "B": 3, "Y": 4}),
                     "n2": ("inverter", {"A": 4, "Y": 5})}, {"a": 2}, {"y": 5})
    first = stage(0.1, 0.0, 2)
    second = stage(0.15, first, 1)
    third = stage(0.1, second, 0)
    assert found.delay == pytest.approx(first + second + third, abs=1e-12)
    assert [(step.part, step.gates) for step in found.steps] == [("", 3)]
    assert (found.begin, found.end) == ("a", "y")


def test_the_slower_of_two_ways_counts():
    found = path_of({"n0": ("nor_two", {"A": 2, "B": 3, "Y": 4}), "n1": ("inverter", {"A": 3, "Y": 5}),
                     "n2": ("q7", {"A": 4, "B": 5, "Y": 6})}, {"a": 2, "b": 3}, {"y": 6})
    slow = stage(0.25, 0.0, 1)
    assert found.delay == pytest.approx(slow + stage(0.15, slow, 0), abs=1e-12)
    assert found.gates == 2


def test_paths_begin_and_end_at_flip_flops_whose_inputs_are_a_load():
    found = path_of({"f": ("keeper", {"CK": 2, "D": 4, "Q": 3}), "n": ("inverter", {"A": 3, "Y": 4})},
                    {"clk": 2}, {})
    assert found.delay == pytest.approx(stage(0.1, 0.0, 1), abs=1e-12)
    assert (found.begin, found.end) == ("register", "register")


def test_both_edges_are_followed_through_the_sense_of_each_arc():
    # a falling output is slower by 1: an inverter behind an inverter can have it only once
    head, tail = liberty_text().split("cell (inverter)")
    body, rest = tail.split("cell (buffer)")
    body = re.sub(r"(cell_fall \(grid\) \{ values )(.*?)(; \})",
                  lambda m: m[1] + re.sub(r"[\d.]+", lambda v: f"{float(v[0]) + 1:.4f}", m[2]) + m[3], body)
    found = path_of({"n0": ("inverter", {"A": 2, "Y": 3}), "n1": ("inverter", {"A": 3, "Y": 4})},
                    {"a": 2}, {"y": 4}, head + "cell (inverter)" + body + "cell (buffer)" + rest)
    first = stage(0.1, 0.0, 1)
    assert found.delay == pytest.approx(1 + first + stage(0.1, first, 0), abs=1e-12)


def test_units_and_the_order_of_the_axes_make_no_difference():
    text = liberty_text()
    in_ps = text.replace('"1ns"', '"1ps"').replace("(1, pf)", "(1, ff)")
    in_ps = re.sub(r'"([\d., ]+)"', lambda m: '"' + ", ".join(
        f"{float(v) * 1000:.4f}" for v in m[1].split(", ")) + '"', in_ps)
    in_ps = in_ps.replace("capacitance : 0.002", "capacitance : 2.0")
    timing, same = (read_cells(content)[0]["q7"].timing() for content in (text, in_ps))
    for pin, values in timing.capacitance.items():
        assert same.capacitance[pin] == pytest.approx(values)
    for arc, other in zip(timing.arcs["Y"], same.arcs["Y"], strict=True):
        np.testing.assert_allclose(other.cell_rise.values, arc.cell_rise.values)
        np.testing.assert_allclose(other.cell_rise.load, arc.cell_rise.load)
        np.testing.assert_allclose(other.cell_rise.transition, arc.cell_rise.transition)

    def swapped(match):
        rows = [row.split(", ") for row in re.findall(r'"([^"]*)"', match[1])]
        columns = ('"' + ", ".join(column) + '"' for column in zip(*rows, strict=True))
        return "values (" + ", ".join(columns) + ");"

    other = re.sub(r"values \((.*?)\);", swapped, text)
    other = other.replace("variable_1 : input_net_transition", "variable_1 : total_output_net_capacitance", 1)
    other = other.replace("variable_2 : total_output_net_capacitance", "variable_2 : input_net_transition", 1)
    other = other.replace('index_1 ("0.01, 0.1, 1.0")', "@").replace("index_2", "index_1")
    other = other.replace("@", 'index_2 ("0.01, 0.1, 1.0")')
    turned = read_cells(other)[0]["q7"].timing().arcs["Y"][0].cell_rise
    np.testing.assert_allclose(turned.values, timing.arcs["Y"][0].cell_rise.values)


def test_a_cell_without_tables_is_named():
    text = re.sub(r"timing \(\) \{.*?\n      \}\n", "", liberty_text(), flags=re.DOTALL)
    with pytest.raises(RunError, match="inverter"):
        path_of({"n": ("inverter", {"A": 2, "Y": 3})}, {"a": 2}, {"y": 3}, text)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_mapped_adder_has_the_delay_that_abc_gives(tmp_path, objective):
    """The library's cells have one sense for each arc, where abc's timing is the same model."""
    (tmp_path / "small.lib").write_text(liberty_text())
    library = load_library([str(tmp_path / "small.lib")], Cache(None))
    verilog = "module top(input [5:0] a, input [5:0] b, output [6:0] y);\n  assign y = a + b;\nendmodule\n"
    inputs = {"design.v": verilog, **abc_files(ABC_LIBERTY[objective] + "; stime"), "cells.lib": library.text}
    files = Engine().run(yosys_script("top", [], liberty=True), inputs, ("netlist.json",))
    by_abc = float(re.search(r"Delay\s*=\s*([\d.]+) ps", files["log"]).group(1))
    netlist = join(read_blocks(json.loads(files["netlist.json"]), library.cell), "top", library.cell)
    assert timed_path(netlist, library.timing(netlist.kinds)).delay * 1000 == pytest.approx(by_abc, abs=0.1)
