# SPDX-License-Identifier: Apache-2.0
"""Accuracies collected from cards, and which MAC network equals a BM network."""

import json
import shutil

import pytest

from bmhw.accuracy import main
from bmhw.errors import RunError, UsageError
from bmhw.models import ModelError
from bmhw.models.files.store import WEIGHTS
from bmhw.models.training.comparison import collect, equals, measure, repeats
from bmhw.show import plots
from bmhw.show.accuracy_tables import tables


@pytest.fixture
def folder(tmp_path):
    """The shipped digits network as files that a test may change."""
    for suffix in (".json", ".safetensors", "-float.safetensors"):
        shutil.copy(WEIGHTS / f"digits{suffix}", tmp_path)
    return tmp_path


def edit(folder, change):
    card = json.loads((folder / "digits.json").read_text())
    change(card)
    (folder / "digits.json").write_text(json.dumps(card))


def test_rows_say_what_the_cards_say(folder):
    def change(card):
        card["training"]["initial"] = card["float_weights"]["files"][0]["sha256"]
        card["training"]["quantisation"].update(log_bits=6, sums="clamped")

    edit(folder, change)
    (row,) = collect([folder])
    card = json.loads((folder / "digits.json").read_text())
    assert row["neuron"] == "bm" and row["integer_accuracy"] == card["accuracy"]["bm_integer_accuracy"]
    assert "--dataset digits --architecture resnet-small --layout auto" in row["command"]
    assert "--log-bits 6 --sums clamped" in row["command"]
    assert row["command"].endswith("--init-from digits-float.safetensors")
    assert "continues" not in row  # not from itself


def test_measuring_again(folder, capsys):
    rows = collect([folder])
    measure(rows, [folder], None, 1)
    assert rows[0]["measured"]
    edit(folder, lambda card: card["accuracy"].update(bm_integer_accuracy=99.8))
    with pytest.raises(RunError, match=r"digits gets 98\.\d\d % right, its card says 99\.80"):
        measure(collect([folder]), [folder], None, 1)
    (folder / "digits.safetensors").unlink()
    rows = collect([folder])
    measure(rows, [folder], None, 1)
    assert not rows[0]["measured"]
    assert main([str(folder), "--measure"]) == 0
    assert "Not measured: 1 of 1 networks, of which only the cards are here." in capsys.readouterr().out


def row(name, neuron, bits, accuracy, architecture="lenet", weight_bits=None):
    return {
        "name": name,
        "neuron": neuron,
        "bits": [bits],
        "log_fraction": None,
        "mac_weight_bits": [weight_bits or bits] if neuron == "mac" else [],
        "maximum_bits": [bits + 1] if neuron == "bm" else [],
        "integer_accuracy": accuracy,
        "data": "mnist",
        "architecture": architecture,
    }


def test_the_narrowest_network_that_is_at_least_as_accurate():
    macs = [row(f"mac{bits}", "mac", bits, accuracy) for bits, accuracy in ((8, 99.5), (4, 99.4), (3, 98.9))]
    macs += [row("mac3x2-worse", "mac", 3, 97.0, weight_bits=2), row("mac3x2", "mac", 3, 98.5, weight_bits=2)]
    other = row("wide", "bm", 8, 99.0, "resnet20")
    bms = [row("better", "bm", 8, 99.6), row("between", "bm", 6, 99.2), row("less", "bm", 5, 98.9)]
    bms.append({**row("least", "bm", 4, 98.0), "log_fraction": 2})
    found = equals([*macs, *bms, other])
    # one of another architecture has no rival to be compared with
    assert {entry["bm"]: (entry["mac"], entry["mac_bits"], entry["mac_weight_bits"]) for entry in found} == {
        "better": (None, None, None), "between": ("mac4", [4], [4]), "less": ("mac3", [3], [3]),
        "least": ("mac3x2", [3], [2])}
    shown = tables({"networks": [*macs, *bms, other], "equal_accuracy": found, "repeats": []})
    _, (*_, equal) = zip(*shown.values(), strict=True)
    assert [cells[2] for cells in equal] == ["none", "4", "3", "3 x 2 or fewer"]
    assert [cells[1] for cells in next(iter(shown.values()))[1]] == [
        "8", "4", "3", "3 x 2", "3 x 2", "8", "6", "5", "4.2", "8"]


def test_spread_over_seeds():
    def one(name, seed, value, epochs=5):
        command = f"python -m bmhw.train --name {name} --bm-epochs {epochs} --seed {seed} --init-from start"
        return {**row(name, "bm", 8, value), "method": "annealed", "seed": seed, "command": command,
                "bm_float_accuracy": value + 1}

    rows = [one("a", 0, 97.0), one("longer", 0, 98.5, epochs=20), one("b", 1, 99.0), one("b-again", 1, 98.0)]
    (found,) = repeats(rows)
    assert found["networks"] == ["a", "b", "b-again"] and found["seeds"] == [0, 1, 1]
    assert found["integer_accuracy"] == pytest.approx({"mean": 98.0, "standard_deviation": 1.0})
    assert found["bm_float_accuracy"] == pytest.approx({"mean": 99.0, "standard_deviation": 1.0})
    assert repeats(rows[:2]) == []  # other settings, one seed each
    # each trained on from the network of its own seed; the third from one of other settings
    more = [{**one(f"{name}-5", seed, value), "continues": name}
            for name, seed, value in (("a", 0, 96.0), ("b", 1, 98.0), ("longer", 2, 90.0))]
    for later in more:
        later["command"] += later["name"]
    _, found = repeats([*rows, *more])
    assert found["networks"] == ["a-5", "b-5"] and found["integer_accuracy"]["mean"] == pytest.approx(97.0)


def trained(name, neuron, bits, accuracy, layouts, *epochs, continues=None):
    """A row with epochs of (phase, validation accuracy)."""
    history = [{"phase": phase, "epoch": 1, "validation_accuracy": value} for phase, value in epochs]
    found = {**row(name, neuron, bits, accuracy), "layouts": layouts, "test_images": 400, "history": history}
    return found if continues is None else {**found, "continues": continues}


def drawn_lines(panel):
    """(line style, points) of what stands in a panel, without the ends of error bars, in the order of drawing."""
    return [(line.get_linestyle(), [tuple(map(float, point)) for point in line.get_xydata()])
            for line in panel.lines if len(line.get_xydata()) and line.get_marker() not in ("_", "|")]


def test_the_plot_shows_errors_against_width_and_whole_trainings(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_svg", lambda figure, pyplot: figures.append(figure) or b"")
    rows = [
        trained("first", "bm", 8, 97.0, ["bipolar", "relu"], ("classical", 95.0), ("bm", 90.0)),
        trained("more", "bm", 8, 98.0, ["bipolar", "relu"], ("bm", 92.0), ("quantised", 91.0), continues="first"),
        trained("narrow", "bm", 4, 96.0, ["relu"], ("quantised", 80.0), continues="first"),
        trained("wired", "bm", 5, 90.0, ["signed", "wired"], ("bm", 50.0)),
        # from the classical half of a BM network's file
        {**trained("mac", "mac", 3, 99.0, ["mac"], ("quantised", 97.0), continues="first"), "mac_weight_bits": [2]},
        {**trained("alone", "bm", 3, 99.0, ["relu"], ("bm", 97.0)), "data": "digits"},
    ]
    plots.accuracy_width(rows)
    above, below = figures[0].axes  # the network without a rival has no panel
    points, best = [("None", [(8.0, 3.0), (8.0, 2.0), (4.0, 4.0)]), ("-", [(4.0, 4.0), (8.0, 2.0)])]
    assert drawn_lines(above) == [("None", [(2.5, 1.0)]), ("-", [(2.5, 1.0)]), points, best,
                                  ("None", [(5.0, 10.0)]), ("-", [(5.0, 10.0)])]
    assert drawn_lines(below) == [
        (":", [(1.0, 5.0)]), ("--", [(1.0, 5.0), (2.0, 3.0)]),
        (":", [(1.0, 5.0)]), ("-", [(1.0, 5.0), (2.0, 10.0), (3.0, 8.0)]), ("--", [(3.0, 8.0), (4.0, 9.0)]),
        ("-", [(1.0, 50.0)])]
    assert [text.get_text() for text in above.get_legend().texts] == ["MAC", "BM relu", "BM wired"]
    assert [text.get_text() for text in below.get_legend().texts] == [
        "MAC, 2 epochs", "BM relu, 4 epochs", "BM wired, 1 epoch"]
    # two per cent of 400 images: 8 +- 2.8
    [bars] = [container for container in above.containers if container.get_label() == "BM relu"]
    low, high = bars.lines[2][0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx((0.02 * 0.98 / 400) ** 0.5 * 100)


def test_only_networks_with_a_rival_can_be_drawn(folder, tmp_path):
    target = tmp_path / "out.svg"
    with pytest.raises(RunError, match="no such pair"):
        main([str(folder), "--plot", str(target), "--markdown", str(tmp_path / "out.md")])
    with pytest.raises(UsageError, match=r"ends in .svg, not out.png"):
        main([str(folder), "--plot", "out.png"])
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.filterwarnings("error")
def test_a_plot_is_shown_by_the_page_beside_it(folder, tmp_path):
    card = json.loads((folder / "digits.json").read_text())
    card["name"], card["training"]["layout"] = "twin", "mac"
    card["layers"] = {name: {"neuron": "mac", "bits": 4, "weight_bits": 3} for name in card["layers"]}
    (folder / "twin.json").write_text(json.dumps(card))
    (tmp_path / "plots").mkdir()
    page, plot = tmp_path / "out.md", tmp_path / "plots" / "out.svg"
    assert main([str(folder), "--plot", str(plot), "--markdown", str(page)]) == 0
    assert "(plots/out.svg)" in page.read_text() and "| twin | 4 x 3 |" in page.read_text()
    assert plot.read_text().count("<svg") == 1


def test_what_a_network_was_trained_on_from(folder):
    card = json.loads((folder / "digits.json").read_text())
    card["name"], card["training"]["initial"] = "later", card["float_weights"]["files"][0]["sha256"]
    card["training"]["epochs"] = [0, 0, 1]
    (folder / "later.json").write_text(json.dumps(card))
    assert {row["name"]: row.get("continues") for row in collect([folder])} == {"digits": None, "later": "digits"}
    # the file may stand in other cards too, of networks that did not train it
    card["name"] = "and-later"
    (folder / "and-later.json").write_text(json.dumps(card))
    assert {row.get("continues") for row in collect([folder])} == {None, "digits"}


def test_command(folder, capsys, tmp_path):
    event = {"phase": "bm", "epoch": 1, "loss": 0.5, "validation_accuracy": 97.25, "seconds": 3}
    edit(folder, lambda card: card["training"].update(history=[event]))
    (tmp_path / "out").mkdir()
    target, text = tmp_path / "out" / "out.json", tmp_path / "out" / "out.md"
    assert main([str(folder), "--json", str(target), "--markdown", str(text)]) == 0
    assert "| digits | 8 | 9 | full | linear | 99.40 | 98.20 | 98.20 |" in text.read_text()
    assert "## Epochs of digits" in text.read_text() and "| bm | 1 | 0.50 | 97.25 |" in text.read_text()
    figures = json.loads(target.read_text())
    assert main([str(folder), "--json", "-", "--markdown", str(tmp_path / "out" / "again.md")]) == 0
    assert (tmp_path / "out" / "again.md").read_text() == text.read_text()
    assert [entry["name"] for entry in figures["networks"]] == ["digits"] and "98.20" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="must hold cards"):
        main([str(tmp_path / "empty")])
