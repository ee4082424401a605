# SPDX-License-Identifier: Apache-2.0
"""Accuracies collected from cards, and which MAC network equals a BM network."""

import json
import shutil

import pytest

from bmhw.accuracy import collect, equals, main, measure, repeats
from bmhw.errors import RunError
from bmhw.models import ModelError
from bmhw.models.store import WEIGHTS


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


def test_measuring_again(folder):
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


def row(name, neuron, bits, accuracy, architecture="lenet"):
    return {
        "name": name,
        "neuron": neuron,
        "bits": [bits],
        "maximum_bits": [bits + 1],
        "integer_accuracy": accuracy,
        "data": "mnist",
        "architecture": architecture,
    }


def test_the_narrowest_network_that_is_at_least_as_accurate():
    macs = [row(f"mac{bits}", "mac", bits, accuracy) for bits, accuracy in ((8, 99.5), (4, 99.4), (3, 98.9))]
    other = row("wide", "bm", 8, 99.0, "resnet20")
    bms = [row("better", "bm", 8, 99.6), row("between", "bm", 6, 99.2), row("less", "bm", 5, 98.9)]
    found = {entry["bm"]: (entry["mac"], entry["mac_bits"]) for entry in equals([*macs, *bms, other])}
    # one of another architecture has no rival to be compared with
    assert found == {"better": (None, None), "between": ("mac4", [4]), "less": ("mac3", [3])}


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


def test_command(folder, capsys, tmp_path):
    event = {"phase": "bm", "epoch": 1, "loss": 0.5, "validation_accuracy": 97.25, "seconds": 3}
    edit(folder, lambda card: card["training"].update(history=[event]))
    (tmp_path / "out").mkdir()
    target, text = tmp_path / "out" / "out.json", tmp_path / "out" / "out.md"
    assert main([str(folder), "--json", str(target), "--markdown", str(text)]) == 0
    assert "| digits | 8 | 9 | full | linear | 99.40 | 98.20 | 98.20 |" in text.read_text()
    assert "## Epochs of digits" in text.read_text() and "| bm | 1 | 0.50 | 97.25 |" in text.read_text()
    figures = json.loads(target.read_text())
    assert [entry["name"] for entry in figures["networks"]] == ["digits"] and "98.20" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="must hold cards"):
        main([str(tmp_path / "empty")])
