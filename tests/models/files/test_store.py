# SPDX-License-Identifier: Apache-2.0
"""Weights files and cards: a round trip, and one-line errors for what can't be used."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from bmhw.models import ModelError, list_models, load
from bmhw.models.files.store import WEIGHTS, save
from bmhw.models.files.writing import sha256


@pytest.fixture
def copy(tmp_path):
    """The shipped digits network as files that a test may spoil."""
    for suffix in ("json", "safetensors"):
        (tmp_path / f"digits.{suffix}").write_bytes((WEIGHTS / f"digits.{suffix}").read_bytes())
    return tmp_path


def edit_card(folder, change):
    path = folder / "digits.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def edit_tensors(folder, change):
    """Change tensors and let the card's checksum follow, so that only the checks of the values are left."""
    path = folder / "digits.safetensors"
    tensors = {name: np.array(values) for name, values in parse(path.read_bytes()).items()}
    change(tensors)
    path.write_bytes(serialise(tensors))
    edit_card(folder, lambda card: card["weights"].update(sha256=sha256(path.read_bytes())))


def test_digits_are_shipped():
    assert "digits" in list_models()


def test_a_round_trip_keeps_every_integer(tmp_path):
    network = load("digits")
    path = save(network, tmp_path, {"accuracy": {}})
    again = load(path)
    images = network.samples[:8]
    assert np.array_equal(network.logits(images), again.logits(images))
    assert {name: layer.format for name, layer in network.layers.items()} == {
        name: layer.format for name, layer in again.layers.items()
    }
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["digits.json", "digits.safetensors"]


def test_loading_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from bmhw.models import load; "
        "print(len(load('digits').neuron_vectors('stem', 0, 10).expected))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "10"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file(copy, share):
    path = copy / "digits.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"digits.safetensors is no whole safetensors file"):
        load(copy / "digits.json")


def test_an_altered_file(copy):
    path = copy / "digits.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"its card says .*it was altered"):
        load(path)


def test_a_foreign_file(copy):
    (copy / "digits.safetensors").write_bytes(serialise({"conv.weight": np.zeros((3, 3))}))
    with pytest.raises(ModelError, match="altered or belongs to another card"):
        load(copy / "digits.json")


def test_missing_files(copy):
    (copy / "digits.safetensors").unlink()
    with pytest.raises(ModelError, match=r"digits.safetensors can't be read: No such file"):
        load(copy / "digits.json")
    with pytest.raises(ModelError, match=r"other.json doesn't exist"):
        load(copy / "other.safetensors")
    with pytest.raises(ModelError, match=r"Model, .* must be one of .*digits.*, not 'digit' \(did you mean digits"):
        load("digit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("stem.k1"), "lacks the tensor stem.k1"),
        (lambda t: t.update(extra=t["stem.k1"]), "unknown tensor extra"),
        (
            lambda t: t.update({"stem.k1": t["stem.k1"][:, :8]}),
            r"stem.k1 .* must hold integers of shape \(16, 9\)",
        ),
        (
            lambda t: t.update({"stem.k1": t["stem.k1"].astype(np.float32)}),
            "must hold integers .* not float32",
        ),
        (
            lambda t: t.update({"stem.k1": t["stem.k1"].astype(np.int16) + 200}),
            "stem.k1 .* must be from 0 to 255, not",
        ),
        (
            lambda t: t.update({"dense.shift": t["dense.shift"] * 0 + 99}),
            "dense.shift .* must be from -40 to 40, not 99",
        ),
    ],
)
def test_wrong_tensors(copy, change, message):
    edit_tensors(copy, change)
    with pytest.raises(ModelError, match=message):
        load(copy / "digits.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(card_version=9), "must have card_version 1, not 9"),
        (lambda card: card.pop("architecture"), "lacks 'architecture'"),
        (lambda card: card.pop("weights"), "lacks 'weights'"),
        (lambda card: card["layers"].pop("stem"), "no usable format of layer stem"),
        (lambda card: card["layers"]["stem"].update(bits=99), "from 2 to 16, not 99"),
        (lambda card: card["layers"]["stem"].update(inputs=4), "must have 9 inputs, not 4"),
        (lambda card: card["layers"]["stem"].update(neuron="spiking"), "no usable format of layer stem"),
        (lambda card: card["architecture"][1].update(operation="attention"), "must be one of"),
        (lambda card: card.update(architecture=5), "can't be read"),
    ],
)
def test_wrong_cards(copy, change, message):
    edit_card(copy, change)
    with pytest.raises(ModelError, match=message) as caught:
        load(copy / "digits.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_card_that_is_no_card(copy, text):
    (copy / "digits.json").write_text(text)
    with pytest.raises(ModelError, match=r"digits.json"):
        load(copy / "digits.json")
