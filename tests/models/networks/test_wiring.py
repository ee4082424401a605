# SPDX-License-Identifier: Apache-2.0
"""Weights whose signs are wires: chosen once, kept by every phase of training, held by the files."""

import dataclasses

import numpy as np
import pytest
import torch
from support.files import rewrite_unpacked

from bmhw.models import ModelError, load
from bmhw.models.files.store import save
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.networks.layers import EPSILON, wired_signs, with_signs
from bmhw.models.training.trainer import Settings, Trainer
from bmhw.sim import usable_simulators, verify
from bmhw.sim.trained import load_neuron

SETTINGS = Settings(dataset="digits", architecture="tiny", layout="wired", epochs=(2, 2, 1), batch=32, calibration=200,
                    translate=0, quantisation=Quantisation(combine="logarithmic", sums="clamped", maximum_bits=5))


def build_tiny(channels, size):
    return resnet_small(channels, size, filters=4)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A network trained in all three phases, and its weights before the first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", build_tiny)
        trainer = Trainer(SETTINGS, digits, tmp_path_factory.mktemp("wired"))
        first = {}

        def report(event):
            if event["event"] == "step" and (event["phase"], event["epoch"], event["step"]) == ("classical", 0, 1):
                first.update(weights(trainer.models["classical"], trainer.layouts))

        trainer.run(report)
        return trainer, first


def weights(network, layouts):
    return {name: network.steps[name].weight.detach().clone() for name, layout in layouts.items() if layout == "wired"}


def test_the_larger_half_is_positive():
    weight = torch.tensor([[3.0, -1.0, 2.0, 0.5], [-1.0, -2.0, 4.0, -3.0]])
    assert wired_signs(weight).tolist() == [[1, -1, 1, -1], [1, -1, 1, -1]]
    assert with_signs(weight, wired_signs(weight)).tolist() == [
        [3.0, -1.0, 2.0, pytest.approx(-EPSILON)], [pytest.approx(EPSILON), -2.0, 4.0, -3.0]]


def test_each_group_has_halves_of_its_own():
    weight = torch.tensor([[3.0, 2.0, 1.0, -1.0, -2.0, -3.0]])[..., None, None]
    assert wired_signs(weight, 2).flatten().tolist() == [1, 1, -1, 1, 1, -1]  # of an odd number one more is positive
    assert wired_signs(weight, 3).flatten().tolist() == [1, -1, 1, -1, 1, -1]


def test_signs_that_are_half_and_half_stay():
    weight = torch.randn(40, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    chosen = with_signs(weight, wired_signs(weight))
    assert torch.equal(wired_signs(chosen), chosen.sign()) and (chosen.sign().sum(dim=(1, 2, 3)) == 0).all()
    assert torch.equal(with_signs(chosen, wired_signs(chosen)), chosen)


def test_every_phase_keeps_the_signs(trained):
    trainer, first = trained
    layouts = trainer.layouts
    assert first and {"wired", "signed"} == set(layouts.values())
    for phase, network in trainer.models.items():
        for name, weight in weights(network, layouts).items():
            signs, started = weight.sign(), first[name].sign()
            # a normalisation with gamma < 0 behind a logarithmic end swaps the maxima of its channel
            same = (signs == started).all(dim=-1).all(dim=-1).all(dim=-1)
            swapped = (signs == -started).all(dim=-1).all(dim=-1).all(dim=-1)
            assert (same | swapped).all() if phase == "quantised" else same.all(), (phase, name)
            assert not torch.equal(weight, first[name])


def test_weights_of_any_signs_can_start_a_wired_network(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", build_tiny)
    free = Trainer(dataclasses.replace(SETTINGS, layout="signed", epochs=(1, 1, 0)), digits, tmp_path / "free")
    free.run()
    states = {phase: free.models[phase].state_dict() for phase in ("classical", "bm")}
    settings = dataclasses.replace(SETTINGS, epochs=(0, 0, 0))
    wired = Trainer(settings, digits, tmp_path / "wired", initial=states)
    wired.run()
    for name, weight in weights(wired.models["bm"], wired.layouts).items():
        before = states["bm"][f"steps.{name}.weight"]
        assert torch.equal(weight, with_signs(before, wired_signs(before)))
    for name, value in wired.models["classical"].state_dict().items():
        assert torch.equal(value, states["classical"][name]), "the teacher stays as it is"


def test_files_hold_the_wiring(trained, tmp_path):
    trainer, _first = trained
    integer = trainer.models["quantised"].to_integer("tiny", trainer.data.test_images[:16])
    again = load(save(integer, tmp_path, {}))
    assert np.array_equal(again.logits(again.samples), integer.logits(integer.samples))
    name = next(name for name, layout in trainer.layouts.items() if layout == "wired")
    layer = again.layers[name]
    slots, half = layer.slots(1), layer.format.inputs // 2
    assert layer.weights["sign"][1, slots].tolist() == [0] * half + [1] * half
    assert sorted(slots) == list(range(2 * half)) and list(slots[:half]) == sorted(slots[:half])

    path = tmp_path / "tiny.json"
    rewrite_unpacked(path, lambda tensors: tensors[f"{name}.sign"].__setitem__(2, 1))
    with pytest.raises(ModelError, match=rf"{name}.sign .* must have {half} ones an output, not {2 * half}"):
        load(path)


def test_rtl_of_a_wired_neuron_equals_the_network(trained, tmp_path):
    trainer, _first = trained
    integer = trainer.models["quantised"].to_integer("tiny", trainer.data.test_images[:16])
    path = str(save(integer, tmp_path, {}))
    for name, layout in trainer.layouts.items():
        if layout != "wired":
            continue
        neuron = load_neuron(path, name, 1, 60)
        assert neuron.format.layout == "wired" and len(set(neuron.expected.tolist())) > 1
        report = verify(neuron.design(form="parallel", objective="area"), neuron.inputs, neuron.expected,
                        simulator=usable_simulators()[-1])
        assert report.passed, name
