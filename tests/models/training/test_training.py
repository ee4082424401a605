# SPDX-License-Identifier: Apache-2.0
"""Training: conversion, reproducible and resumable runs on a tiny network, and the commands."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.calls import call

from bmhw import train
from bmhw.models import ModelError, load
from bmhw.models.files.store import WEIGHTS
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.networks.network import Network, convert
from bmhw.models.training import run
from bmhw.models.training.comparison import collect
from bmhw.models.training.trainer import Settings, Stopped, Trainer, accuracy

SETTINGS = Settings(
    dataset="digits", architecture="tiny", epochs=(12, 8, 1), batch=32, calibration=200, translate=0
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))


def states(trainer):
    return {
        f"{phase}.{key}": value
        for phase, model in trainer.models.items()
        for key, value in model.state_dict().items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    ARCHITECTURES["tiny"] = lambda channels, size: resnet_small(channels, size, filters=4)
    trainer = Trainer(SETTINGS, digits, tmp_path_factory.mktemp("run"))
    trainer.run()
    return trainer


def test_a_tiny_network_learns(finished, digits):
    images, labels = digits.test_images, digits.test_labels
    assert accuracy(finished.models["classical"], images, labels) > 65
    assert accuracy(finished.models["bm"], images, labels) > 60
    integer = finished.models["quantised"].to_integer("tiny", images[:16])
    right = 100 * (integer.classify(images) == labels).mean()
    assert right == pytest.approx(accuracy(finished.models["quantised"], images, labels))


def test_every_epoch_is_logged(finished):
    events = [json.loads(line) for line in (finished.folder / "train.jsonl").read_text().splitlines()]
    assert [(event["phase"], event["epoch"]) for event in events] == [
        (phase, epoch + 1)
        for phase, epochs in zip(("classical", "bm", "quantised"), SETTINGS.epochs, strict=True)
        for epoch in range(epochs)
    ]
    assert all(0 <= event["validation_accuracy"] <= 100 and event["loss"] > 0 for event in events)


def test_the_same_seed_gives_the_same_weights(finished, digits, tmp_path):
    again = Trainer(SETTINGS, digits, tmp_path / "again")
    again.run()
    assert_same(states(again), states(finished))
    other = Trainer(dataclasses.replace(SETTINGS, seed=1, epochs=(1, 0, 0)), digits, tmp_path / "other")
    other.run()
    assert not torch.equal(
        states(other)["classical.steps.stem.weight"], states(finished)["classical.steps.stem.weight"]
    )


@pytest.mark.parametrize("stop_at", [
    pytest.param(("classical", 2, 17), marks=pytest.mark.long), ("bm", 1, 3),
    pytest.param(("quantised", 0, 20), marks=pytest.mark.long)])
def test_a_resumed_run_ends_with_the_same_weights(finished, digits, tmp_path, stop_at):
    trainer = Trainer(SETTINGS, digits, tmp_path)

    def report(event):
        if event["event"] == "step" and (event["phase"], event["epoch"], event["step"]) == stop_at:
            trainer.stop = True

    with pytest.raises(Stopped):
        trainer.run(report)
    resumed = Trainer(SETTINGS, digits, tmp_path, resume=True)
    resumed.run()
    assert_same(states(resumed), states(finished))
    assert [epoch["loss"] for epoch in resumed.history] == [epoch["loss"] for epoch in finished.history]
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == sum(SETTINGS.epochs)
    assert {epoch["device"] for epoch in resumed.history} == {f"cpu, PyTorch {torch.__version__}"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_resuming_what_cannot_be_resumed(finished, digits, tmp_path):
    with pytest.raises(ModelError, match="Nothing to resume"):
        Trainer(SETTINGS, digits, tmp_path, resume=True)
    with pytest.raises(ModelError, match="was made with seed 0, not 5"):
        Trainer(dataclasses.replace(SETTINGS, seed=5), digits, finished.folder, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes((finished.folder / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ModelError, match="can't be read"):
        Trainer(SETTINGS, digits, tmp_path, resume=True)


def foreign_optimizer(shape):
    parameter = torch.nn.Parameter(torch.ones(shape))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def shorn(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize("change", [
    lambda state: torch.ones(3),
    lambda state: [state],
    lambda state: {},
    lambda state: {"state_dict": state["models"]["classical"]},
    lambda state: {**state, "settings": 5},
    lambda state: {**state, "settings": {**state["settings"], "warmup": torch.ones(3)}},
    lambda state: {**state, "settings": shorn(state["settings"], "quantisation")},
    lambda state: {**state, "settings": {**state["settings"], "quantisation": "wide"}},
    *(lambda state, key=key: shorn(state, key) for key in ("models", "phase", "epoch", "step", "history", "optimizer")),
    lambda state: {**state, "models": {}},
    lambda state: {**state, "models": shorn(state["models"], "bm")},
    lambda state: {**state, "models": {**state["models"], "classical": 3}},
    lambda state: {**state, "models": {**state["models"], "bm": state["models"]["classical"]}},
    lambda state: {**state, "phase": "bm"},
    lambda state: {**state, "phase": -1},
    lambda state: {**state, "history": [3]},
    lambda state: {**state, "losses": ["low"]},
    lambda state: {**state, "phase": 1, "optimizer": 3},
    lambda state: {**state, "phase": 1, "optimizer": foreign_optimizer((2, 2))},
])  # fmt: skip
def test_a_foreign_checkpoint_is_one_line(finished, digits, tmp_path, change):
    state = torch.load(finished.folder / "checkpoint.pt", weights_only=True)
    torch.save(change(state), tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"^Checkpoint .*checkpoint.pt (can't be read: .|was made with)") as caught:
        Trainer(SETTINGS, digits, tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_an_optimizer_of_other_shapes_is_no_state_of_this_one(finished, digits, tmp_path):
    """PyTorch itself takes it, and fails in the first step."""
    state = torch.load(finished.folder / "checkpoint.pt", weights_only=True)
    optimizer = torch.optim.Adam(finished.models["bm"].parameters())
    sum(parameter.sum() for parameter in finished.models["bm"].parameters()).backward()
    optimizer.step()
    state |= {"phase": 1, "optimizer": optimizer.state_dict()}
    finished.models["bm"].zero_grad()
    state["optimizer"]["state"][0]["exp_avg"] = torch.ones(7)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"its optimizer has exp_avg of shape \(7,\)"):
        Trainer(SETTINGS, digits, tmp_path, resume=True)


@pytest.mark.parametrize("layout", ["auto", "signed", "wired"])
def test_conversion_matches_mean_and_deviation_of_every_channel(digits, layout):
    torch.manual_seed(0)
    architecture = resnet_small(1, 8, filters=4)
    classical = Network(architecture, architecture.layouts("mac"))
    images = torch.from_numpy(digits.train_images[:200]).float() / 256
    for step in classical.steps.values():  # estimated statistics, as after training
        step.momentum = None
    classical.train()(images)
    bm = convert(classical, architecture.layouts(layout), images)
    stem, target = bm.steps["stem"](images), classical.steps["stem"](images)
    for moment in (torch.mean, torch.std):
        torch.testing.assert_close(
            moment(stem, dim=(0, 2, 3)), moment(target, dim=(0, 2, 3)), rtol=1e-3, atol=1e-4
        )
    # of layout wired the stem is signed: it has an odd number of inputs
    weight = bm.steps["stem"].weight if layout != "auto" else bm.steps["stem"].weight.diff(dim=0)[0].neg()
    ratio = weight / classical.steps["stem"].weight
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), rtol=1e-2, atol=1e-3)


def test_a_checkpoint_from_before_a_setting_resumes_with_its_default(finished, digits, tmp_path):
    state = torch.load(finished.folder / "checkpoint.pt", weights_only=True)
    del state["settings"]["mirror"], state["settings"]["quantisation"]["linear_maximum_bits"]
    torch.save(state, tmp_path / "checkpoint.pt")
    assert Trainer(SETTINGS, digits, tmp_path, resume=True).phase == 3
    with pytest.raises(ModelError, match="was made with mirror False, not True"):
        Trainer(dataclasses.replace(SETTINGS, mirror=True), digits, tmp_path, resume=True)


def test_a_card_names_the_commit_that_the_run_started_from(monkeypatch, tmp_path):
    commits = ["before"]
    usual = Trainer.run

    def moved_on(trainer, *arguments):
        usual(trainer, *arguments)
        commits[0] = "after"

    monkeypatch.setattr(run, "commit", lambda: commits[0])
    monkeypatch.setattr(Trainer, "run", moved_on)
    epochs = [f"--{phase}-epochs=0" for phase in ("classical", "bm", "quantised")]
    assert train.main(["--out", str(tmp_path), "--name", "small", *epochs]) == 0
    assert json.loads((tmp_path / "small.json").read_text())["training"]["commit"] == "before"


def test_rates_of_the_command_line_are_those_of_their_phases():
    usual = train.recipe_from(train.parser().parse_args([])).rates
    assert train.recipe_from(train.parser().parse_args(["--bm-rate", "0.25"])).rates == (usual[0], 0.25, usual[2])
    assert train.recipe_from(train.parser().parse_args(["--quantised-rate", "0.25"])).rates == (*usual[:2], 0.25)


class TestCommands:
    def run(self, *arguments):
        return call(*arguments, COLUMNS="200")

    def test_train_writes_a_network_that_evaluate_measures(self, tmp_path):
        trained = self.run(
            "bmhw.train",
            "--out",
            str(tmp_path),
            "--name",
            "small",
            "--classical-epochs",
            "2",
            "--bm-epochs",
            "1",
            "--quantised-epochs",
            "1",
            "--layout",
            "signed",
            "--log-bits",
            "6",
            "--log-fraction",
            "4",
        )
        assert trained.returncode == 0, trained.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "checkpoint.pt",
            "small-float.safetensors",
            "small.json",
            "small.safetensors",
            "train.jsonl",
        ]
        card = json.loads((tmp_path / "small.json").read_text())
        measured = self.run("bmhw.evaluate", "--model", str(tmp_path / "small.json"), "--json", "-")
        assert measured.returncode == 0, measured.stderr
        figures = json.loads(measured.stdout)
        assert {key: figures[key] for key in card["accuracy"]} == pytest.approx(card["accuracy"])
        assert {layer.format.log_fraction for layer in load(tmp_path / "small.json").layers.values()} == {4}
        assert figures["log_bits"] == [6] and set(card["accuracy"]) == {
            "classical_accuracy",
            "bm_float_accuracy",
            "bm_integer_accuracy",
        }
        assert {layer.format.layout for layer in load(tmp_path / "small.json").layers.values()} == {"signed"}

    def test_evaluate_prints_the_shipped_network(self):
        result = self.run("bmhw.evaluate", "--model", "digits", "--bits", "6", "--out-fraction", "9", "--json", "-")
        figures = json.loads(result.stdout)
        assert result.returncode == 0 and figures["log_bits"] == [6] and figures["trained_log_bits"] == [8]
        assert figures["out_fraction"] == [9] and figures["trained_out_fraction"] == [14]
        assert figures["log_fraction"] == [3]
        assert figures["classical_accuracy"] > 99 and figures["bm_float_accuracy"] > 97

    def test_evaluate_writes_the_network_that_it_measured(self, tmp_path):
        narrow = ("bmhw.evaluate", "--model", "digits-signed-4bit", "--out-fraction", "6", "--out", str(tmp_path))
        measured = self.run(*narrow, "--json", "-")
        assert measured.returncode == 0, measured.stderr
        figures, written = json.loads(measured.stdout), tmp_path / "digits-signed-4bit.json"
        network, before = load(written), load("digits-signed-4bit")
        assert {layer.format.out_fraction for layer in network.layers.values()} == {6}
        assert network.card["rounded"] == {"out_fraction": 6, "weights": before.card["weights"]["sha256"]}
        assert {key: figures[key] for key in network.card["accuracy"]} == network.card["accuracy"]
        (row,) = collect([tmp_path])
        assert row["command"].endswith("bmhw.evaluate --model digits-signed-4bit --data DIR --out-fraction 6")
        images = before.samples[:8]
        assert np.array_equal(network.logits(images), before.with_out_fraction(6).logits(images))
        # nothing that is there is overwritten
        again = self.run(*narrow)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1) and "holds a network digits-" in again.stderr
        file = self.run(*narrow[:-1], str(written))
        assert (file.returncode, file.stderr.count("\n")) == (1, 1) and str(written) in file.stderr

    def test_evaluate_without_the_floating_point_weights(self, tmp_path):
        for suffix in (".json", ".safetensors"):
            shutil.copy(WEIGHTS / f"digits{suffix}", tmp_path)
        result = self.run("bmhw.evaluate", "--model", str(tmp_path / "digits.json"))
        assert result.returncode == 0 and "its card says so" in result.stdout
        traced = self.run("bmhw.evaluate", "--model", str(tmp_path / "digits.json"), "--trace")
        assert traced.returncode == 1 and len(traced.stderr.splitlines()) == 1
        assert "--trace needs the floating-point networks, but digits-float.safetensors isn't in" in traced.stderr

    def test_a_quantised_classical_network(self, tmp_path):
        """The same command, ``--layout mac``: what BM networks of equal accuracy are compared with."""
        epochs = ["--classical-epochs", "8", "--quantised-epochs", "1"]
        out = ["--name", "twin", "--out", str(tmp_path)]
        trained = self.run("bmhw.train", "--layout", "mac", "--bits", "6", "--mac-weight-bits", "5", *epochs, *out)
        assert trained.returncode == 0, trained.stderr
        listed = self.run("bmhw.models", "list", str(tmp_path), "--json", "-")
        assert listed.returncode == 0, listed.stderr
        (row,) = json.loads(listed.stdout)
        assert (row["name"], row["layouts"], row["bits"], row["mac_weight_bits"]) == ("twin", ["mac"], [6], [5])
        line = self.run("bmhw.models", "list", str(tmp_path)).stdout.splitlines()[2]
        assert line.split()[:4] == ["twin", "6", "x", "5"]
        assert row["bm_integer_accuracy"] > 80 and "bm_float_accuracy" not in row
        shown = self.run("bmhw.evaluate", "--model", str(tmp_path / "twin.json"))
        assert "classical, integer" in shown.stdout and "BM" not in shown.stdout

    def test_logarithmic_combination(self, tmp_path):
        start = ["--init-from", str(WEIGHTS / "digits-float.safetensors"), "--name", "codes"]
        options = ["--combine", "logarithmic", "--quantised-epochs", "3", "--out", str(tmp_path)]
        trained = self.run("bmhw.train", *start, *options)
        assert trained.returncode == 0, trained.stderr
        layers = load(tmp_path / "codes.json").layers
        assert {name for name, layer in layers.items() if layer.gives_codes} == {
            "stage0_conv1",
            "stage1_conv1",
        }
        measured = self.run("bmhw.evaluate", "--model", str(tmp_path / "codes.json"), "--trace", "--json", "-")
        assert json.loads(measured.stdout)["bm_integer_accuracy"] > 90

    def test_list(self):
        result = call("bmhw.models", "list", COLUMNS="40")
        lines = [line.split() for line in result.stdout.splitlines()]
        assert result.returncode == 0 and "…" not in result.stdout
        for path in WEIGHTS.glob("*.json"):  # each whole on one line, however narrow the terminal
            accuracy = json.loads(path.read_text())["accuracy"]["bm_integer_accuracy"]
            assert any(line[:1] == [path.stem] and line[-1] == f"{accuracy:.2f}" for line in lines), path.stem

    def test_ctrl_c_leaves_a_checkpoint_and_no_half_file(self, tmp_path):
        arguments = ["bmhw.train", "--out", str(tmp_path), "--classical-epochs", "1000"]
        process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True)
        log = tmp_path / "train.jsonl"
        while process.poll() is None and not (log.is_file() and log.stat().st_size):
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "--resume" in errors and "Traceback" not in errors
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "train.jsonl"]

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (["bmhw.train", "--dataset", "letters"], 2, "must be one of digits"),
            (["bmhw.train", "--dataset", "digit"], 2, "did you mean digits"),
            (["bmhw.train", "--branches", "signde"], 2, "did you mean signed"),
            (["bmhw.train", "--dataset", "mnist"], 2, "--data DIR"),
            (["bmhw.train", "--dataset", "mnist", "--data", "OUT"], 1, "must hold mnist.npz"),
            (["bmhw.train", "--batch", "0"], 2, "--batch must be an integer of 1 or more, not 0"),
            (["bmhw.train", "--epoch-images", "9999"], 2, "from 1 to 1097, not 9999"),
            (["bmhw.train", "--maximum-bits", "10"], 2, "from 1 to 9, not 10"),
            (["bmhw.train", "--sums", "clamped", "--maximum-bits", "9"], 2, "from 1 to 8, not 9"),
            (["bmhw.train", "--linear-maximum-bits", "0"], 2, "from 1 to 9, not 0"),
            (["bmhw.train", "--layout", "wire"], 2, "did you mean wired"),
            (["bmhw.evaluate", "--out-fraction", "41"], 2, "from 0 to 40, not 41"),
            (["bmhw.train", "--method", "alchemy"], 2, "must be one of annealed"),
            (["bmhw.train", "--bm-rate", "0"], 2, "--bm-rate must be above 0 and at most 1, not 0"),
            (["bmhw.train", "--quantised-rate", "2"], 2, "--quantised-rate must be above 0 and at most 1, not 2.0"),
            (["bmhw.train", "--init-from", "/nowhere.pt"], 1, "/nowhere.pt doesn't exist"),
            (["bmhw.evaluate", "--maximum-bits", "0"], 2, "from 1 to 17, not 0"),
            (["bmhw.train", "--bits", "17"], 2, "from 2 to 16, not 17"),
            (["bmhw.train", "--layout", "mac", "--mac-weight-bits", "1"], 2, "from 2 to 16, not 1"),
            (["bmhw.train", "--log-bits", "4", "--log-fraction", "4"], 2, "from 0 to 3, not 4"),
            (["bmhw.train", "--mac-weight-bits", "4"], 2, "needs --layout mac or --neurons NAME=mac"),
            (["bmhw.train", "--log-bits", "x"], 2, "not 'x'"),
            (["bmhw.train", "--bm-epochs", "-1"], 2, "--bm-epochs must be an integer of 0 or more, not -1"),
            (["bmhw.train", "--threads", "0"], 2, "--threads must be an integer of 1 or more, not 0"),
            (["bmhw.train", "--mac-layers", "last", "--out", "OUT"], 2, "must be one of stem"),
            (["bmhw.train", "--device", "abacus"], 2, "--device abacus can't be used"),
            (["bmhw.train", "--resume", "--out", "OUT"], 2, "Nothing to resume"),
            (["bmhw.train", "--out", "/proc/nowhere"], 1, "/proc/nowhere"),
            (["bmhw.evaluate", "--model", "letters"], 2, "not 'letters'"),
            (["bmhw.evaluate", "--bits", "1"], 2, "from 2 to 16, not 1"),
            (["bmhw.evaluate", "--json", "/nowhere/x.json"], 1, "/nowhere"),
            (["bmhw.models", "list", "OUT"], 1, "must hold cards"),
            (["bmhw.models", "show"], 2, "must be one of list, repack, not 'show'"),
        ],
    )
    def test_bad_input_is_one_line(self, tmp_path, arguments, status, message):
        result = self.run(*(str(tmp_path) if argument == "OUT" else argument for argument in arguments))
        assert result.returncode == status and message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert not list(tmp_path.glob("*.safetensors"))
