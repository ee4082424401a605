# SPDX-License-Identifier: Apache-2.0
"""Weights files and cards: a round trip, and one-line errors for what can't be used."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save as serialise
from support.files import rewrite_unpacked

from bmhw.errors import BmhwError
from bmhw.models import ModelError, list_models, load
from bmhw.models.files.float_weights import float_files, load_float
from bmhw.models.files.store import WEIGHTS, repack, save
from bmhw.models.training.comparison import collect


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


def test_digits_are_shipped():
    assert "digits" in list_models()


def test_what_ships_is_small():
    """In every clone and wheel: each network's codes, and all of them with their cards and floating-point weights."""
    sizes = {path.name: path.stat().st_size for path in WEIGHTS.iterdir()}
    assert {name for name, size in sizes.items() if size > 1_000_000} == set() and sum(sizes.values()) <= 8_000_000


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


def integers(network):
    """Everything that a network computes with, by name."""
    return {
        **{f"{name}.{part}": values for name, layer in network.layers.items()
           for part, values in (*layer.weights.items(), *layer.biases.items(), ("shift", layer.scale.shift),
                                ("exponent", layer.exponent), ("fine", layer.fine))},
        **{f"{name}.{part}": getattr(norm, part) for name, norm in network.thresholds.items()
           for part in ("threshold", "negative")},
        "samples": network.samples,
    }


def test_a_file_of_unpacked_tensors_loads_the_same(copy):
    """As they were before there was a packing."""
    before, size = integers(load(copy / "digits.json")), (copy / "digits.safetensors").stat().st_size
    rewrite_unpacked(copy / "digits.json")
    assert b"packed" not in (copy / "digits.safetensors").read_bytes()
    after = integers(load(copy / "digits.json"))
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    assert repack(copy / "digits.json") == copy / "digits.json"
    again = integers(load(copy / "digits.json"))
    assert all(np.array_equal(before[name], again[name]) for name in before)
    assert (copy / "digits.safetensors").stat().st_size == size < 30_000


def test_packing_again_keeps_what_a_card_tells(copy):
    card = json.loads((copy / "digits.json").read_text())
    edit_card(copy, lambda card: card.update(name="other", notes=["mine"]))
    repack(copy / "digits.json")
    found = json.loads((copy / "digits.json").read_text())
    assert (found["name"], found["notes"]) == ("other", ["mine"]) and found["weights"] == card["weights"]
    assert {key: found[key] for key in ("accuracy", "data", "training", "float_weights", "architecture")} == {
        key: card[key] for key in ("accuracy", "data", "training", "float_weights", "architecture")}


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
    with pytest.raises(ModelError, match=r"digits.safetensors isn't in .*, only its card is$"):
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
    rewrite_unpacked(copy / "digits.json", change)
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
        (lambda card: card.update(architecture=5), "Field architecture .* must be a list, not 5"),
    ],
)
def test_wrong_cards(copy, change, message):
    edit_card(copy, change)
    with pytest.raises(ModelError, match=message) as caught:
        load(copy / "digits.json")
    assert "\n" not in str(caught.value)


WRONG = (None, True, -1, 0, 10**12, 1.5, "x", [], {}, [1], {"a": 1}, [[1]])


def fields(value, path=()):
    """Every path to a value of a card; of lists and of the layers' formats the first ones, the others are alike."""
    if path:
        yield path
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ()
    for key in keys[:2] if path == ("layers",) else keys:
        yield from fields(value[key], (*path, key))


def readers(path, field):
    """What reads a card, as far as it looks at a field."""
    if field in ("name", "weights", "layers", "architecture"):
        yield load, path
    if field in ("float_weights", "architecture"):
        yield load_float, path
        yield float_files, path
    if field != "architecture":
        yield collect, [path.parent]  # and with it ``entry``


def test_whatever_a_card_holds_is_read_or_refused_in_one_line(copy):
    """Every field, gone or replaced by one of the values in turn, so that each kind of field meets each of them."""
    card = json.loads((copy / "digits.json").read_text())
    (copy / "digits-float.safetensors").write_bytes((WEIGHTS / "digits-float.safetensors").read_bytes())
    refused = 0
    for number, path in enumerate(fields(card)):
        for replace in (None, *(WRONG[(number + step) % len(WRONG)] for step in range(0, len(WRONG), 6))):
            changed = json.loads(json.dumps(card))
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if replace is None:
                del holder[path[-1]]
            else:
                holder[path[-1]] = replace
            (copy / "digits.json").write_text(json.dumps(changed))
            for reader, argument in readers(copy / "digits.json", path[0]):
                try:
                    reader(argument)
                except BmhwError as error:
                    assert "\n" not in str(error) and len(str(error)) < 400, (path, replace)
                    refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["training"].update(epochs=3), r"Field training.epochs of .* 3, each an integer, not 3"),
        (lambda card: card["accuracy"].update(bm_float_accuracy="x"), "bm_float_accuracy .* number, not 'x'"),
        (lambda card: card["float_weights"]["files"][0].update(file=5), "files.0.file .* text, not 5"),
        (lambda card: card["layers"]["stem"].update(bits="8"), "layers.stem.bits .* an integer, not '8'"),
        (lambda card: card["architecture"][1].update(stride=0), "Stride of node stem .* 1 or more, not 0"),
        (lambda card: card["architecture"][1].update(kernel=[3]), r"Kernel of node stem .* not \(3,\)"),
        (lambda card: card["architecture"][1].update(name=["stem"]), "no identifier"),
    ],
)
def test_fields_of_the_wrong_kind_are_named(copy, change, message):
    edit_card(copy, change)
    with pytest.raises(ModelError, match=message):
        load(copy / "digits.json")


def test_floating_point_weights_that_do_not_fit_are_named(copy):
    (copy / "digits-float.safetensors").write_bytes((WEIGHTS / "digits-float.safetensors").read_bytes())
    edit_card(copy, lambda card: card["float_weights"]["layouts"].update(stem="signed"))
    with pytest.raises(ModelError, match=r"bm.steps.stem.weight must .* \(16, 1, 3, 3\), but is of shape \(2, 16"):
        load_float(copy / "digits.json")
    edit_card(copy, lambda card: card["float_weights"]["layouts"].update(stem="sign"))
    with pytest.raises(ModelError, match=r"Layout of layer stem .*did you mean signed"):
        load_float(copy / "digits.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_card_that_is_no_card(copy, text):
    (copy / "digits.json").write_text(text)
    with pytest.raises(ModelError, match=r"digits.json"):
        load(copy / "digits.json")
