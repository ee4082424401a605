# SPDX-License-Identifier: Apache-2.0
"""A step of training as a graph of a GPU's kernels, without a GPU: what is captured, when, and that it can be."""

import dataclasses
import itertools
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bmhw.models import ModelError
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import FoldedLayer, Quantisation
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.networks.network import Network
from bmhw.models.networks.wiring import Wiring
from bmhw.models.operators import encoding, max_product, smoothed, tables
from bmhw.models.training import methods
from bmhw.models.training import step as steps
from bmhw.models.training import trainer as trainers
from bmhw.models.training.methods import METHODS
from bmhw.models.training.step import EAGER_STEPS, GraphStep, Loss, Losses, Step
from bmhw.models.training.trainer import Settings, Trainer

SETTINGS = Settings(
    dataset="digits", architecture="tiny", layout="wired", method="annealed", epochs=(1, 2, 1), batch=32,
    calibration=64, epoch_images=650, quantisation=Quantisation(log_bits=5, log_fraction=2, edge_bits=8, groups=2),
)  # fmt: skip
"""An epoch's last batch has 10 images."""


class Recorded(GraphStep):
    """In the place of a graph, its kernels once more: with the layers, the rate and the tensors of the capture."""

    captures = replays = 0

    def _capture(self):
        Recorded.captures += 1
        tensors = self._images, self._labels
        rates = [group["lr"] for group in self.optimizer.param_groups]
        layers = [layer for layer in self.model.modules() if hasattr(layer, "training_difference")]
        differences = [layer.training_difference for layer in layers]
        self._output = torch.empty(())

        def replay():
            Recorded.replays += 1
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            now = [layer.training_difference for layer in layers]
            for layer, difference in zip(layers, differences, strict=True):
                layer.training_difference = difference
            self._output.copy_(self._body(*tensors))
            for layer, difference in zip(layers, now, strict=True):
                layer.training_difference = difference

        return replay


def eager(model, loss, wiring, *, clip, batch, tell):
    return Step(model, loss, wiring, clip=clip)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))


def as_on_a_gpu(patch):
    """The optimizer: PyTorch lets it have tensors in the place of numbers nowhere else."""
    patch.setattr(sys.modules["torch.optim.adam"], "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
    options = {"capturable": True, "foreach": True}
    patch.setattr(Step, "_options", lambda step: {"lr": torch.zeros(()), **options})


@pytest.fixture
def tensors(monkeypatch):
    as_on_a_gpu(monkeypatch)


def trained(digits, folder, step, monkeypatch, settings=SETTINGS):
    """Weights, mean losses of the epochs, and events of a run with such steps; losses are looked at as a GPU's."""
    Recorded.captures = Recorded.replays = 0
    monkeypatch.setattr(trainers, "step_for", step)
    monkeypatch.setattr(Trainer, "_new_losses", lambda trainer, values=None: Losses("cuda", "any", "", values))
    trainer, events = Trainer(settings, digits, folder), []
    trainer.run(events.append)
    weights = {
        f"{phase}.{key}": value for phase, model in trainer.models.items() for key, value in model.state_dict().items()
    }
    return weights, [epoch["loss"] for epoch in trainer.history], events


def assert_same(one, other):
    assert one[1] == other[1]
    for key, value in one[0].items():
        assert torch.equal(value, other[0][key]), key


def test_a_graph_gives_the_same_weights_bit_for_bit(digits, tmp_path, monkeypatch, tensors):
    monkeypatch.setattr(methods, "NORMS", 3)
    expected = trained(digits, tmp_path / "eager", eager, monkeypatch)
    found = trained(digits, tmp_path / "graph", Recorded, monkeypatch)
    assert_same(found, expected)
    # an epoch has 21 steps, the last one too small: in the second phase 7 of each p, then 21 of exact maxima
    assert Recorded.captures == 1 + 4 + 1
    assert Recorded.replays == 5 * 20 - (1 + 4 + 1) * EAGER_STEPS - 20


def test_rates_as_tensors_are_rates(monkeypatch):
    def weights():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        one = Step(model, Loss(), Wiring(model, {}), clip=1.0)
        for number, rate in enumerate((0.1, 0.02, 0.3)):
            model.weight.grad, model.bias.grad = torch.full((2, 3), number - 0.5), torch.ones(2)
            one._set_rate(rate)
            one.optimizer.step()
        return model.weight.detach()

    numbers = weights()
    as_on_a_gpu(monkeypatch)
    # the rate and its quotients are rounded to float32
    torch.testing.assert_close(weights(), numbers, rtol=1e-6, atol=1e-6)


def test_a_run_may_go_on_with_the_last_batch_of_an_epoch(tiny_architecture):
    """Whose size isn't that of the graph."""
    Recorded.captures = Recorded.replays = 0
    network = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    one = Recorded(network, Loss(), Wiring(network, {}), clip=1.0, batch=4, tell=print)
    one(*batch(tiny_architecture, 2), 0.01)
    after_steps(one, *batch(tiny_architecture), count=EAGER_STEPS + 2)
    assert (Recorded.captures, Recorded.replays) == (1, 2)


def test_where_no_graph_can_be_captured_training_goes_on(digits, tmp_path, monkeypatch):
    class Failing(GraphStep):
        def _capture(self):
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    settings = dataclasses.replace(SETTINGS, epochs=(0, 1, 1))
    expected = trained(digits, tmp_path / "eager", eager, monkeypatch, settings)
    found = trained(digits, tmp_path / "graph", Failing, monkeypatch, settings)
    assert_same(found, expected)
    notes = [event["text"] for event in found[2] if event["event"] == "note"]
    line = "No CUDA graph of the training step, which goes on kernel by kernel: operation not permitted"
    assert notes == [line] * 2  # once a phase


def after_steps(one, images, labels, count=2):
    for _ in range(count):
        one(images, labels, 0.01)
    return one.optimizer.state_dict()


def test_an_optimizer_moves_from_device_to_device(tiny_architecture, monkeypatch):
    """Its state goes on, its options are the new device's."""

    def step():
        network = Network(tiny_architecture, tiny_architecture.layouts("mac"))
        return Step(network, Loss(), Wiring(network, {}), clip=1.0)

    numbers = step()
    saved = after_steps(numbers, *batch(tiny_architecture))
    with monkeypatch.context() as patch:
        as_on_a_gpu(patch)
        static = step()
        static.load_optimizer(saved)
        group = static.optimizer.param_groups[0]
        assert group["capturable"] and torch.is_tensor(group["lr"])
        saved = after_steps(static, *batch(tiny_architecture))
    numbers.load_optimizer(saved)
    group = numbers.optimizer.param_groups[0]
    assert not group["capturable"] and not torch.is_tensor(group["lr"])
    states = after_steps(numbers, *batch(tiny_architecture))["state"]
    assert {float(state["step"]) for state in states.values()} == {6.0}


class LookedError(AssertionError):
    pass


class NoLooks(TorchDispatchMode):
    """Refuses what waits for a GPU, and what has another shape for other values: no graph can hold either."""

    refused = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "item",
               "repeat_interleave.Tensor", "bincount")  # fmt: skip

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::")
        if name in self.refused or name.partition(".")[0] in self.refused:
            raise LookedError(name)
        if name.startswith(("index.", "index_put")) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            raise LookedError(f"{name} of a mask")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def no_looks(monkeypatch, tensors):
    """As on a GPU: nothing that is compiled for a CPU, and no way to NumPy."""
    plain = max_product.IMPLEMENTATIONS["plain"]
    monkeypatch.setattr(smoothed, "_steps", lambda x, w: smoothed._Plain)
    monkeypatch.setattr(encoding, "_compiles", lambda y, found: False)
    monkeypatch.setattr(tables, "library", lambda name: "not on a GPU")
    monkeypatch.setattr(max_product, "IMPLEMENTATIONS", dict.fromkeys(max_product.IMPLEMENTATIONS, plain))

    def refuse(*_):
        raise LookedError("a tensor on the host")

    def run(one, images, labels, rate):
        with monkeypatch.context() as patch, NoLooks():
            for name in ("numpy", "cpu", "tolist", "__array__"):
                patch.setattr(torch.Tensor, name, refuse)
            one(images, labels, rate)

    return run


def batch(architecture, count=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *architecture.image.shape), generator=generator).float()
    return images, torch.arange(count)


@pytest.mark.parametrize("layout", ["auto", "signed", "wired"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_looked_at_in_the_bm_phase(tiny_architecture, method, layout, no_looks):
    torch.manual_seed(0)
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    layouts = tiny_architecture.layouts(layout)
    model = Network(tiny_architecture, layouts, 4)
    loss = Loss(teacher=classical, soft=0.7, temperature=2.0, layers=METHODS[method].distils_layers)
    one = Step(model, loss, Wiring(model, layouts, 4), clip=1.0)
    for share in (0.0, 0.6, 0.9):
        METHODS[method].prepare(model, share, 8.0)
        no_looks(one, *batch(tiny_architecture), 0.01)


def test_nothing_is_looked_at_in_the_classical_phase(tiny_architecture, no_looks):
    model = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    one = Step(model, Loss(), Wiring(model, {}), clip=1.0)
    no_looks(one, *batch(tiny_architecture), 0.01)


QUANTISATIONS = {
    "groups": Quantisation(log_bits=4, log_fraction=2, edge_bits=8, groups=2),
    "clamped": Quantisation(log_bits=4, log_fraction=2, sums="clamped", groups=2),
    "one maximum": Quantisation(),
    "coarse maxima": Quantisation(maximum_bits=6),
    "logarithmic": Quantisation(combine="logarithmic"),
}


@pytest.mark.parametrize("quantisation", QUANTISATIONS.values(), ids=QUANTISATIONS)
@pytest.mark.parametrize(
    ("layout", "norm"), [("mac", None), *itertools.product(("auto", "signed", "wired"), (None, 8.0))]
)
def test_nothing_is_looked_at_in_the_quantised_phase(tiny_architecture, layout, quantisation, norm, no_looks):
    torch.manual_seed(0)
    layouts = tiny_architecture.layouts(layout)
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    if layout == "mac":
        quantisation = dataclasses.replace(quantisation, groups=1, combine="linear", zero=None)
    network = Network(tiny_architecture, layouts, quantisation.groups)
    images, labels = batch(tiny_architecture)
    model = fold(network.eval(), images / 256, quantisation)
    for layer in model.steps.values():
        if isinstance(layer, FoldedLayer):
            layer.gradient_norm = norm
    loss = Loss(teacher=classical, soft=0.7, temperature=2.0)
    one = Step(model, loss, Wiring(model, layouts, quantisation.groups), clip=1.0)
    no_looks(one, images, labels, 0.01)


@pytest.mark.parametrize("look", [
    lambda values: values.detach().sum().item(), lambda values: values[values > 0], lambda values: values.nonzero(),
    lambda values: values.detach().numpy(), lambda values: bool((values > 0).all()),
])  # fmt: skip
def test_a_look_would_be_seen(tiny_architecture, look, no_looks):
    model = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    model.steps["stem"].register_forward_hook(lambda layer, inputs, output: look(output) and None)
    one = Step(model, Loss(), Wiring(model, {}), clip=1.0)
    with pytest.raises(LookedError):
        no_looks(one, *batch(tiny_architecture), 0.01)


def test_losses_of_a_cpu_are_known_at_once():
    losses = Losses("cpu", "bm", "take a smaller rate")
    losses.add(torch.tensor(2.0))
    assert losses.values == [2.0] and losses.last == 2.0
    with pytest.raises(ModelError, match="The loss of phase bm became nan; take a smaller rate"):
        losses.add(torch.tensor(torch.nan))


def test_a_gpu_is_waited_for_from_time_to_time(monkeypatch):
    monkeypatch.setattr(steps, "LOOKS_EVERY", 4)
    losses = Losses("cuda", "bm", "", [7.0])
    for value in range(3):
        losses.add(torch.tensor(float(value)))
    assert losses.values == [7.0]
    losses.add(torch.tensor(3.0))
    assert losses.values == [7.0, 0.0, 1.0, 2.0, 3.0]
    losses.add(torch.tensor(torch.inf))
    assert losses.last == 3.0
    with pytest.raises(ModelError, match="became inf"):
        losses.settle()
