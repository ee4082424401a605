# SPDX-License-Identifier: Apache-2.0
"""``--bits``: of networks that were trained in codes of several widths, NAME and NAME-Bbit, the right one as it is."""

import json
import shutil

import numpy as np
import pytest
from support.calls import figures_of, measure_without_building
from support.cards import KEPT
from support.networks import random_network
from support.simulators import FAST

from bmhw import evaluate, export, layers, simulate
from bmhw.errors import UsageError
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.files.float_weights import save_float
from bmhw.models.files.store import WEIGHTS, card_path, load, read_formats, save
from bmhw.models.files.widths import at_width, inner_bits, trained_at
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder

EDGE = 6
"""Bits of the first and last layers' codes, between those of the other layers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks for the images of ``digits``, weights drawn at random: ``grouped`` in 8, 5 and 4 bits without a file of
    its own, and ``whole``, which is of 7 bits itself, in 5 and 7 too; their first and last layers have 6 bits. ``mac``
    is multiply-accumulate."""
    import torch

    folder = tmp_path_factory.mktemp("widths")
    net = Builder(1, 8, 8)
    stem = net.norm(net.conv("stem", "image", 8, 3, stride=2))
    inner = net.norm(net.conv("inner", net.norm(net.conv("first", stem, 8, 1, bias=False)), 8, 3))
    net.dense("dense", net.pool(inner, 2), 10)
    architecture = net.build()
    images = np.random.default_rng(3).integers(0, 256, (20, 1, 8, 8)).astype(np.uint8)
    for name, bits, groups in (("grouped-8bit", 8, 4), ("grouped-5bit", 5, 4), ("grouped-4bit", 4, 4),
                               ("whole", 7, 1), ("whole-5bit", 5, 1), ("whole-7bit", 7, 1), ("mac", 7, 1)):
        layout = "mac" if name == "mac" else "signed"
        network = random_network(architecture, architecture.layouts(layout), groups=groups)
        quantisation = Quantisation(groups=groups, log_bits=bits, edge_bits=EDGE)
        integer = fold(network, torch.tensor(images).float() / 256, quantisation).to_integer(name, images)
        training = {"layout": layout, "quantisation": {"edge_bits": EDGE, "groups": groups}}
        card = {"data": {"name": "digits"}, "training": training,
                "accuracy": {"classical_accuracy": 12.5, "bm_float_accuracy": 11.5}}
        floats = {"classical": random_network(architecture, architecture.layouts("mac")), "bm": network}
        save(integer, folder, card | {"float_weights": save_float(name, folder, floats)})
    return folder


def widths_of(network):
    return [layer.format.log_bits for layer in network.layers.values()]


def measured(capsys, *arguments):
    return figures_of(evaluate)(capsys, *arguments)


@pytest.mark.parametrize("name, bits, found, rounded", [
    ("grouped", 8, "grouped-8bit", False), ("grouped", 4, "grouped-4bit", False), ("grouped", 6, "grouped-8bit", True),
    ("whole", 7, "whole", False),  # itself, though there is a whole-7bit
    ("whole", 5, "whole-5bit", False), ("whole", 6, "whole", True), ("whole", None, "whole", False),
    ("whole-5bit", 5, "whole-5bit", False), ("whole-5bit", 4, "whole-5bit", True)])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_which_network_a_width_asks_for(folder, name, bits, found, rounded, suffix):
    path, changed = at_width(folder / f"{name}{suffix}", bits)
    assert (card_path(path), changed) == (folder / f"{found}.json", rounded)
    if bits is not None and not rounded:
        assert trained_at(folder / f"{name}{suffix}", bits) == path


def test_rounding_may_be_asked_for(folder):
    assert at_width(folder / "whole.json", 5, rounded=True) == (str(folder / "whole.json"), True)
    assert at_width(folder / "grouped.json", 5, rounded=True) == (str(folder / "grouped-8bit.json"), True)


def test_names_of_the_package(monkeypatch, folder):
    monkeypatch.setattr("bmhw.models.files.store.WEIGHTS", folder)
    assert at_width("grouped", 5) == ("grouped-5bit", False) and at_width("grouped", 3) == ("grouped-8bit", True)
    assert card_path("grouped-5bit") == folder / "grouped-5bit.json"
    for ask in (card_path, load, read_formats, lambda name: at_width(name, None)):
        with pytest.raises(ModelUsageError, match=r"^Network grouped must be asked for in a width of its codes, "
                                                  r"--bits 4 or 5 or 8; it is there as grouped-4bit$"):
            ask("grouped")
    with pytest.raises(ModelUsageError, match="not 'groped'"):
        at_width("groped", 5)


def test_edges_are_not_the_width_of_a_network(folder):
    for name, bits in (("grouped-4bit", 4), ("whole", 7)):
        card = json.loads((folder / f"{name}.json").read_text())
        assert inner_bits(card) == [bits]
        card["training"]["quantisation"]["edge_bits"] = None
        assert inner_bits(card) == sorted([bits, EDGE])


def test_evaluate_takes_what_was_trained_as_it_is(folder, capsys):
    """Edges included: narrower than the 8 bits, wider than the 4."""
    for bits in (8, 5, 4):
        found = measured(capsys, "--model", str(folder / "grouped.json"), "--bits", str(bits))
        alone = measured(capsys, "--model", str(folder / f"grouped-{bits}bit.json"))
        assert found["model"] == f"grouped-{bits}bit"
        assert found["log_bits"] == found["trained_log_bits"] == sorted([bits, EDGE])
        assert {key: value for key, value in found.items() if key != "integer_seconds"} == {
            key: value for key, value in alone.items() if key != "integer_seconds"}
        assert found["groups"] == [1, 4]  # an image of one channel has one
    found = measured(capsys, "--model", str(folder / "whole.json"), "--bits", "7")
    assert (found["model"], found["log_bits"]) == ("whole", [EDGE, 7])


def test_evaluate_rounds_what_was_not_trained_and_says_so(folder, capsys):
    for arguments, model, trained in ((("grouped", "--bits", "3"), "grouped-8bit", [EDGE, 8]),
                                      (("whole", "--bits", "5", "--rounded"), "whole", [EDGE, 7])):
        name, *options = arguments
        found = measured(capsys, "--model", str(folder / f"{name}.json"), *options)
        assert (found["model"], found["trained_log_bits"]) == (model, trained) and found["log_bits"] != trained
        evaluate.main(["--model", str(folder / f"{name}.json"), *options])
        assert "rounded, not trained again" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    evaluate.main(["--model", str(folder / "grouped.json"), "--bits", "4"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "log codes of 4, 6 bits" in said and "1, 4 groups of input channels" in said
    assert "trained at this width" in said and "rounded" not in said


def test_the_trace_shows_each_layers_groups(folder, capsys):
    for name, groups in (("grouped", ["1", "4", "4", "4"]), ("whole", None)):
        evaluate.main(["--model", str(folder / f"{name}.json"), "--bits", "5", "--trace", "5"])
        said = capsys.readouterr().out
        assert ("groups " in said) == (groups is not None)
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│ signed" in line]
        assert len(rows) == 4 and (groups is None or [row[2] for row in rows] == groups)


def test_evaluate_without_floating_point_files(folder, capsys, tmp_path):
    for suffix in (".json", ".safetensors"):
        shutil.copy(folder / f"whole-5bit{suffix}", tmp_path)
    found = measured(capsys, "--model", str(tmp_path / "whole.json"), "--bits", "5")
    assert (found["float_measured"], found["classical_accuracy"], found["bm_float_accuracy"]) == (False, 12.5, 11.5)
    with pytest.raises(ModelError, match=r"^--trace needs the floating-point networks, but "
                                         r"whole-5bit-float.safetensors isn't in \S+: not every network") as caught:
        evaluate.main(["--model", str(tmp_path / "whole.json"), "--bits", "5", "--trace"])
    assert caught.value.exit_status == 1 and "\n" not in str(caught.value)


def test_evaluate_rounds_no_multiplier(folder, capsys):
    path = str(folder / "mac.json")
    inputs = json.loads((folder / "mac.json").read_text())["layers"]["inner"]["bits"]
    assert inputs == 8 and measured(capsys, "--model", path, "--bits", "8")["log_bits"] == []
    with pytest.raises(ModelUsageError, match=r"^Network mac must have log codes to be rounded to 5 bits; it is "):
        evaluate.main(["--model", path, "--bits", "5"])


@pytest.mark.parametrize("command", [
    lambda name, *options: simulate.main(["--model", name, "--layer", "inner", "--channel", "0", *options]),
    lambda name, *options: export.main(["--model", name, "--layer", "inner", "--channel", "0", "--out", "none",
                                        *options]),
    lambda name, *options: layers.main(["--network", name, *options])])
def test_other_commands_take_only_what_was_trained(folder, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    measure_without_building(monkeypatch)
    for name, options, message in (
            ("grouped", [], "must be asked for in a width of its codes, --bits 4 or 5 or 8; it is there as"),
            ("grouped", ["--bits", "6"], "must be one that it was trained in, 4 or 5 or 8 bits, not 6"),
            ("whole", ["--bits", "6"], "must be one that it was trained in, 5 or 7 bits, not 6"),
            ("whole-5bit", ["--bits", "4"], "must be one that it was trained in, 5 bits, not 4")):
        with pytest.raises(UsageError, match=message) as caught:
            command(str(folder / f"{name}.json"), *options)
        assert caught.value.exit_status == 2 and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, bits, found", [("grouped", 4, "grouped-4bit"), ("whole", 7, "whole")])
def test_simulated_and_exported_neurons_are_of_that_width(folder, name, bits, found, capsys, tmp_path):
    path = str(folder / f"{name}.json")
    chosen = ["--model", path, "--bits", str(bits), "--layer", "inner", "--channel", "1"]
    result = figures_of(simulate)(capsys, *chosen, "--count", "30", "--simulator", FAST)
    assert result["passed"] and result["model"] == str(folder / f"{found}.json")
    assert result["design"]["log_bits"] == bits
    export.main([*chosen, "--out", str(tmp_path)])
    [description] = tmp_path.glob("*.json")
    assert description.stem == f"{found.replace('-', '_')}_inner_channel1"
    assert f"--bits {bits}" in description.read_text()


@pytest.mark.parametrize("name, bits, log_fraction, found", [
    ("net", 5, 3, "net-5bit"), ("net", 4, 1, "net-4bit"), ("beside", 5, 3, "beside-5bit"), ("beside", 8, 5, "beside")])
def test_layers_of_that_width(name, bits, log_fraction, found, capsys, monkeypatch, tmp_path):
    """Cards are enough; ``--bits`` is the width of the MAC neurons beside them, too."""
    measure_without_building(monkeypatch)
    for card, copy in (("mnist-lenet-5bit", "net-5bit"), ("mnist-lenet-0-4bit", "net-4bit"),
                       ("mnist-lenet-5bit", "beside-5bit")):
        shutil.copy(KEPT / f"{card}.json", tmp_path / f"{copy}.json")
    shutil.copy(WEIGHTS / "mnist-lenet.json", tmp_path / "beside.json")
    arguments = ("--network", str(tmp_path / f"{name}.json"), "--layers", "conv2")
    for option, mac_bits in (("--bits", bits), ("--log-bits", 8)):
        result = figures_of(layers)(capsys, *arguments, option, str(bits))
        assert (result["network"], result["log_bits"], result["log_fraction"]) == (found, bits, log_fraction)
        assert result["layers"][0]["mac"]["design"]["bits"] == mac_bits
