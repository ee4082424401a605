# SPDX-License-Identifier: Apache-2.0
"""What training can give is written, whatever its size, and what is written is read; what can't be is known before."""

import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support.networks import random_network

from bmhw import train
from bmhw.models import ModelError, load
from bmhw.models.errors import ModelUsageError
from bmhw.models.files import store
from bmhw.models.files.float_weights import half_precision, load_float
from bmhw.models.integer import limits
from bmhw.models.integer.fixed_point import FixedPoint
from bmhw.models.integer.fold import check_foldable, fold
from bmhw.models.integer.folded_norm import SMALLEST_GAMMA
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import ARCHITECTURES, Builder, resnet_small
from bmhw.models.training.trainer import Settings, Trainer

START = ("--accept-import", "--init-from")
"""Untrained networks, which are right by chance."""
NO_EPOCHS = [f"--{phase}-epochs=0" for phase in ("classical", "bm", "quantised")]
LAYOUTS = ["mac", "signed", "auto", "wired"]


def set_part(step, part, value):
    """One entry of axis 0 of a parameter or statistic; of a BM layer's two weights, of both."""
    tensor = getattr(step, part)
    (tensor.transpose(0, 1) if tensor.ndim == 5 else tensor)[1] = value


def pruned(step):
    set_part(step, "weight", 0.0)


def scaled(factor):
    def change(step):
        for parameter in (step.weight, step.bias):
            if parameter is not None:
                parameter.mul_(factor)

    return change


def part(name, value):
    return lambda step: set_part(step, name, value)


CHANGES = {
    "pruned filter": ("first", pruned),
    "pruned filter of a sum": ("shortcut", pruned),
    "pruned filter of the last layer": ("dense", pruned),
    "pruned filter with a bias": ("inner", lambda step: (pruned(step), part("bias", 1e8)(step))),
    "layer of zeros": ("stem", scaled(0.0)),
    "zeros in a sum": ("inner", scaled(0.0)),
    "last layer of zeros": ("dense", scaled(0.0)),
    "tiny layer": ("first", scaled(1e-12)),
    "tiny layer in a sum": ("inner", scaled(1e-12)),
    "huge layer": ("first", scaled(1e12)),
    "huge bias": ("stem", part("bias", 1e6)),
    "gamma 0": ("first_norm", part("weight", 0.0)),
    "gamma tiny": ("first_norm", part("weight", -1e-30)),
    "gamma huge": ("stem_norm", part("weight", 1e6)),
    "beta huge": ("stem_norm", part("bias", 1e6)),
    "dead ReLU": ("first_norm", part("bias", -1e6)),
    "variance 0": ("stem_norm", part("running_var", 0.0)),
    "variance huge": ("first_norm", part("running_var", 1e12)),
    "mean of another layer": ("first_norm", part("running_mean", 1e6)),
}
QUANTISATIONS = {
    "8": Quantisation(),
    "16": Quantisation(bits=16, log_bits=12),
    "codes": Quantisation(combine="logarithmic", log_bits=8),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_every_network_is_written_and_read(tiny_architecture, images, layout, quantisation, tmp_path):
    pixels = torch.tensor(images).float()
    for index, (name, (step, change)) in enumerate(CHANGES.items()):
        network = random_network(tiny_architecture, tiny_architecture.layouts(layout))
        with torch.no_grad():
            change(network.steps[step])
        result = fold(network, pixels / 256, QUANTISATIONS[quantisation])
        integer = result.to_integer(f"n{index}", images)
        logits = integer.logits(images)
        again = load(store.save(integer, tmp_path, {}))
        assert np.array_equal(again.logits(images), logits), name
        assert np.abs(logits).max() < 1 << 55, name  # nothing overflowed on the way
        if quantisation == "codes":  # whose thresholds saturate
            continue
        result.quantised = False
        with torch.no_grad():
            found, expected = result(pixels).double(), network(pixels / 256).double()
        # a gamma is moved by up to SMALLEST_GAMMA, and what it multiplies is below 4 deviations; where all is 0, what
        # gives a wired zero its sign is not
        assert (found - expected).abs().max() <= 4 * SMALLEST_GAMMA * expected.abs().max() + 2.0**-80, name


@pytest.mark.parametrize("layout", ["mac", "signed", "auto"])
def test_a_pruned_filter_trains_to_its_end(tiny_digits, layout, tmp_path):
    torch.save(tiny_digits, tmp_path / "pruned.pt")
    arguments = ["--architecture", "tiny", "--layout", layout, *START, str(tmp_path / "pruned.pt")]
    assert train.main([*arguments, *NO_EPOCHS, "--out", str(tmp_path / "out")]) == 0
    network = load(tmp_path / "out" / "digits.json")
    weights = network.layers["stage1_conv1"].weights
    assert not any(codes[3].any() for port, codes in weights.items() if port != "sign") or layout == "auto"


@pytest.fixture
def tiny_digits(monkeypatch):
    """The state_dict of a network of a few filters, one of them pruned, with the statistics that training gives it."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))
    architecture = resnet_small(1, 8, filters=4)
    network = random_network(architecture, architecture.layouts("mac"))
    state = network.state_dict()
    for key, value in state.items():
        if key.startswith("steps.stage1_conv1") and key.rpartition(".")[2] in ("weight", "bias"):
            value[3] = 0 if "norm" not in key else value[3]
        if key.startswith("steps.stage1_conv1_norm.running"):
            value[3] = 0
    return state


def test_a_checkpoint_whose_end_failed_is_rescued(tiny_digits, tmp_path):
    """As an earlier version left it: with constants that no file may hold."""
    torch.save(tiny_digits, tmp_path / "weights.pt")
    out = tmp_path / "out"
    arguments = ["--architecture", "tiny", "--layout", "signed", "--groups", "1", *START,
                 str(tmp_path / "weights.pt")]
    arguments += [*NO_EPOCHS, "--out", str(out)]
    assert train.main(arguments) == 0
    for name in ("digits.json", "digits.safetensors"):  # it had written the floating-point weights only
        (out / name).unlink()
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    quantised = state["models"]["quantised"]
    for key, value in (("exponent", -150.0), ("shift", -60.0), ("biases.0", 1e30)):
        quantised[f"steps.stage1_conv2.{key}"][1] = value
    quantised["steps.stage1_conv1_norm.threshold"][1] = -1e30
    torch.save(state, out / "checkpoint.pt")
    assert train.main([*arguments, "--resume"]) == 0
    network = load(out / "digits.json")
    layer = network.layers["stage1_conv2"]
    assert (layer.exponent[1], layer.scale.shift[1]) == (limits.EXPONENT.minimum, limits.SHIFT.minimum)
    assert layer.biases["bias"][1] == limits.BIAS.maximum
    assert network.thresholds["stage1_conv1_norm"].threshold[1] == limits.THRESHOLD.minimum


@pytest.mark.parametrize(
    ("limit", "tensor", "inside"), [("SHIFT", "shift", 40), ("EXPONENT", "exponent", -96), ("THRESHOLD", None, 1 << 62)]
)
def test_writer_and_reader_share_each_limit(tmp_path, limit, tensor, inside):
    """The widest value is written and read; one beyond it is refused by the writer, which leaves nothing."""
    network = load("digits")
    for value in (inside, inside + np.sign(inside)):
        changed = network
        if tensor is None:
            norm = "stem_norm" if "stem_norm" in network.thresholds else next(iter(network.thresholds))
            threshold = network.thresholds[norm]
            threshold = dataclasses.replace(threshold, threshold=np.full_like(threshold.threshold, value))
            changed = dataclasses.replace(network, thresholds=network.thresholds | {norm: threshold})
        else:
            layer = network.layers["stem"]
            old = layer.scale if tensor == "shift" else layer.exponent
            new = FixedPoint.of_shift(np.full_like(old.shift, value)) if tensor == "shift" else np.full_like(old, value)
            layer = dataclasses.replace(layer, **{"scale" if tensor == "shift" else "exponent": new})
            changed = dataclasses.replace(network, layers=network.layers | {"stem": layer})
        folder = tmp_path / str(value)
        if value == inside:
            load(store.save(changed, folder, {}))
        else:
            minimum, maximum = getattr(limits, limit)
            with pytest.raises(ModelError, match=f"must be from {minimum} to {maximum}, not {value}"):
                store.save(changed, folder, {})
            assert list(folder.iterdir()) == []


def test_what_cannot_be_folded_is_known_before_training(digits, tmp_path, monkeypatch):
    """A format that only a layer's own inputs show, and a sum of what a normalisation scales."""
    net = Builder(1, 8, 8)
    stream = net.norm(net.conv("stem", "image", 4, 3))
    net.dense("dense", net.pool(net.add("sum", stream, net.conv("conv", stream, 4, 3))), 10)
    architecture = net.build()
    with pytest.raises(ModelError, match="Node sum adds values behind a normalisation"):
        check_foldable(architecture, architecture.layouts("mac"), Quantisation())
    monkeypatch.setitem(ARCHITECTURES, "sum", lambda channels, size: architecture)
    settings = Settings(dataset="digits", architecture="sum", epochs=(1, 1, 1))
    with pytest.raises(ModelError, match="Node sum adds"):
        Trainer(settings, digits, tmp_path / "run")
    settings = dataclasses.replace(settings, architecture="resnet-small", quantisation=Quantisation(maximum_bits=10))
    with pytest.raises(ModelUsageError, match=r"Layer stem: .* from 1 to 9, not 10"):
        Trainer(settings, digits, tmp_path / "run")
    monkeypatch.setenv("BMHW_POWERS", "half")
    with pytest.raises(ModelUsageError, match="BMHW_POWERS must be one of"):
        Trainer(dataclasses.replace(settings, quantisation=Quantisation()), digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_beyond_half_precision_stay_in_single(tiny_digits, tmp_path):
    changes = {"stem": 1e6, "stage0_conv1": 1e-9, "stage0_conv2": 1.0}
    for name, factor in changes.items():
        tiny_digits[f"steps.{name}.weight"] *= factor
    torch.save(tiny_digits, tmp_path / "weights.pt")
    arguments = ["--architecture", "tiny", "--layout", "signed", "--groups", "1", *START,
                 str(tmp_path / "weights.pt")]
    assert train.main([*arguments, *NO_EPOCHS, "--out", str(tmp_path / "out")]) == 0
    stored = load_file(tmp_path / "out" / "digits-float.safetensors")
    networks = load_float(tmp_path / "out" / "digits.json")
    for name, factor in changes.items():
        kind = np.float16 if factor == 1 else np.float32
        assert stored[f"classical.steps.{name}.weight"].dtype == kind
        weight = networks["classical"].steps[name].weight
        error = 0 if factor != 1 else 2.0**-11  # of a half's rounding
        assert ((weight - tiny_digits[f"steps.{name}.weight"]).abs() <= error * weight.abs().max()).all()
    for key, value in half_precision(networks["classical"]).state_dict().items():
        assert torch.equal(value, networks["classical"].state_dict()[key])  # figures are of what the file holds


class TestFilesOfAnotherRun:
    @pytest.fixture
    def arguments(self, tiny_digits, tmp_path):
        torch.save(tiny_digits, tmp_path / "weights.pt")
        return ["--architecture", "tiny", *START, str(tmp_path / "weights.pt"), *NO_EPOCHS, "--layout", "mac"]

    @pytest.mark.parametrize(
        "name",
        ["digits.json", "digits.safetensors", "digits-float.safetensors", "digits-classical-float.safetensors",
         "checkpoint.pt", "train.jsonl"],
    )  # fmt: skip
    def test_are_not_replaced(self, arguments, tmp_path, monkeypatch, name):
        out = tmp_path / "out"
        out.mkdir()
        (out / name).write_text("mine")
        monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("it was to be known before training"))
        with pytest.raises(ModelUsageError, match=f"{name} exists; --force"):
            train.main([*arguments, "--out", str(out)])
        assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]

    def test_nor_are_those_that_appear_while_it_trains(self, arguments, tmp_path, monkeypatch):
        out, usual = tmp_path / "out", Trainer.run

        def meanwhile(trainer, *rest):
            usual(trainer, *rest)
            (out / "digits.json").write_text("another's")

        monkeypatch.setattr(Trainer, "run", meanwhile)
        with pytest.raises(train.RunError, match=r"digits.json exists and is not replaced; .*--resume"):
            train.main([*arguments, "--out", str(out)])
        assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "digits.json", "train.jsonl"]
        monkeypatch.setattr(Trainer, "run", usual)
        assert train.main([*arguments, "--out", str(out), "--resume", "--name", "other"]) == 0
        assert (out / "digits.json").read_text() == "another's" and load(out / "other.json")

    def test_force_replaces_and_resume_goes_on(self, arguments, tmp_path):
        arguments += ["--out", str(tmp_path / "out")]
        card = tmp_path / "out" / "digits.json"
        assert train.main(arguments) == 0
        assert train.main([*arguments, "--resume"]) == 0
        with pytest.raises(ModelUsageError, match="exists; --force"):
            train.main(arguments)
        assert train.main([*arguments, "--seed", "1", "--force"]) == 0
        assert json.loads(card.read_text())["training"]["seed"] == 1
        before = card.read_bytes()
        with pytest.raises(ModelUsageError, match=r"digits.json is of another run"):
            train.main([*arguments, "--resume"])
        assert card.read_bytes() == before

    def test_weights_that_it_starts_from_are_shared_unless_others_have_their_name(self, arguments, tmp_path):
        first, second, third = (tmp_path / name for name in ("first", "second", "third"))
        assert train.main([*arguments, "--out", str(first)]) == 0
        start = [*arguments[:3], "--init-from", str(first / "digits-float.safetensors"), *arguments[5:]]
        third.mkdir()
        (third / "digits-float.safetensors").write_text("mine")
        for out, expected in ((second, "digits-float.safetensors"), (third, "wide-float.safetensors")):
            assert train.main([*start, "--name", "wide", "--out", str(out)]) == 0
            assert json.loads((out / "wide.json").read_text())["float_weights"]["files"][0]["file"] == expected
        assert (third / "digits-float.safetensors").read_text() == "mine"


def test_the_log_names_what_results_depend_on(digits, tmp_path, powers):
    settings = Settings(dataset="digits", architecture="resnet-small", epochs=(1, 0, 0), batch=1097, translate=0)
    trainer = Trainer(settings, digits, tmp_path)
    trainer.run()
    assert [(event["powers"], event["threads"]) for event in trainer.history] == [(powers, torch.get_num_threads())]


def test_nothing_depends_on_asserts_or_docstrings():
    """``python -OO`` leaves both out, so that what it writes would be other bytes."""
    sources = sorted(path for path in Path(limits.__file__).parents[1].rglob("*.py"))
    assert len(sources) > 30
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"
            assert "__doc__" not in (getattr(node, "id", None), getattr(node, "attr", None)), f"{path}:{node.lineno}"
