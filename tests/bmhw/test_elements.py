# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.elements``: rows, shares of ends, page and plot; the committed ones."""

import json
from pathlib import Path

import pytest

from bmhw import elements
from bmhw.measure.elements import KINDS, Case, cases, ratios
from bmhw.show.element_tables import markdown
from bmhw.show.plots import elements as plot

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elements")
    assert elements.main(["--bits", "2", "--inputs", "64", "--kinds", "signed", "flushed", "mac", "--no-place",
                          "--jobs", "1", "--folder", str(folder)]) == 0
    return folder, json.loads((folder / "elements.json").read_text())


def test_rows_of_gates(result):
    folder, found = result
    assert [(row["kind"], row["group_inputs"]) for row in found["elements"]] == [
        ("BM signed", 16), ("BM signed", 64), ("MAC, flushed", 16), ("MAC", 64)]
    for row in found["elements"]:
        gates = row["gates"]
        share = sum(gates[end]["gates"] / number for end, number in row["served"].items())
        assert gates["with_share"]["gates"] == pytest.approx(gates["cell"]["gates"] + share)
        held = {"BM signed": 4, "MAC": 10, "MAC, flushed": 8}[row["kind"]]  # maxima; 64 products of -6 to 3, or 16
        between = {"BM signed": 2}.get(row["kind"], 4)
        assert gates["cell"]["flip_flops"] == 2 * held + between  # and a copy of what is held
        assert row["weight_bits"] == (3 if row["neuron"] == "bm" else 2)
        assert (row["waiting_bits"] > 0) == (row["kind"] != "MAC")
    assert markdown(found) == (folder / "elements.md").read_text()
    assert plot(found) == (folder / "elements.svg").read_bytes()


def test_redraw_measures_nothing(result, tmp_path):
    folder, found = result
    (tmp_path / "elements.json").write_text(json.dumps(found))
    assert elements.main(["--redraw", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / "elements.md").read_text() == (folder / "elements.md").read_text()


def test_ends_serve_as_many_elements_as_they_have_cycles_for():
    served = {name: Case(kind, 4, 576, 36).element.served for name, kind in KINDS.items()}
    assert served["signed"] == served["flushed"] == {"group_end": 36, "result_end": 576}
    assert served["wired"]["group_end"] == 18
    assert served["mac"] == {"group_end": 576, "result_end": 576}


def test_ratios_take_the_cheaper_mac():
    def row(kind, bits, cells, fmax):
        return {"kind": kind, "bits": bits, "placed": {"chip": {"with_share": cells, "fmax_mhz": fmax}}}

    rows = [row("BM signed", 4, 30.0, 200.0), row("MAC", 4, 90.0, 100.0), row("MAC, flushed", 4, 75.0, 160.0)]
    assert ratios(rows) == [
        {"mac_bits": 4, "mac": "MAC, flushed", "chip": "chip", "cells": 2.5, "fmax_mhz": 1.25}]


def test_cases_have_the_groups_that_divide():
    assert {(case.inputs, case.group_inputs) for case in cases([4], [64])} == {(64, 16), (64, 64)}
    assert all(case.inputs % case.group_inputs == 0 for case in cases([4], [64, 144, 576]))


@pytest.mark.parametrize(("options", "message"), [
    (["--inputs", "100"], "Fan-in must be one of 576, 144, 64, not 100"),
    (["--bits", "1"], "must be an integer from 2 to 16, not 1"),
    (["--seeds", "0"], "Number of seeds must be an integer from 1 to 100, not 0"),
])
def test_refusals(options, message, tmp_path):
    with pytest.raises(elements.UsageError, match=message):
        elements.main([*options, "--folder", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_committed_page_shows_the_committed_figures():
    found = json.loads((RESULTS / "elements.json").read_text())
    assert (RESULTS / "elements.md").read_text() == markdown(found)
    assert found["ratios"] == ratios(found["elements"])
