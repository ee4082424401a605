# SPDX-License-Identifier: Apache-2.0
"""Netlists read, joined, counted, and their longest path in gates."""

import random

import pytest

from bmhw.errors import RunError
from bmhw.flow.netlist import Cell, join, read_blocks
from bmhw.flow.paths import longest_path

GATE = Cell(frozenset("Y"))
CELLS = {"NOT": GATE, "AND": GATE, "DFF": Cell(frozenset("Q"), flip_flop=True)}


def module(inputs, outputs, cells):
    """A module as Yosys writes it: ports name -> bits, cells (kind or module, connections pin -> bits)."""
    ports = {name: {"direction": "input", "bits": bits} for name, bits in inputs.items()}
    ports |= {name: {"direction": "output", "bits": bits} for name, bits in outputs.items()}
    return {"ports": ports, "cells": {name: {"type": kind, "connections": pins}
                                      for name, (kind, pins) in cells.items()}}


def netlist(modules, top="top"):
    return join(read_blocks({"modules": modules}, CELLS.get), top, CELLS.get)


def stretches(path):
    return [(step.part, step.gates) for step in path.steps]


def chain(length):
    """``length`` inverters in a row from port a to port y."""
    cells = {f"n{i}": ("NOT", {"A": [2 + i], "Y": [3 + i]}) for i in range(length)}
    return module({"a": [2]}, {"y": [2 + length]}, cells)


def test_parts_are_counted_and_share_the_path_that_crosses_them():
    top = module({"a": [2]}, {"y": [5]}, {
        "first": ("three", {"a": [2], "y": [3]}), "again": ("three", {"a": [3], "y": [4]}),
        "own": ("NOT", {"A": [4], "Y": [5]})})
    found = netlist({"top": top, "three": chain(3)})
    assert found.count() == (7, 0)
    assert [found.count(part) for part in ("first", "again", "")] == [(3, 0), (3, 0), (1, 0)]
    path = longest_path(found)
    assert path.gates == path.delay == 7
    assert stretches(path) == [("first", 3), ("again", 3), ("", 1)]
    assert (path.begin, path.end) == ("a", "y")
    assert found.total({"NOT": 1.5}) == 10.5 and found.total({"NOT": 1.5}, "first") == 4.5


def test_a_part_below_a_part_belongs_to_it():
    inner = module({"a": [2]}, {"y": [3]}, {"deep": ("three", {"a": [2], "y": [3]})})
    top = module({"a": [2]}, {"y": [3]}, {"outer": ("inner", {"a": [2], "y": [3]})})
    found = netlist({"top": top, "inner": inner, "three": chain(3)})
    assert found.count("outer") == (3, 0) and stretches(longest_path(found)) == [("outer", 3)]


def test_signals_led_through_a_part_unchanged_keep_their_level():
    # y is a as it is, z and w are one net, c is a constant
    through = module({"a": [2], "b": [3]}, {"y": [2], "z": [4], "w": [4], "c": ["1"]},
                     {"n": ("NOT", {"A": [3], "Y": [4]})})
    top = module({"a": [2], "b": [3]}, {"o": [12, 13, 14, 15]}, {
        "pre": ("three", {"a": [2], "y": [5]}),
        "mid": ("through", {"a": [5], "b": [3], "y": [6], "z": [7], "w": [8], "c": [9]}),
        "n0": ("NOT", {"A": [6], "Y": [12]}), "n1": ("NOT", {"A": [7], "Y": [13]}),
        "n2": ("NOT", {"A": [8], "Y": [14]}), "n3": ("NOT", {"A": [9], "Y": [15]})})
    found = netlist({"top": top, "through": through, "three": chain(3)})
    assert found.count() == (8, 0)
    path = longest_path(found)
    assert stretches(path) == [("pre", 3), ("", 1)]
    assert (path.begin, path.end) == ("a", "o[0]")


def test_an_input_led_through_two_parts_is_still_that_input():
    wire = module({"a": [2]}, {"y": [2]}, {})
    # the parts stand against the order of the data
    top = module({"a": [2]}, {"y": [5], "z": [4]}, {
        "later": ("wire", {"a": [3], "y": [4]}), "sooner": ("wire", {"a": [2], "y": [3]}),
        "n": ("NOT", {"A": [4], "Y": [5]})})
    found = netlist({"top": top, "wire": wire})
    path = longest_path(found)
    assert (path.begin, path.end, path.gates) == ("a", "y", 1)
    assert found.outputs[next(iter(found.inputs))] == "z"


def test_flip_flops_cut_paths_and_are_no_gates():
    top = module({"a": [2], "clk": [9]}, {"y": [6]}, {
        "n0": ("NOT", {"A": [2], "Y": [3]}), "f": ("DFF", {"D": [3], "C": [9], "Q": [4]}),
        "n1": ("NOT", {"A": [4], "Y": [5]}), "n2": ("AND", {"A": [5], "B": [4], "Y": [6]})})
    found = netlist({"top": top})
    assert found.count() == (3, 1)
    path = longest_path(found)
    assert (path.begin, path.end, path.gates) == ("register", "y", 2)


def test_a_register_that_feeds_itself_is_no_loop_but_gates_alone_are():
    counter = module({"clk": [9]}, {"y": [2]}, {
        "n": ("NOT", {"A": [2], "Y": [3]}), "f": ("DFF", {"D": [3], "C": [9], "Q": [2]})})
    path = longest_path(netlist({"top": counter}))
    assert (path.begin, path.end, path.gates) == ("register", "register", 1)
    ring = module({}, {"y": [2]}, {"n": ("NOT", {"A": [2], "Y": [3]}), "m": ("NOT", {"A": [3], "Y": [2]})})
    with pytest.raises(RunError, match="loop"):
        longest_path(netlist({"top": ring}))


def test_no_gates_no_depth():
    wire = module({"a": [2]}, {"y": [2]}, {})
    found = netlist({"top": wire})
    path = longest_path(found)
    assert found.count() == (0, 0) and path.gates == 0 and path.steps == []
    assert (path.begin, path.end) == ("", "")


def test_an_unknown_cell_is_named():
    with pytest.raises(RunError, match="LATCH"):
        netlist({"top": module({"a": [2]}, {"y": [3]}, {"l": ("LATCH", {"A": [2], "Y": [3]})})})


@pytest.mark.parametrize("seed", range(20))
def test_depth_of_random_netlists_equals_a_plain_recursion(seed):
    print("seed", seed)
    generator = random.Random(seed)
    inputs = list(range(2, 8))
    level = dict.fromkeys(inputs, 0)
    cells = {}
    for net in range(8, 8 + generator.randrange(1, 80)):
        a, b = generator.choice(sorted(level)), generator.choice([*sorted(level)[-6:], *inputs])
        cells[f"g{net}"] = ("AND", {"A": [a], "B": [b], "Y": [net]})
        level[net] = max(level[a], level[b]) + 1
    names = list(cells)
    generator.shuffle(names)  # the order of the cells must not matter
    outputs = sorted(set(level) - set(inputs))
    found = netlist({"top": module({"a": inputs}, {"y": outputs}, {name: cells[name] for name in names})})
    path = longest_path(found)
    assert path.gates == max(level.values())
    # each gate of the path drives the next one
    for gate, following in zip(path.cells, path.cells[1:], strict=False):
        driven = set(found.output_net[found.output_cell == gate].tolist())
        assert driven & set(found.pin_net[found.pin_cell == following].tolist())
