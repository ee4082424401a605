# SPDX-License-Identifier: Apache-2.0
"""Liberty files however they are written: the same cells; what is no Liberty is one line with its place."""

import dataclasses
import re

import pytest
from support.liberty_text import liberty_text

from bmhw.errors import RunError
from bmhw.flow.liberty_cells import read_cells
from bmhw.flow.liberty_functions import Function
from bmhw.flow.liberty_syntax import number, parse

TEXT = liberty_text()
CELL = re.search(r"  cell \(q7\).*?\n  \}\n", TEXT, re.DOTALL)[0]
WRONG = CELL.replace("2.5", "99").replace("0.1", "9.1")  # what must not count
TEMPLATE = re.search(r"  lu_table_template.*?\n  \}\n", TEXT, re.DOTALL)[0]


def cells_of(text):
    """The cells of a text, whatever line they stand in."""
    return {name: dataclasses.replace(cell, line=0) for name, cell in read_cells(text)[0].items()}


def behind(moved, text=TEXT):
    """A part of a library behind its cells."""
    assert moved in text
    body = text.replace(moved, "")
    return body[:body.rindex("}")] + moved + "}\n"


WRITTEN = {
    "a commented cell behind": TEXT[:TEXT.rindex("}")] + f"/* old:\n{WRONG}*/\n}}\n",
    "a commented cell before": TEXT.replace("  cell (inverter)", f"/*{WRONG}*/  cell (inverter)"),
    "a commented cell in a cell": TEXT.replace("  cell (q7) {", f"  cell (q7) {{ /* }} {WRONG} */"),
    "cells in line comments": TEXT.replace("\n", " // cell (q7) { area : 9; } /* \n"),
    "comments between all words": re.sub(r"(?<=[;{}:])", ' /* " { */', TEXT),
    "a comment in a value": TEXT.replace("area : 2.5;", "area : /* 1; */ 2.5 /* } */ ;"),
    "a comment between values": TEXT.replace('values ("', 'values ( /* "9" */ "'),
    "a comment that ends in a star": TEXT.replace("  cell (q7)", "/** 2 **/ /***/ cell (q7)"),
    "comment marks in a string": TEXT.replace("  cell (q7) {", '  cell (q7) { note : "http://x /* {";'),
    "an escaped quote in a string": TEXT.replace("  cell (q7) {", '  cell (q7) { note : "a \\" } b";'),
    "braces in a string of a skipped group": TEXT.replace(
        "  cell (q7) {", '  cell (q7) { leakage_power () { when : "}"; /* } */ value : 1; // }\n }'),
    "units behind the cells": behind('  time_unit : "1ns";\n', behind("  capacitive_load_unit (1, pf);\n")),
    "a template behind its use": behind(TEMPLATE),
    "units without quotes": TEXT.replace('"1ns"', "1ns").replace("(1, pf)", '("1.0", "PF")'),
    "lines that go on": re.sub(r'", "', '", \\\\\n   "', TEXT).replace("area :", "area \\\n : \\  \n"),
    "lists over lines without a sign": re.sub(r'", "', '",\n"', TEXT),
    "rows in one string": re.sub(r'(?<=\d)", "(?=\d)', ", ", TEXT),
    "no semicolons": re.sub(r";(?=\s*\n)", "", TEXT),
    "no semicolon before a brace": TEXT.replace('clock : true; }', 'clock : true }'),
    "semicolons behind groups": TEXT.replace("}\n", "};\n"),
    "as few blanks as can be": re.sub(r"\s*([{}();:])\s*", r"\1", TEXT),
    "names in quotes": re.sub(r"(cell|pin) \((\w+)\)", r'\1 ("\2")', TEXT),
    "numbers in quotes": re.sub(r"(area|capacitance) : ([\d.]+)", r'\1 : "\2"', TEXT),
    "expressions": TEXT.replace("area : 2.5;", "area : (5 + 2 * 2.5) / 4.0;").replace("0.002;", "2 * 1e-3;"),
    "definitions": TEXT.replace("  cell (q7) {", '  define (own, cell, string);\n  cell (q7) { own : "x"; two (1, a);'),
    "an attribute twice": TEXT.replace("area : 5.0;", "area : 1;\n    area : 5.0;"),
    "one group for two pins": re.sub(r"pin \(A\) \{ (.*?\})\n    pin \(B\) \{ \1", r"pin (A, B) { \1", TEXT),
    "other words for functions": TEXT.replace("(A' + B')", "!(A * B)").replace("!(A | B)", "A'B'"),
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_the_same_cells_however_they_are_written(text):
    assert text != TEXT
    plain, found = cells_of(TEXT), cells_of(text)
    for name, cell in found.items():  # functions may look different
        pins = [pin._replace(function=None) for pin in cell.pins]
        assert pins == [pin._replace(function=None) for pin in plain[name].pins]
        assert dataclasses.replace(cell, pins=[]) == dataclasses.replace(plain[name], pins=[])
    assert list(found) == list(plain) and found["q7"].kind == "nand2"


BROKEN = {
    "nothing": ("", "line 1: no library group"),
    "words": ("hello there", "line 1: 'hello' is followed by neither"),
    "not closed": ("library (l) {\n cell (A) {\n area : 1;\n", r"line 2: the \{ of cell \(A\) is not closed"),
    "closed too often": ("library (l) {\n}\n}\n", r"line 3: \} without a \{"),
    "a skipped group not closed": ("library (l) {\n cell (A) {\n leakage_power () {\n } /* } */",
                                   r"line 2: the \{ of cell"),
    "a skipped group never closed": ("library (l) {\n leakage_power () {\n {", r"line 2: the \{ of leakage_power"),
    "a comment not closed": ("library (l) {\n\n/* cell (A) { }\n}\n", "line 3: a comment is not closed"),
    "a comment in a value": ("library (l) {\n area : 1 /* 2;\n}\n", "line 2: a comment is not closed"),
    "a comment in a skipped group": ("library (l) {\n pg_pin (A) {\n/* } }", "line 3: a comment is not closed"),
    "a string not closed": ('library (l) {\n note : "x;\n}\n', "line 2: a quoted string is not closed"),
    "a string in a list": ('library (l) {\n values ("1, 2);\n}\n', "line 2: a quoted string is not closed"),
    "a string in a skipped group": ('library (l) {\n pg_pin (A) {\n x : "}', "line 3: a quoted string is not closed"),
    "a list not closed": ("library (l) {\n values (1, 2;\n}\n", r"line 2: the \( of values is not closed"),
    "no colon": ("library (l) {\n cell (A) {\n area 1;\n} }", "line 3: 'area' is followed by neither"),
    "a brace in a value": ("library (l) {\n area : {\n}", r"line 2: \{ in the value of area"),
    "a name is missing": ("library (l) {\n : 1;\n}", "line 2: a name is expected, not ':'"),
    "two cells of one name": ("library (l) {\n cell (A) { }\n cell (A) { } }",
                              "line 3: cell A is there a second time, after line 2"),
    "a cell without a name": ("library (l) {\n cell () { } }", "line 2: a cell has one name, not 0"),
    "no number": ("library (l) {\n cell (A) { area : large; } }", "line 2: cell A: 'large' is no number"),
    "not a finite number": ("library (l) {\n cell (A) { area : nan; } }", "cell A: 'nan' is no number"),
    "a division by zero": ("library (l) {\n cell (A) { area : 1/0; } }", "cell A: '1/0' is no number"),
    "a negative area": ("library (l) { cell (A) { area : -1; } }", "cell A: area must be 0 or more, not -1"),
    "a pin twice": (TEXT.replace("pin (B)", "pin (A)", 1), "cell q7: pin A is there 2 times"),
    "a unit": (TEXT.replace('"1ns"', '"1 day"'), "library small: a unit '1 day' that is not understood"),
    "a unit of nothing": (TEXT.replace('"1ns"', '"0ns"'), "library small: a unit '0ns'"),
    "half a unit": (TEXT.replace("(1, pf)", "(1)"), "library small: a unit '1'"),
    "another file": ("library (l) { include_file (more.lib); }", r"include_file \(more.lib\) is not followed"),
    "a function": (TEXT.replace("!(A & B)", "!(A & B"), "cell bigger_nand: function"),
    "a value": (TEXT.replace("0.2040", "0.20x", 1), "line 29: cell buffer: '0.20x' is no number"),
    "too few values": (TEXT.replace("0.2040, ", "", 1), "cell buffer: cell_rise has 8 values, not 3 x 3"),
    "an axis that falls": (TEXT.replace("0.01, 0.1, 1.0", "0.1, 0.01, 1.0"), "index_1 of cell_rise does not rise"),
}


@pytest.mark.parametrize("text, words", BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_one_line_with_its_place(text, words):
    with pytest.raises(RunError, match=words) as caught:
        read_cells(text)
    assert "\n" not in str(caught.value)


def test_groups_hold_what_stands_in_them():
    root = parse('a (x, "y z") {\n b : "1";\n b : 2;\n c (1); c (2, 3);\n d () { }\n e () { f : 1; }\n}\n', {"d"})
    (group,) = root.groups
    assert (group.kind, group.arguments, group.line) == ("a", ["x", "y z"], 1)
    assert group.attributes == {"b": ["2"], "c": ["2", "3"]} and group.lists == [("c", ["1"]), ("c", ["2", "3"])]
    assert [(inner.kind, inner.line, inner.first("f")) for inner in group.groups] == [("e", 6, "1")]


@pytest.mark.parametrize("text, value", [("1.5", 1.5), ("-2e-3", -0.002), ("2 * (1 + 3)", 8.0), ("+1 - -1", 2.0)])
def test_numbers_may_be_expressions(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "VDD", "1 2", "inf", "2 ** 9", "(1", "True", "'1'", "().real"])
def test_what_is_no_number_is_said(text):
    with pytest.raises(ValueError, match="is no number"):
        number(text)


@pytest.mark.parametrize("text, truth", [
    ("A", 0b10101010), ("!A", 0b01010101), ("A'", 0b01010101), ("!A'", 0b10101010), ("A''", 0b10101010),
    ("A B", 0b10001000), ("A&B", 0b10001000), ("A * B", 0b10001000), ("A+B", 0b11101110), ("A|B", 0b11101110),
    ("(A)(B)", 0b10001000), ("A !B", 0b00100010), ("A^B", 0b01100110),
    ("A+B C", 0b11101010),  # and before or
    ("A^B C", 0b01100000),  # exclusive or before and
    ("A^B+C", 0b11110110), ("!A B", 0b01000100), ("(A B)'", 0b01110111), ("A B'", 0b00100010),
    ("1", 0b11111111), ("0", 0b00000000), ("A 1", 0b10101010), ('"A" & "B"', 0b10001000),
])
def test_functions_are_read_as_liberty_has_them(text, truth):
    function = Function(text)
    assert function.truth("ABC") == truth
    assert Function(function.text).truth("ABC") == truth


def test_a_function_depends_on_what_changes_it():
    assert Function("A B + A B'").support == ["A"]
    assert Function("A A'").support == [] and Function("A A'").names == ["A"]
    wide = [f"I{i}" for i in range(20)]
    assert Function(" ".join(wide)).support == wide
    long = Function(" + ".join(["A B", "B C"] * 5000))
    assert long.support == ["A", "B", "C"] and Function(long.text).truth("ABC") == long.truth("ABC") == 0b11001000


@pytest.mark.parametrize("text", ["", "A &", "& A", "(A", "A)", "A ! ", "A - B", "'", "(" * 100_000, "!" * 100_000])
def test_what_is_no_function_is_said(text):
    with pytest.raises(ValueError, match="function"):
        Function(text)
