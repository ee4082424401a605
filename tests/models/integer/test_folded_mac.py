# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulate layers with learned steps: what training sees, what the integer network and MacFormat compute."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from support.networks import random_network
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bmhw.hdl.formats.mac import MacFormat
from bmhw.models import ModelError, load
from bmhw.models.files.store import save
from bmhw.models.integer.fixed_point import MULTIPLIER, FixedPoint
from bmhw.models.integer.fold import fold
from bmhw.models.integer.folded_mac import FoldedMac, fixed_point, scaled, to_fixed_point
from bmhw.models.integer.folded_norm import FoldedBatchNorm, FoldedNorm
from bmhw.models.integer.layer_errors import layer_errors
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small

MIXED = {"first": "mac", "inner": "mac", "signed_inputs": "mac"}
"""Layers of the tiny architecture: one whose codes go to the next, and those that are added to what BM layers give."""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (24, 1, 8, 8)).astype(np.uint8)


def folded(architecture, images, layouts=None, groups=1, **widths):
    layouts = architecture.layouts("mac") if layouts is None else layouts
    network = random_network(architecture, layouts, groups=groups)
    pixels = torch.from_numpy(images).float()
    return network, fold(network, pixels / 256, Quantisation(groups=groups, **widths)), pixels


class TestFixedPoint:
    def test_ratios_are_off_by_half_a_unit_of_a_full_multiplier(self):
        generator = torch.Generator().manual_seed(2)
        ratios = torch.exp2(40 * torch.rand(1000, generator=generator, dtype=torch.float64) - 33)
        found = to_fixed_point(ratios)
        assert found.multiplier.min() >= 1 << MULTIPLIER.bits - 1 and found.multiplier.max() == MULTIPLIER.maximum
        assert (np.abs(found.ratio / ratios.numpy() - 1) <= 2.0**-MULTIPLIER.bits).all()

    @pytest.mark.parametrize(("ratio", "multiplier", "shift"), [
        (0.0, 0, 8), (1.0, 128, 7), (255.7 / 256, 128, 7), (127.5, 255, 1), (1e6, 255, 1), (2.0**-42, 0, 40),
        (255.4 / 256, 255, 8)])  # fmt: skip
    def test_ends_of_the_range(self, ratio, multiplier, shift):
        found = to_fixed_point(torch.tensor([ratio], dtype=torch.float64))
        assert found.ratio == multiplier * 2.0**-shift and found.multiplier == multiplier

    def test_tensors_and_integers_are_scaled_alike(self):
        values = np.random.default_rng(0).integers(-(1 << 40), 1 << 40, (3, 7, 4, 5))
        ratios = torch.rand(7, dtype=torch.float64) + 0.01
        expected = to_fixed_point(ratios).compute(values)
        assert np.array_equal(scaled(torch.from_numpy(values), ratios).numpy(), expected)
        multiplier, shift = (part.numpy() for part in fixed_point(ratios))
        exact = values * (multiplier * 2.0**-shift).reshape(1, -1, 1, 1)
        assert (np.abs(expected - exact) <= 0.5).all()

    def test_a_shift_alone_is_a_multiplier_of_1(self):
        shift = np.array([-2, 0, 3])
        values = np.arange(-12, 12).reshape(2, 3, 4, 1)
        expected = np.stack([values[:, 0] * 4, values[:, 1], (values[:, 2] + 4) >> 3], axis=1)
        assert np.array_equal(FixedPoint.of_shift(shift).compute(values), expected)
        assert FixedPoint.of_shift(shift).is_shift and not to_fixed_point(torch.ones(1)).is_shift


class TestTraining:
    def test_with_wide_integers_it_is_the_classical_network_in_training(self, images):
        """Normalisations with the statistics of the batch, in front of and behind residual sums."""
        network, result, pixels = folded(resnet_small(1, 8, filters=4), images, bits=16)
        values = network.train().trace(pixels / 256)
        for step in result.steps.values():
            if isinstance(step, FoldedMac):  # steps that reach the largest value: the first ones are of least error
                sizes = step.real_weight.abs().flatten(1).amax(dim=1), values[step.node.inputs[0]].abs().amax()
                with torch.no_grad():
                    for learned, size in zip((step.weights, step.inputs), sizes, strict=True):
                        learned.octaves.copy_(torch.log2(size / learned.high))
        found = result.train()(pixels)
        expected = network.scores(values)
        # six layers, each rounding inputs and weights by at most half of 2^-15 of the largest; a normalisation of 4
        # channels of both signs makes of that a few times more
        error = (found - expected).abs().max() / expected.abs().max()
        assert float(error.detach()) < 6 * 2 * 2.0**-15 * 8
        norm = result.steps["stage1_conv1_norm"].norm
        torch.testing.assert_close(norm.running_var, network.steps["stage1_conv1_norm"].running_var, rtol=1e-2, atol=0)

    @pytest.mark.parametrize("layout", ["mac", "mixed"])
    def test_a_step_reaches_every_parameter(self, tiny_architecture, images, layout):
        layouts = tiny_architecture.layouts("signed") | MIXED if layout == "mixed" else None
        _network, result, pixels = folded(tiny_architecture, images, layouts, bits=4, edge_bits=8)
        result.train()
        nn.functional.cross_entropy(result(pixels), torch.arange(len(pixels)) % 10).backward()
        unreached = {name for name, value in result.named_parameters()
                     if value.grad is None or not value.grad.abs().sum() > 0}
        # the shift of a layer in front of a normalisation by the batch cancels out
        behind = {f"steps.{node.name}.bias" for node in tiny_architecture.layers
                  if isinstance(result.steps[node.name], FoldedMac) and result.steps[node.name].gives_sums}
        exact = {"steps.stem.inputs.octaves"}  # 8 bits of a pixel: no error to learn from
        assert unreached <= behind | exact

    def test_a_step_looks_at_no_value_on_the_host(self, images):
        """So that it can be part of a graph of a GPU's kernels."""

        class NoHost(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                    raise AssertionError(f"{func} looks at a value")
                return func(*args, **(kwargs or {}))

        _network, result, pixels = folded(resnet_small(1, 8, filters=4), images, bits=4, edge_bits=8)
        with NoHost():
            nn.functional.cross_entropy(result.train()(pixels), torch.arange(len(pixels)) % 10).backward()
            with pytest.raises(AssertionError, match="looks at a value"):
                float(result(pixels).detach().sum())

    def test_a_short_training_learns_steps_and_weights(self, images):
        torch.manual_seed(1)
        _network, result, pixels = folded(resnet_small(1, 8, filters=4), images, bits=3, edge_bits=8)
        labels, before = torch.arange(len(pixels)) % 10, {k: v.clone() for k, v in result.state_dict().items()}
        optimizer, losses = torch.optim.Adam(result.train().parameters(), lr=1e-2), []
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(result(pixels), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]
        changed = {key for key, value in result.state_dict().items() if not torch.equal(value, before[key])}
        assert {f"steps.{node.name}.{part}" for node in result.architecture.layers
                for part in ("weight", "inputs.octaves", "weights.octaves")} - {"steps.stem.inputs.octaves"} <= changed
        # and its integers are those that it has now
        integer = result.to_integer("trained", images)
        with torch.no_grad():
            assert np.array_equal(integer.classify(images), result.eval()(pixels).argmax(dim=1).numpy())

    def test_normalisations_keep_their_statistics_where_only_macs_read_them(self, tiny_architecture, images):
        _network, result, _pixels = folded(tiny_architecture, images, tiny_architecture.layouts("signed") | MIXED)
        live = {name for name, step in result.steps.items() if isinstance(step, FoldedBatchNorm)}
        thresholds = {name for name, step in result.steps.items() if isinstance(step, FoldedNorm)}
        assert (live, thresholds) == ({"first_norm"}, {"stem_norm"})


class TestIntegers:
    @pytest.mark.parametrize("widths", [{"bits": 2}, {"bits": 4, "mac_weight_bits": 3, "edge_bits": 8}, {"bits": 8}])
    @pytest.mark.parametrize("name", ["lenet", "resnet-small", "resnet20"])
    def test_the_evaluated_network_is_the_integer_one(self, name, widths, tmp_path):
        """In every architecture: pools behind codes, sums behind shortcuts, several readers of one normalisation."""
        size = 32 if name == "lenet" else 8
        images = np.random.default_rng(5).integers(0, 256, (6, 1, size, size)).astype(np.uint8)
        architecture = ARCHITECTURES[name](1, size)
        _network, result, pixels = folded(architecture, images, **widths)
        integer = result.to_integer("mac", images)
        with torch.no_grad():
            values, units, traced = result.trace(pixels), result.units(), {}
            for node, value in integer.trace(images):
                traced[node.name], source = value, architecture[node.name].inputs
                if not node.is_layer:
                    continue
                layer = integer.layers[node.name]
                if not layer.gives_codes:
                    assert np.array_equal(value, values[node.name].numpy()), node.name
                expected = result.steps[node.name].input_codes(values[source[0]], units[source[0]])
                assert np.array_equal(integer.layer_inputs(layer, traced[source[0]]), expected.numpy()), node.name
        again = load(save(integer, tmp_path, {}))
        assert np.array_equal(again.logits(images), integer.logits(images))
        with torch.no_grad():
            assert np.array_equal(integer.classify(images), result(pixels).argmax(dim=1).numpy())

    def test_codes_go_on_where_one_normalisation_and_macs_follow(self, images):
        """The stem's width differs from that of those behind it; the last layer of a block is added to a sum."""
        architecture = ARCHITECTURES["resnet20"](1, 8)
        _network, result, _pixels = folded(architecture, images, bits=4, edge_bits=8)
        integer = result.to_integer("mac", images)
        gives = {name for name, layer in integer.layers.items() if layer.gives_codes}
        blocks = {name.rpartition("_")[0] for name in integer.layers if name.endswith("_conv1")}
        assert gives == {"stem"} | {f"{block}_{layer}" for block in blocks for layer in ("conv1", "conv2")}
        stem = integer.layers["stem"].format
        assert (stem.bits, stem.code_bits, stem.result, stem.requantize) == (8, 4, "code", "scale")
        assert not {f"{name}_norm" for name in gives} & set(integer.thresholds)
        for name in gives:  # one step for all that read a code, and nothing else between
            for reader in architecture.readers[f"{name}_norm"]:
                assert integer.layers[reader.name].scale.is_shift

    def test_readers_of_two_widths_have_a_scale_each(self, images):
        architecture = ARCHITECTURES["resnet20"](1, 8)
        widths = {"bits": 4, "layer_bits": (("stage0_block0_shortcut", 6),)}
        _network, result, pixels = folded(architecture, images, **widths)
        integer = result.to_integer("mac", images)
        assert not integer.layers["stem"].gives_codes and "stem_norm" in integer.thresholds
        readers = [integer.layers[f"stage0_block0_{name}"] for name in ("conv1", "shortcut")]
        assert [layer.format.bits for layer in readers] == [layer.format.weight_bits for layer in readers] == [4, 6]
        assert not any(layer.scale.is_shift for layer in readers)
        with torch.no_grad():
            assert np.array_equal(integer.classify(images), result(pixels).argmax(dim=1).numpy())

    def test_a_code_is_what_macformat_makes_of_the_sums(self, images):
        """Against the network's own mathematics in floating point, up to the rounding of biases and scales."""
        network, result, pixels = folded(resnet_small(1, 8, filters=4), images, bits=5)
        integer = result.to_integer("mac", images)
        vectors = integer.neuron_vectors("stage0_conv1", 1, 300)
        fmt = vectors.format
        assert isinstance(fmt, MacFormat) and fmt.result == "code" and fmt.boundary == "layer"
        assert np.array_equal(fmt.compute(**vectors.inputs), vectors.expected)
        y = (vectors.inputs["x"] * vectors.inputs["w"]).sum(axis=1) + vectors.inputs["bias"]
        product = np.maximum(y, 0) * vectors.inputs["scale"] * 2.0**-fmt.requantize_shift
        assert np.array_equal(vectors.expected, np.minimum(np.floor(product + 0.5), 31))
        assert np.abs(vectors.expected - vectors.real.clip(0, 31)).max() <= 0.5
        # the normalisation, in floating point, of what the layer's integers stand for
        step, norm = result.steps["stage0_conv1"], network.steps["stage0_conv1_norm"]
        with torch.no_grad():
            units = result.units()
            source = step.node.inputs[0]
            x = step.input_codes(result.trace(pixels)[source], units[source]).float() * step.inputs.step
            weight = step.weights(step.real_weight)
            real = torch.relu(norm(nn.functional.conv2d(x, weight, step.bias, step.node.stride, step.node.padding)))
            found = dict((n.name, v) for n, v in integer.trace(images))["stage0_conv1_norm"]
            reader = result.steps["stage0_conv2"].inputs
            expected = (real / reader.step).numpy()
        inside = expected < 31
        # half a code, half a unit of a bias and of a threshold, and the scale's 2^-8
        unit = (step.unit * norm.weight.abs() / torch.sqrt(norm.running_var + norm.eps) / reader.step).detach().numpy()
        allowed = 0.5 + unit.reshape(1, -1, 1, 1) + expected * 2.0**-8 + 1e-4
        assert (np.abs(found - expected) <= allowed)[inside].all() and inside.mean() > 0.5

    def test_a_scale_that_nothing_comes_of(self, images):
        """A channel of scale 0, and one that is pruned, are constants in the integers too."""
        architecture = resnet_small(1, 8, filters=4)
        network = random_network(architecture, architecture.layouts("mac"))
        with torch.no_grad():
            network.steps["stage0_conv1_norm"].weight[0] = 0
            network.steps["stage0_conv1_norm"].bias[0] = 0.7
            network.steps["stage0_conv1"].weight[1] = 0
            network.steps["stage0_conv1"].bias[1] = 0.3
        pixels = torch.from_numpy(images).float()
        result = fold(network, pixels / 256, Quantisation(bits=6))
        integer = result.to_integer("mac", images)
        found = dict((node.name, value) for node, value in integer.trace(images))["stage0_conv1_norm"]
        step = float(result.steps["stage0_conv2"].inputs.step)
        constant = torch.relu(network.steps["stage0_conv1_norm"](torch.full((1, 4, 1, 1), 0.3)))[0, 1, 0, 0]
        for channel, expected in ((0, 0.7), (1, float(constant.detach()))):
            # 0.7 is more than half a code off by what the smallest gamma lets through
            assert np.abs(found[:, channel] - min(expected / step, 63)).max() <= 2, channel

    @pytest.mark.parametrize("groups", [1, 2])
    @pytest.mark.parametrize("bits", [4, 8])
    def test_mixed_with_bm_layers(self, tiny_architecture, images, groups, bits, tmp_path):
        layouts = tiny_architecture.layouts("signed") | MIXED
        network, result, pixels = folded(tiny_architecture, images, layouts, groups, bits=bits)
        result.quantised = False
        with torch.no_grad():
            torch.testing.assert_close(result(pixels), network(pixels / 256), rtol=1e-4, atol=1e-5)
        result.quantised = True
        with torch.no_grad():
            values = result.trace(pixels)
        integer = result.to_integer("mixed", images)
        assert integer.layers["first"].gives_codes and not integer.layers["inner"].gives_codes
        for node, value in integer.trace(images):
            if node.operation == "add" or (node.is_layer and not integer.layers[node.name].gives_codes):
                assert np.array_equal(value, values[node.name].numpy()), node.name
        again = load(save(integer, tmp_path, {}))
        assert np.array_equal(again.logits(images), integer.logits(images))
        errors = {entry["layer"]: entry for entry in layer_errors(again, network, images)}
        assert errors["inner"]["layout"] == "mac" and "own_error" not in errors["first"]
        # rounding to a quarter of the sums' unit, and scales of 8 bits
        assert errors["inner"]["own_error"] < 2 and errors["dense"]["layout"] == "signed"
        for name in MIXED:
            vectors = again.neuron_vectors(name, 1, 50)
            assert np.array_equal(vectors.format.compute(**vectors.inputs), vectors.expected)


class TestFiles:
    @pytest.fixture
    def written(self, images, tmp_path):
        _network, result, _pixels = folded(resnet_small(1, 8, filters=4), images, bits=4)
        return save(result.to_integer("mac", images), tmp_path, {})

    @pytest.mark.parametrize(("layer", "change", "said"), [
        ("stage0_conv2", {"bits": 5}, "stage0_conv2 in mac.json doesn't fit that of layer stage0_conv1, whose results"),
        ("stage0_conv1", {"code_bits": 1}, "Width of the result in bits must be an integer from 2 to 16, not 1"),
    ])  # fmt: skip
    def test_formats_that_do_not_fit(self, written, layer, change, said):
        card = json.loads(written.read_text())
        card["layers"][layer] |= change
        written.write_text(json.dumps(card))
        with pytest.raises(ModelError, match=said):
            load(written)

    def test_ranges_of_scales(self, written):
        network = load(written)
        for part, values, said in (
            ("rescale", (256, 9), "stage0_conv1.out_multiplier .* from 0 to 255, not 256"),
            ("rescale", (255, 0), "stage0_conv1.out_shift .* must be from 1 to .*, not 0"),
            ("scale", (256, 9), "stage0_conv1.multiplier .* from 0 to 255, not 256"),
        ):
            scale = FixedPoint(*(np.full(4, value) for value in values))
            layer = dataclasses.replace(network.layers["stage0_conv1"], **{part: scale})
            broken = dataclasses.replace(network, layers=network.layers | {"stage0_conv1": layer})
            with pytest.raises(ModelError, match=said):
                save(broken, written.parent / "broken", {})

    def test_a_network_without_macs_has_no_multipliers(self, tmp_path):
        from safetensors.numpy import load_file

        save(load("digits"), tmp_path, {})
        assert not [key for key in load_file(tmp_path / "digits.safetensors") if "multiplier" in key]


def test_it_pads_with_the_border(images):
    architecture = resnet_small(1, 8, filters=4).with_border([128.0])
    _network, result, pixels = folded(architecture, images, bits=8)
    integer = result.to_integer("mac", images)
    codes = integer.layers["stem"].padded(integer.layers["stem"].inputs(integer.images(images)))
    step = float(result.steps["stem"].inputs.step)
    assert (codes[:, :, 0] == math.floor(0.5 / step + 0.5)).all()
    with torch.no_grad():
        assert np.array_equal(dict((n.name, v) for n, v in integer.trace(images))["stem"],
                              result.trace(pixels)["stem"].numpy())
