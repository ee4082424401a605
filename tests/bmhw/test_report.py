# SPDX-License-Identifier: Apache-2.0
"""What is measured for the package's table and for ``docs/results``: ``bmhw.explore`` and ``bmhw.report``."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from support.calls import call, figures_without_yosys, map_blocks_without_yosys

from bmhw import explore, layers, report
from bmhw.errors import RunError, UsageError
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import COMBINES, SUMS
from bmhw.measure import exploration
from bmhw.measure import layers as layer_measurement
from bmhw.measure.frontier import frontier
from bmhw.measure.selection import SCRIPT_OF, cost, ranking, rows
from bmhw.show import plots
from bmhw.show import report as pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of two small runs; what figures they find is the affair of test_layers.py."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_measurement, "_BM_ARCHITECTURES", 1)
        map_blocks_without_yosys(patch)
        for sums in ("full", "clamped"):
            arguments = ["--bits", "2", "--layers", "stem,stage0_block1_conv1,stage1_block0_conv3", "--sums", sums]
            assert layers.main([*arguments, "--json", str(out / f"layers-{sums}.json"), "--jobs", "1"]) == 0
    return out


# -- the table of architectures


def few(monkeypatch):
    """Three designs a format instead of dozens: two with the end that selects, one of them with the other end too."""
    monkeypatch.setattr(exploration, "BOTH_SCRIPTS", ((2, 2), (3, 2)))
    monkeypatch.setattr(exploration, "MAC_ADDERS", ("sklansky",))
    monkeypatch.setattr(exploration, "MAC_MULTIPLIERS", ("dadda",))
    monkeypatch.setattr(exploration, "BM_PAIRS", (("tree", "ripple"), ("online", "ripple")))
    monkeypatch.setattr(exploration, "SMALL_PAIRS", (("tree", "ripple"),))


def test_explore_measures_every_design_with_every_script_and_keeps_other_shapes(monkeypatch, tmp_path):
    few(monkeypatch)
    mapped = []

    def stand_in(verilog, top, *, objective, **options):
        mapped.append((verilog, objective))
        return figures_without_yosys(verilog)

    monkeypatch.setattr(exploration, "map_design", stand_in)
    out = tmp_path / "table.json"
    for bits in ("2", "3"):
        explore.main(["--bits", bits, "--inputs", "2", "--out", str(out), "--jobs", "1"])
    table = json.loads(out.read_text())
    assert len(table["rows"]) == 2 * 2 * (1 + 4 * 3)
    found = {(row["bits"], row["layout"], row["sums"], row["architecture"].get("maximum"),
              row["architecture"].get("end"), row["script"]) for row in table["rows"]}
    bm = ((bits, layout, sums, *built, script) for bits, layout, sums, built, script in itertools.product(
        (2, 3), ("relu", "signed"), ("full", "clamped"),
        (("tree", "select"), ("online", "select"), ("tree", "subtract")), ("area", "delay")))
    mac = itertools.product((2, 3), (None,), (None,), (None,), (None,), ("area", "delay"))
    assert found == {*bm, *mac}
    # each design by both scripts, and none of them twice
    assert len(set(mapped)) == len(mapped) == len(table["rows"])
    assert {one for one, script in mapped if script == "area"} == {one for one, script in mapped if script == "delay"}
    table["engine"] = "pyosys 0.1"
    out.write_text(json.dumps(table))
    with pytest.raises(RunError, match=r"was measured by pyosys 0.1, not .*: measure all shapes, or take --out"):
        exploration.merged({"engine": Engine().version, "yosys": "", "rows": []}, out, [(2, 2)])


def test_explore_measures_some_families_and_keeps_the_others(monkeypatch, tmp_path):
    few(monkeypatch)
    monkeypatch.setattr(exploration, "WIRED", ((2, 2),))
    out = tmp_path / "table.json"
    common = ["--bits", "2", "--inputs", "2", "--out", str(out), "--jobs", "1"]
    explore.main([*common, "--families", "wired"])
    wired = json.loads(out.read_text())["rows"]
    assert wired and {(row["layout"], row["sums"]) for row in wired} == {("wired", "clamped")}
    for row in wired:
        assert row["gates"] > 0 and row["depth"] > 0
        row["gates"] = -1  # whatever it was: it isn't measured again
    out.write_text(json.dumps({**json.loads(out.read_text()), "rows": wired}))
    explore.main([*common, "--families", "mac"])
    rows_now = json.loads(out.read_text())["rows"]
    assert [row for row in rows_now if row["layout"] == "wired"] == wired
    assert {row["neuron"] for row in rows_now if row not in wired} == {"mac"}


def test_linear_results_are_measured_where_asked_for(monkeypatch):
    few(monkeypatch)
    without = list(exploration.designs(3, 2))
    monkeypatch.setattr(exploration, "LINEAR", {(3, 2): SUMS})
    added = [design for design in exploration.designs(3, 2) if design not in without]
    mac = [design for design in added if design.neuron == "mac"]
    assert {design.format.result for design in mac} == {"linear"}
    assert [design.architecture for design in mac] == [
        design.architecture for design in without if design.neuron == "mac"]
    added = [design for design in added if design not in mac]
    assert {(design.format.layout, design.format.sums, design.maximum) for design in added} == set(
        itertools.product(("relu", "signed"), SUMS, ("tree", "online")))
    assert {(design.format.result, design.format.combine) for design in added} == {("linear", "linear")}


def test_groups_are_measured_where_asked_for(monkeypatch):
    few(monkeypatch)
    without = list(exploration.designs(3, 4))
    assert {exploration.family_of(exploration.shape(design.format)) for design in without} == {"mac", "relu", "signed"}
    monkeypatch.setattr(exploration, "GROUPS", {(3, 4): (1, 2)})
    added = [design for design in exploration.designs(3, 4) if design not in without]
    assert {exploration.family_of(exploration.shape(design.format)) for design in added} == {"groups"}
    of_two = set(itertools.product(("relu", "signed", "wired"), (2,), (("clamped", "code"), ("full", "code"),
                                                                       ("clamped", "linear"))))
    of_one = set(itertools.product(("relu", "signed", "wired"), (1,), [("clamped", "code")]))
    formats = {design.format for design in added}
    assert {(fmt.layout, fmt.groups, (fmt.sums, fmt.result)) for fmt in formats} == of_one | of_two
    assert len(set(added)) == len(added)
    for fmt in formats:
        own = [design for design in added if design.format == fmt]
        plain = {"subtract"} if fmt.groups > 1 else set()
        assert {design.end for design in own} == plain | set(exploration.GROUP_ENDS[fmt.result])
        assert {(design.maximum, design.adder) for design in own} == set(exploration.GROUP_PAIRS)
    monkeypatch.setattr(exploration, "ONLY_GROUPS", ((3, 4),))
    assert list(exploration.designs(3, 4)) == added


def test_a_row_says_what_synthesis_finds(monkeypatch):
    few(monkeypatch)
    table = exploration.explore(Engine(), Cache(None), [(2, 2)], 1, ["mac"])
    (area, delay) = table["rows"]
    assert area["script"] == "area" and delay["script"] == "delay"
    assert all(row["gates"] > 0 and row["depth"] > 0 for row in table["rows"])


def test_the_ranking_tells_apart_what_agrees_in_one_width_only():
    """5-bit codes with whole sums and 8-bit ones with clamped sums may both have maxima of 6 bits."""
    common = {"inputs": 9, "boundary": "layer", "layout": "signed", "combine": "logarithmic"}
    for fmt in (BmFormat(bits=5, **common), BmFormat(bits=8, sums="clamped", maximum_bits=6, **common)):
        same = [row for row in rows() if row["layout"] == "signed" and row["inputs"] == 9 and row["bits"] == fmt.bits
                and row["script"] == "area" and row["sums"] == fmt.sums and row["combine"] == fmt.combine]
        best = min(same, key=lambda row: cost("area", row))
        assert ranking(fmt, "area")[0] == best["architecture"]


@pytest.mark.parametrize("objective", SCRIPT_OF)
@pytest.mark.parametrize("combine", COMBINES)
def test_the_ranking_is_that_of_the_shipped_rows(objective, combine):
    fmt = BmFormat(inputs=9, bits=8, boundary="layer", layout="signed", combine=combine)
    if combine == "linear" and objective == "delay":  # not measured with this script: that of logarithmic ends counts
        assert ranking(fmt, objective) == ranking(dataclasses.replace(fmt, combine="logarithmic"), objective)
        return
    same = [row for row in rows() if row["neuron"] == "bm" and row["layout"] == "signed" and row["inputs"] == 9
            and row["combine"] == combine
            and (row["bits"], row["maximum_bits"]) == (fmt.log_bits, fmt.maximum_bits)
            and row["script"] == SCRIPT_OF[objective]]
    ranked = ranking(fmt, objective)
    assert len(ranked) == len({tuple(row["architecture"].items()) for row in same}) > 3
    best = min(same, key=lambda row: cost(objective, row))
    first = next(row for row in same if row["architecture"] == ranked[0])
    assert cost(objective, first) == cost(objective, best)
    assert all(choice["adder"] == "sklansky" for choice in ranking(fmt, objective, {"adder": "sklansky"}))


@pytest.mark.parametrize("arguments, words", [
    (["--bits", "17"], ["2 to 16", "17"]),
    (["--inputs", "0"], ["1 or more", "0"]),
    (["--jobs", "0"], ["1 or more", "0"]),
])
def test_bad_input_of_explore(arguments, words):
    result = call("bmhw.explore", *arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words)


def test_explore_measures_nothing_for_a_file_that_is_not_its_own(monkeypatch, tmp_path):
    few(monkeypatch)
    monkeypatch.setattr(explore, "explore", lambda *_: pytest.fail("measured"))
    for text in ("", "not JSON", "[]", "{}", '{"engine": "", "yosys": "", "rows": [{"bits": 3}]}'):
        (tmp_path / "table").write_text(text)
        with pytest.raises(RunError, match=r"table is no table of bmhw\.explore"):
            explore.main(["--bits", "3", "--inputs", "2", "--out", str(tmp_path / "table")])
        assert (tmp_path / "table").read_text() == text


def test_families_without_a_design_at_a_shape_are_one_line():
    with pytest.raises(UsageError, match="no design of wired to measure at 3 bits and 4 inputs"):
        explore.explore(Engine(), Cache(None), [(3, 4)], 1, ["wired"])


# -- the report


@pytest.mark.parametrize("name", ["README.md", "gates-depth.svg"])
def test_a_file_that_is_not_the_reports_own_is_left_alone(name, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "results")
    mine = tmp_path / "results" / name
    report.main(["--folder", str(mine.parent)])
    report.main(["--folder", str(mine.parent)])  # its own
    before = {path.name: path.read_bytes() for path in mine.parent.iterdir()} | {name: b"mine"}
    mine.write_bytes(b"mine")
    with pytest.raises(RunError, match=rf"{name}: it exists and is not a file of bmhw\.report"):
        report.main(["--folder", str(mine.parent)])
    assert {path.name: path.read_bytes() for path in mine.parent.iterdir()} == before


@pytest.mark.parametrize("change", [
    {"objective": "cheap"}, {"sums": 3, "maximum_bits": []}, {"layers": [{}]}, {"tools": None}, {"total": "x"},
    {"branches": ["relu"], "command": None, "layers": 1},
])
def test_a_result_with_something_else_in_it_is_one_line(change, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "results")
    path = next((tmp_path / "results").glob("layers-*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    try:
        report.main(["--folder", str(path.parent)])
    except RunError as error:
        assert f"{path.name} is no result of bmhw.layers" in str(error) and "\n" not in str(error)


def test_no_point_of_a_frontier_is_beaten_and_every_other_one_is():
    rng = np.random.default_rng(5)
    points = [{"depth": int(d), "gates": int(g)} for d, g in rng.integers(1, 30, size=(200, 2))]
    best = frontier(points)

    def beats(a, b):
        return a["depth"] <= b["depth"] and a["gates"] <= b["gates"] and a != b

    assert not any(beats(a, b) for a in points for b in best)
    assert all(any(beats(b, p) for b in best) for p in points if p not in best)


def test_ranges_are_those_of_the_layers(folder):
    result = json.loads((folder / "layers-full.json").read_text())
    code = [row["ratio"] for row in result["layers"] if row["output"] == "code" and row["fan_in"] >= 64]
    assert len(code) == 1  # the stem has nine inputs
    for name, (low, mean, high) in pages.ranges(result, "code").items():
        assert low == high == code[0][name] == pytest.approx(mean)
    assert set(pages.ranges(result, "linear")) == {"gates", "depth"}


def test_the_page_shows_every_run_and_the_command_that_measures_it(folder, capsys):
    assert report.main(["--folder", str(folder)]) == 0
    page = (folder / "README.md").read_text()
    for sums in ("full", "clamped"):
        result = json.loads((folder / f"layers-{sums}.json").read_text())
        assert f"`{result['command']}`" in page and "--json" not in result["command"]
        assert f"{result['total']['mac']['gates']:,}" in page and result["date"] in page
    assert "gates-depth.svg" in page and "from 2 runs" in capsys.readouterr().out
    svg = (folder / "gates-depth.svg").read_bytes()
    assert svg == plots.gates_depth()


def test_a_goal_is_met_only_where_every_layer_meets_it():
    def row(gates, depth):
        return {"ratio": {"gates": gates, "depth": depth}, "output": "code", "fan_in": 64}

    result = {"branches": "relu", "mac_bits": 8, "bm_bits": 8, "objective": "balanced",
              "layers": [row(3.0, 0.7), row(2.9, 0.76)]}
    assert pages._goal(result, "code", pages.ranges(result, "code")) == "gates 2.9: met, path 0.75: missed"
    for layer in result["layers"]:
        layer["output"] = "linear"
        layer["ratio"] |= {"area_gate_equivalents": 3.4, "delay_ns": 0.75}
    linear = pages.ranges(result, "linear")
    assert pages._goal(result, "linear", linear) == "gates 2.9: met, path 0.95: met"
    assert pages._goal(result, "code", linear) == (
        "gates 2.9: met, path 0.75: missed, GE 3.5: missed, ns 0.75: met")
    goals = [pages._goal({**result, "branches": layout, "log_bits": 5}, output, linear)
             for layout in ("signed", "wired") for output in ("code", "linear")]
    assert goals[:2] == goals[2:] and "gates 6: missed" in goals[0] and "path 0.75: missed" in goals[1]


def test_bad_folders_are_one_line(tmp_path):
    with pytest.raises(RunError, match="no layers-"):
        report.main(["--folder", str(tmp_path)])
    (tmp_path / "layers-x.json").write_text('{"layers": []}')
    with pytest.raises(RunError, match=r"layers-x.json is no result of bmhw.layers"):
        report.main(["--folder", str(tmp_path)])
    assert not (tmp_path / "README.md").exists()
