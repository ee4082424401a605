# SPDX-License-Identifier: Apache-2.0
"""The choice of architectures from the shipped measurements, against runs of ``bmhw.layers --explore``."""

import dataclasses
import json
from pathlib import Path

import pytest

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.measure import selection
from bmhw.measure.layers import _MAC_ARCHITECTURES, FLAT_INPUTS, SCRIPTS
from bmhw.measure.selection import MARGIN, contenders, cost, ranking, shape

RESULTS = sorted((Path(__file__).parents[3] / "docs/results").glob("layers-*.json"))


def explored(path):
    """(layer, its MAC format, the scripts that count there, the candidates of its own fan-in) of a run."""
    result = json.loads(path.read_text())
    scripts = SCRIPTS[result["objective"]]
    names = {field.name for field in dataclasses.fields(MacFormat)}
    for layer in result["layers"]:
        design = layer["mac"]["design"]
        fmt = MacFormat(**{name: value for name, value in design.items() if name in names})
        own = [one for one in layer["mac"]["candidates"] if one["inputs"] == layer["fan_in"]]
        yield (result["objective"], layer, fmt, scripts if layer["fan_in"] <= FLAT_INPUTS else ("area",), own)


def default(fmt, scripts, candidates, objective):
    """What ``bmhw.layers`` takes of the candidates: the best one whose architecture it tries; None if it tries none."""
    tries = _MAC_ARCHITECTURES if fmt.inputs > FLAT_INPUTS else None
    architectures = contenders(fmt, objective, scripts).architectures[:tries]
    tried = [one for one in candidates if any(architecture.items() <= one.items() for architecture in architectures)]
    return min(tried, key=lambda one: cost(objective, one), default=None)


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_the_default_finds_the_mac_neurons_that_exploring_found(path):
    """In each of the 22 layers, for each objective and requantisation: within 1 % of gates x depth."""
    layers = 0
    for objective, layer, fmt, scripts, own in explored(path):
        chosen = default(fmt, scripts, own, objective)
        assert chosen is not None, (layer["name"], "measured none of those that are chosen")
        best = layer["mac"]
        assert chosen["gates"] * chosen["depth"] <= 1.01 * best["gates"] * best["depth"], layer["name"]
        layers += 1
    assert layers == 22


def test_without_the_margin_a_worse_mac_neuron_would_be_taken(monkeypatch):
    """The margin is needed, not only harmless."""
    monkeypatch.setattr(selection, "MARGIN", 0.0)
    losses = []
    for path in RESULTS:
        for objective, layer, fmt, scripts, own in explored(path):
            chosen = default(fmt, scripts, own, objective)
            best = layer["mac"]
            losses.append(chosen and chosen["gates"] * chosen["depth"] / (best["gates"] * best["depth"]))
    assert max(loss for loss in losses if loss) > 1.01


def test_results_of_every_objective_and_requantisation_are_there():
    """What the tests above are worth depends on it."""
    found = {(result["objective"], result["requantize"]) for result in (json.loads(p.read_text()) for p in RESULTS)}
    assert {("area", "scale"), ("balanced", "scale"), ("delay", "scale"), ("balanced", "shift")} <= found


MEASURED = MacFormat(inputs=64, bits=8, boundary="layer")


def test_a_measured_shape_needs_one_try():
    for fmt in (MEASURED, dataclasses.replace(MEASURED, result="linear", requantize_shift=None)):
        found = contenders(fmt, "balanced")
        assert found.exact and found.measured == shape(fmt)
        assert list(found.architectures) == ranking(fmt, "balanced")[:1]


@pytest.mark.parametrize("other", [{"inputs": 65}, {"bits": 7}, {"weight_bits": 7}, {"requantize": "shift"}])
def test_any_other_shape_gets_all_within_the_margin(other):
    fmt = MacFormat(**{"inputs": 64, "bits": 8, "boundary": "layer", **other})
    found = contenders(fmt, "balanced")
    assert not found.exact and found.measured["inputs"] == 64 and found.measured["bits"] == 8
    rows = [row for row in selection.rows() if row["neuron"] == "mac" and row["script"] == "area"
            and (row["bits"], row["inputs"], row["result"]) == (8, 64, found.measured["result"])]
    costs = {tuple(row["architecture"].items()): row["gates"] * row["depth"] for row in rows}
    within = {name for name, value in costs.items() if value <= (1 + MARGIN) * min(costs.values())}
    assert {tuple(one.items()) for one in found.architectures} == within and 1 < len(within) < len(costs)
    assert tuple(found.architectures[0].items()) == min(costs, key=costs.get)


def test_a_mac_neuron_is_chosen_with_what_follows_it():
    """A multiplication by a scale is long: a code is chosen among codes; a shift and a linear result, among the others,
    where they are measured as near."""
    result = {word: contenders(MacFormat(inputs=64, bits=8, boundary="layer", **options), "area").measured["result"]
              for word, options in {"scale": {}, "shift": {"requantize": "shift"}, "sum": {"result": "linear"}}.items()}
    assert result == {"scale": "code", "shift": "linear", "sum": "linear"}
    # at 16 bits only codes are measured: a width of its own is nearer than another end
    wide = contenders(MacFormat(inputs=9, bits=16, boundary="layer", result="linear"), "area")
    assert (wide.measured["bits"], wide.measured["result"], wide.exact) == (16, "code", False)


def test_a_bm_neuron_has_one_try():
    for inputs in (9, 64, 576):
        for layout in ("relu", "signed", "wired"):
            fmt = BmFormat(inputs=inputs + inputs % 2, bits=8, layout=layout, boundary="layer", sums="clamped",
                           maximum_bits=5, combine="logarithmic")
            for objective in ("area", "balanced", "delay"):
                assert list(contenders(fmt, objective).architectures) == ranking(fmt, objective)[:1]


def test_every_row_of_the_table_is_one_of_a_shape():
    """No architecture is measured twice with one script at one shape, and each row has the keys of the others."""
    keys = {tuple(row) for row in selection.rows()}
    assert len(keys) == 1
    named = [tuple(row[name] for name in (*shape(MEASURED), "sums", "script")) + tuple(row["architecture"].items())
             for row in selection.rows()]
    assert len(set(named)) == len(named)


class TestGroups:
    GROUPED = BmFormat(inputs=64, bits=4, layout="signed", boundary="layer", sums="clamped", groups=4)

    @pytest.mark.parametrize("change", [{}, {"inputs": 144}, {"sums": "full"}, {"layout": "wired"}, {"groups": 16},
                                        {"log_fraction": 1}], ids=str)
    @pytest.mark.parametrize("objective", ["area", "balanced", "delay"])
    def test_groups_are_chosen_among_groups(self, objective, change):
        """Delay has no measurements of its own there."""
        fmt = dataclasses.replace(self.GROUPED, **change, maximum_bits=None)
        found = contenders(fmt, objective)
        assert found.measured["groups"] == 4 and found.measured["result"] == "code"
        assert found.measured["zero"] == "exact" and found.measured["layout"] == fmt.layout
        same = [row for row in selection.rows() if {name: row[name] for name in found.measured} == found.measured]
        assert found.architectures[0] == min(same, key=lambda row: cost(objective, row))["architecture"]

    def test_one_group_is_chosen_among_its_own(self):
        for result in ("code", "linear"):
            fmt = dataclasses.replace(self.GROUPED, groups=1, zero=None, result=result)
            found = contenders(fmt, "balanced")
            assert (found.measured["groups"], found.measured["result"]) == (1, result)
            assert ("anticipate" in found.architectures[0]["end"]) == (result == "code")

    def test_no_end_is_chosen_that_the_neuron_cannot_have(self):
        """The log2 of two rows needs a code behind it, and few fraction bits."""
        for change in ({"result": "linear"}, {"out_fraction": 13}):
            fmt = dataclasses.replace(self.GROUPED, **change)
            ends = {architecture["end"] for architecture in ranking(fmt, "balanced")}
            assert ends and not ends & {"anticipate", "select_anticipate"}
        three = BmFormat(inputs=64, bits=3, layout="signed", boundary="layer", sums="clamped", groups=4)
        assert ranking(three, "delay")[0]["maximum"] == "unary"
        assert "unary" not in {one["maximum"] for one in ranking(dataclasses.replace(three, bits=5, log_bits=5,
                                                                                     weight_bits=5, maximum_bits=5),
                                                                 "balanced")}


def test_a_serial_neuron_gets_an_architecture_that_it_can_have(monkeypatch):
    """Ends in rows and unary maxima are for all groups at once."""
    best = {"maximum": "unary", "adder": "ripple", "end": "anticipate"}
    other = {"maximum": "tree", "adder": "ripple", "end": "subtract"}
    rows = [{"neuron": "bm", "layout": "signed", "bits": 4, "maximum_bits": 4, "inputs": 64, "combine": "linear",
             "result": "code", "groups": 1, "zero": "step",
              "script": "area", "architecture": architecture, "gates": gates, "depth": 9}
            for architecture, gates in ((best, 100), (other, 200))]
    monkeypatch.setattr(selection, "rows", lambda: tuple(rows))
    fmt = BmFormat(inputs=64, bits=4, layout="signed", sums="clamped", boundary="layer")
    assert selection.choose(fmt, "area") == best
    assert selection.choose(fmt, "area", form="serial") == other
