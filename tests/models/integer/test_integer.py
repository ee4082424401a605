# SPDX-License-Identifier: Apache-2.0
"""Folding and quantisation: floating point, folded, straight-through, integers, the neuron's format."""

import shutil

import numpy as np
import pytest
import torch
from support.networks import norm_errors, random_network, reached_by_a_step

from bmhw.hdl.formats.mac import MacFormat
from bmhw.models import ModelError, load
from bmhw.models.files.float_weights import load_float
from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.folded_norm import FoldedNorm
from bmhw.models.integer.layer_errors import layer_errors
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.operators.maximum_of_sums import Rows, maxima_of_rows, plain_maxima_of_rows
from bmhw.models.operators.native_build import library
from bmhw.models.training.datasets import load_dataset

QUANTISATIONS = {
    "8": Quantisation(),
    "5": Quantisation(log_bits=5),
    "4": Quantisation(bits=4),
    "12": Quantisation(bits=12, log_bits=9),
    "fraction": Quantisation(bits=8, log_bits=6, log_fraction=2),
    "mitchell": Quantisation(log2="mitchell", exp2="schraudolph"),
    "dropped": Quantisation(maximum_bits=7),
    "clamped": Quantisation(sums="clamped"),
    "clamped6": Quantisation(sums="clamped", maximum_bits=6),
    "clamped5": Quantisation(log_bits=5, sums="clamped", maximum_bits=4),
    "clamped codes": Quantisation(combine="logarithmic", log_bits=6, sums="clamped", maximum_bits=5),
    "codes": Quantisation(combine="logarithmic"),
    "wide codes": Quantisation(combine="logarithmic", log_bits=10),  # no table of all pairs of sums
    "coarse linear": Quantisation(combine="logarithmic", sums="clamped", maximum_bits=5, linear_maximum_bits=3),
    "codes5": Quantisation(combine="logarithmic", log_bits=5, maximum_bits=5),
    "exact zero": Quantisation(log_bits=4, log_fraction=2, zero="exact"),
    "groups": Quantisation(groups=2),
    "groups4": Quantisation(groups=3, log_bits=4, log_fraction=2, edge_bits=8),
    "groups clamped": Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=8, sums="clamped"),
    "groups step": Quantisation(groups=3, log_bits=5, zero="step", edge_bits=6),
    "groups coarse": Quantisation(groups=2, log_bits=5, sums="clamped", maximum_bits=4, out_fraction=8),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)


def folded(architecture, layout, quantisation, images):
    network = random_network(architecture, architecture.layouts(layout), groups=quantisation.groups)
    pixels = torch.tensor(images).float()
    return network, fold(network, pixels / 256, quantisation), pixels


def test_thresholds_are_parameters_of_one_size_at_any_width(tiny_architecture, images):
    """A step of training moves them alike; what powers of two the ranges are rounded to differs by a few."""
    sizes = []
    for bits in (3, 8):
        _network, result, _pixels = folded(tiny_architecture, "signed", Quantisation(bits=bits), images)
        norms = [step.threshold for step in result.steps.values() if isinstance(step, FoldedNorm)]
        sizes.append(torch.stack([norm.detach().abs().max() for norm in norms]))
    # inputs and weights may be off by one power of two each
    assert ((sizes[0] / sizes[1]).log2().abs() <= 2).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", ["auto", "signed", "wired", "mac"])
def test_folding_changes_nothing_in_floating_point(tiny_architecture, layout, groups, images):
    network, result, pixels = folded(tiny_architecture, layout, Quantisation(groups=groups), images)
    result.quantised = False
    with torch.no_grad():
        torch.testing.assert_close(result(pixels), network(pixels / 256), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["auto", "signed", "wired", "mac"])
@pytest.mark.parametrize("name", QUANTISATIONS)
def test_straight_through_network_gives_the_integers_of_the_integer_network(
    tiny_architecture, layout, name, images
):
    _network, result, pixels = folded(tiny_architecture, layout, QUANTISATIONS[name], images)
    if QUANTISATIONS[name].bits > 8:  # integers beyond 2^24
        result, pixels = result.double(), pixels.double()
    integer = result.to_integer("tiny", images)
    for layer in integer.layers.values():
        assert all(array.dtype == np.int64 for array in (*layer.weights.values(), *layer.biases.values()))
    with torch.no_grad():
        values = result.trace(pixels)
    for node, value in integer.trace(images):
        assert value.dtype == np.int64
        expected = values[node.name].numpy()
        layer = integer.layers.get(node.inputs[0] if node.operation == "norm" else node.name)
        if layer is not None and layer.gives_codes:
            if layout == "mac":  # of the trained one, sums and thresholds are numbers, which their readers encode
                norm = result.architecture.readers[layer.name][0].name
                reader = result.steps[result.architecture.readers[norm][0].name]
                expected = reader.input_codes(values[norm], result.units()[norm]).detach().numpy()
            else:
                expected = layer.format.activation.encode(expected)
        assert np.array_equal(value, expected), node.name
    assert np.array_equal(integer.classify(images), values["logits"].argmax(dim=1).numpy())


@pytest.mark.parametrize("layout", ["auto", "signed", "wired", "mac"])
@pytest.mark.parametrize("name", QUANTISATIONS)
def test_every_neuron_is_its_format(tiny_architecture, layout, name, images):
    """All neurons of all layers, at all positions, against ``compute`` of the layer's format."""
    _network, result, _pixels = folded(tiny_architecture, layout, QUANTISATIONS[name], images)
    integer = result.to_integer("tiny", images)
    values = {node.name: value for node, value in integer.trace(images)}
    for name, layer in integer.layers.items():
        x = layer.patches(layer.padded(integer.layer_inputs(layer, values[layer.node.inputs[0]]))).T
        codes, handed_on = integer.layer_inputs(layer, values[layer.node.inputs[0]]), values[name]
        outputs = layer.neurons(codes)
        if layer.rescale is not None and not layer.gives_codes:
            assert np.array_equal(layer.rescale.compute(outputs), handed_on)
        else:
            assert np.array_equal(outputs, handed_on)
        outputs = outputs.transpose(0, 2, 3, 1).reshape(-1, layer.channels)
        for channel in range(layer.channels):
            slots = layer.slots(channel)
            weights = {port: codes[channel, slots] for port, codes in layer.weights.items()
                       if port in layer.format.inputs_of}
            biases = {port: np.full(len(x), codes[channel]) for port, codes in layer.constants.items()}
            inputs = layer.ports(x[:, slots])
            expected = layer.neuron(channel).compute(**inputs, **weights, **biases)
            assert np.array_equal(outputs[:, channel], expected), (name, channel)


@pytest.mark.parametrize("layout", ["auto", "signed", "wired", "mac"])
def test_layers_in_front_of_layers_hand_on_codes(tiny_architecture, layout, images, tmp_path):
    _network, result, _pixels = folded(tiny_architecture, layout, QUANTISATIONS["codes"], images)
    integer = result.to_integer("codes", images)
    gives = {name for name, layer in integer.layers.items() if layer.gives_codes}
    takes = {name for name, layer in integer.layers.items() if layer.takes_codes}
    expected = {"stem", "first"}, {"first", "inner", "shortcut"} if layout != "mac" else set()
    assert (gives, takes) == expected
    again = load(save(integer, tmp_path, {}))
    assert np.array_equal(again.logits(images), integer.logits(images))
    for name in gives | takes:
        layer, errors = again.layers[name], []
        for channel in range(layer.channels):
            vectors = again.neuron_vectors(name, channel, 200)
            assert np.isfinite(vectors.real).all()  # what is too small for a code is 0 in both
            away = (vectors.expected > 0) & (vectors.expected < vectors.format.output[1].maximum)
            errors.append(np.abs(vectors.expected - vectors.real)[away])
        if name in gives:  # in steps of the code; the median leaves out what a near tie multiplies
            assert len(np.concatenate(errors)) > 50 and np.median(np.concatenate(errors)) <= 1.5
    coarse = again.with_log_bits(6)
    assert coarse.logits(images).shape == (40, 10)


def test_quantised_networks_stay_close_to_floating_point(tiny_architecture, images):
    """Wider codes, smaller error: the error of the logits halves with each bit or nearly so."""
    errors = []
    for log_bits in (5, 7, 9):
        network, result, pixels = folded(
            tiny_architecture, "auto", Quantisation(bits=12, log_bits=log_bits), images
        )
        with torch.no_grad():
            scale = network(pixels / 256).std()
            errors.append(float((result(pixels) - network(pixels / 256)).std() / scale))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize("gradient_norm", [None, 16.0])
@pytest.mark.parametrize("combine", ["linear", "logarithmic"])
def test_a_straight_through_step_reaches_every_parameter(tiny_architecture, images, combine, gradient_norm):
    quantisation = Quantisation(log_bits=5, combine=combine)
    _network, result, pixels = folded(tiny_architecture, "auto", quantisation, images)
    reached = reached_by_a_step(result, pixels, gradient_norm)
    candidates = {name for name, _ in result.named_parameters() if "biases" in name}
    if combine == "linear":
        candidates = set()
    # a candidate of a maximum is reached where it wins
    assert {name for name, _ in result.named_parameters()} - candidates <= reached
    assert not candidates or candidates & reached


@pytest.mark.parametrize("name", QUANTISATIONS)
def test_every_sum_is_found_again_from_its_product(tiny_architecture, images, name):
    """From 0 to the largest weight times the largest activation, as the maxima see it; 0 stands for no product."""
    _network, result, _pixels = folded(tiny_architecture, "signed", QUANTISATIONS[name], images)
    for step in result.steps.values():
        if not isinstance(step, FoldedNorm):
            fmt = step.format
            sums = np.arange(fmt.full_scale + 1)
            products = torch.tensor(2.0 ** ((sums - fmt.full_scale) / (1 << fmt.log_fraction)), dtype=torch.float32)
            expected = np.minimum(sums + fmt.half_step, fmt.full_scale) >> fmt.dropped_bits << fmt.dropped_bits
            assert np.array_equal(step._sums(products).numpy(), expected)
            assert step._sums(torch.zeros(1)) == 0


@pytest.mark.parametrize("layout", ["auto", "signed"])
def test_logarithmic_ends_have_the_gradient_of_norms_over_products_and_bias(tiny_architecture, images, layout, powers):
    """Against the norms written out; where the code is 0 or saturates there is no gradient."""
    _network, result, _pixels = folded(tiny_architecture, layout, Quantisation(combine="logarithmic"), images)
    step = result.train().steps["first"]  # 1x1 and from codes to codes, so that the products are easily written
    step.gradient_norm, p = 16.0, 16
    # float32 has no 16th powers of products below 0.6 %: the upper half of the codes, no small weight or candidate
    with torch.no_grad():
        step.weight.copy_(step.weight.abs().clamp(min=0.3) * torch.where(step.weight < 0, -1.0, 1.0))
        for bias in step.biases:
            bias.clamp_(min=0.1)
    codes = torch.randint(128, 256, (2, 4, 5, 5), generator=torch.Generator().manual_seed(1))
    x = step.code_values[codes]
    direction = torch.randn(2, 5, 5, 5, generator=torch.Generator().manual_seed(2))
    parameters = (step.weight, *step.biases)
    ours = torch.autograd.grad(step(x), parameters, direction)

    weight = step.quantised_weight().flatten(-3)
    sides = torch.stack([weight, -weight]) if layout == "signed" else weight
    products = torch.einsum("bchw,soc->sbcohw", x.double(), sides.clamp(min=0).double())
    biases = torch.stack([bias.abs() for bias in step.biases]).view(2, 1, 1, 5, 1, 1)
    candidates = torch.cat([products, biases.expand(2, 2, 1, 5, 5, 5)], dim=2)
    unit = 2.0 ** (step.format.offset / (1 << step.format.log_fraction))
    norms = unit * candidates.norm(p, dim=2)
    exact, real = unit * (candidates.amax(dim=2)[0] - candidates.amax(dim=2)[1]), norms[0] - norms[1]
    inside = (exact > 0) & (exact < 1)
    assert inside.any() and not inside.all()
    expected = torch.autograd.grad(real, parameters, direction * inside, retain_graph=True)
    # each term is off by its share, so that the sum is by that share of their magnitudes
    magnitudes = torch.autograd.grad(norms.sum(dim=0), parameters, direction.abs() * inside)
    for a, b, terms in zip(ours, expected, magnitudes, strict=True):
        assert ((a - b).abs() <= norm_errors(powers, p)[1] * terms.abs()).all() and terms.any()


@pytest.fixture(scope="module")
def network():
    return load("digits")


class TestShippedDigits:
    def test_classifies_as_its_card_says(self, network, digits):
        right = network.classify(digits.test_images) == digits.test_labels
        assert 100 * right.mean() == pytest.approx(network.card["accuracy"]["bm_integer_accuracy"])
        assert right.mean() > 0.97

    def test_samples_are_held_out_images(self, network, digits):
        held_out = {image.tobytes() for image in digits.test_images}
        assert all(sample.tobytes() in held_out for sample in network.samples)

    def test_vectors_of_every_layer(self, network):
        for name, layer in network.layers.items():
            for channel in (0, layer.channels - 1):
                vectors = network.neuron_vectors(name, channel, 300, seed=5)
                assert vectors.inputs["x"].shape == (300, layer.format.inputs)
                assert vectors.expected.shape == vectors.real.shape == (300,)
                assert np.array_equal(vectors.expected, vectors.format.compute(**vectors.inputs))
                assert len(np.unique(vectors.expected)) > 10, "real activations vary"
                spread = vectors.real.std()
                assert np.abs(vectors.expected - vectors.real).mean() < 0.1 * spread

    def test_vectors_follow_the_seed(self, network):
        one, same, other = (network.neuron_vectors("stem", 1, 50, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(one.inputs["x"], same.inputs["x"])
        assert not np.array_equal(one.inputs["x"], other.inputs["x"])

    def test_more_vectors_than_positions(self, network):
        vectors = network.neuron_vectors("dense", 3, 1000)
        assert len(vectors.expected) == 1000

    def test_one_changed_weight_shows(self, network):
        layer = network.layers["stage1_conv1"]
        vectors = network.neuron_vectors(layer.name, 0, 500)
        sums = vectors.inputs["k1"] + layer.format.log_codes(vectors.inputs["x"])[0]
        winner = int(np.bincount(sums.argmax(axis=1)).argmax())
        changed = dict(vectors.inputs, k1=vectors.inputs["k1"].copy())
        changed["k1"][winner] ^= 1
        assert not np.array_equal(vectors.expected, vectors.format.compute(**changed))

    @pytest.mark.parametrize(
        ("layer", "channel", "count", "message"),
        [
            ("stem7", 0, 1, "Layer must be one of stem, .*not 'stem7'"),
            ("stem", 16, 1, "Channel must be from 0 to 15, not 16"),
            ("stem", -1, 1, "Channel must be from 0 to 15, not -1"),
            ("stem", 0, 0, "Count must be 1 or more, not 0"),
        ],
    )
    def test_wrong_requests(self, network, layer, channel, count, message):
        with pytest.raises(ModelError, match=message):
            network.neuron_vectors(layer, channel, count)

    def test_wrong_images(self, network):
        for images in (np.zeros((1, 9, 8), np.uint8), np.zeros((1, 8, 8)), np.zeros((1, 3, 8, 8), np.uint8)):
            with pytest.raises(ModelError, match="Images must be uint8 of shape"):
                network.classify(images)

    @pytest.mark.parametrize("bits", [5, 6, 7])
    def test_narrower_codes(self, network, digits, bits):
        narrow = network.with_log_bits(bits)
        assert all(
            layer.format.log_bits == layer.format.weight_bits == bits for layer in narrow.layers.values()
        )
        right = narrow.classify(digits.test_images) == digits.test_labels
        assert right.mean() > 0.9
        narrow.neuron_vectors("stem", 0, 20)

    def test_impossible_width(self, network):
        with pytest.raises(ModelError, match="from 2 to 16, not 17"):
            network.with_log_bits(17)


def test_mac_layers_may_stand_beside_bm_layers(tiny_architecture, images):
    network = random_network(tiny_architecture, tiny_architecture.layouts("auto", {"dense": "mac"}))
    result = fold(network, torch.tensor(images).float() / 256, Quantisation(mac_weight_bits=6))
    integer = result.to_integer("tiny", images)
    assert isinstance(integer.layers["dense"].format, MacFormat)
    vectors = integer.neuron_vectors("dense", 2, 30)
    assert np.array_equal(vectors.expected, vectors.real)


def test_weights_of_one_sign_leave_the_other_maximum_empty(tiny_architecture, images):
    """An empty maximum stands for 0, not for the product that is nearest to it."""
    network = random_network(tiny_architecture, tiny_architecture.layouts("signed"))
    with torch.no_grad():
        network.steps["stem"].weight[0].abs_()
        network.steps["stem"].weight[1].abs_().neg_()
    pixels = torch.tensor(images).float() / 256
    integer = fold(network, pixels, QUANTISATIONS["8"]).to_integer("tiny", images)
    layer = integer.layers["stem"]
    x = np.random.default_rng(0).integers(1, 256, size=(50, layer.format.inputs))  # no 0, which would be a maximum
    for channel, sign in ((0, 1), (1, -1)):
        (found,) = set(np.where(layer.weights["sign"][channel] == 1, -1, 1).tolist())
        real = layer.real(channel, x)
        one = layer.format.weight.value(layer.weights["k"][channel]) * x * 2.0 ** (
            layer.format.out_fraction - layer.format.x.magnitude_bits)
        assert found == sign
        assert real == pytest.approx(layer.biases["bias"][channel] + sign * one.max(axis=1))


def test_a_gamma_of_zero_gives_nearly_a_constant(tiny_architecture, images):
    network = random_network(tiny_architecture, tiny_architecture.layouts("auto"))
    with torch.no_grad():
        network.steps["stem_norm"].weight[1] = 0
        network.steps["stem_norm"].bias[1] = 0.7
    result = fold(network, torch.tensor(images).float() / 256, Quantisation())
    result.quantised = False
    with torch.no_grad():
        found, expected = result(torch.tensor(images).float()), network(torch.tensor(images).float() / 256)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("columns", [1, 127, 128, 300])
def test_compiled_maxima_equal_numpys(columns, threads):
    compiled = library("maximum_of_sums")
    if isinstance(compiled, str):
        assert shutil.which("g++") is None, compiled
        pytest.skip("no C++ compiler")
    rng = np.random.default_rng(columns)
    candidates = rng.integers(-255, 256, (20, columns)).astype(np.int16)
    lengths = [20, 0, 7, 1]
    rows = Rows(
        np.cumsum([0, *lengths]),
        rng.integers(0, 20, sum(lengths)).astype(np.int32),
        rng.integers(0, 256, sum(lengths)).astype(np.int16),
    )
    expected = plain_maxima_of_rows(candidates, rows, np.zeros((4, columns), np.int16))
    assert np.array_equal(maxima_of_rows(candidates, rows, threads), expected)
    assert expected.max() > 0 and not expected[1].any()


def test_a_layers_own_error_is_small_and_grows_with_fewer_bits():
    network, reference, data = load("digits"), load_float("digits")["bm"], load_dataset("digits")
    images = data.test_images[:50]
    fine = layer_errors(network, reference, images)
    coarse = layer_errors(network.with_log_bits(5), reference, images)
    assert [entry["layer"] for entry in fine] == list(network.layers)
    for one, other in zip(fine, coarse, strict=True):
        assert 0 < one["own_error"] < 5 and one["own_error"] < other["own_error"]
        assert 0 <= one["saturated_inputs"] < 5 and 0 <= one["clamped_activations"] <= 100
        assert one["total_error"] > one["own_error"]


@pytest.mark.parametrize("combine", ["linear", "logarithmic"])
@pytest.mark.parametrize("sums", ["full", "clamped"])
def test_maxima_of_fewer_bits_round_the_sums(tiny_architecture, images, sums, combine):
    """Products of one weight and any input: the maxima's error is at most half of their step and has no direction."""
    quantisation = Quantisation(sums=sums, combine=combine, maximum_bits=5)
    _network, result, _pixels = folded(tiny_architecture, "signed", quantisation, images)
    layer = result.steps["first"]
    fmt, step = layer.format, 1 << layer.format.dropped_bits
    codes = layer.codes()
    exact = torch.log2(layer.weight.detach().double().abs()) * (1 << fmt.log_fraction) + fmt.weight.maximum
    inside = (exact > 0) & (exact < fmt.weight.maximum - step)  # others are clamped
    activation = torch.arange(fmt.activation.maximum + 1)
    base = 0 if sums == "full" else fmt.weight.maximum
    real = (activation + exact[inside][:, None]) - base
    seen = activation + codes[inside][:, None] - base >> fmt.dropped_bits << fmt.dropped_bits
    error = (seen - real)[real >= step]
    half_code = 0.5  # of the weight's own rounding
    assert error.abs().max() <= step / 2 + half_code
    # half up is half a code too much on average, the weights' rounding at most as much more; down is half a step off
    assert error.mean().abs() <= 1 < step / 4


@pytest.mark.parametrize("combine", ["linear", "logarithmic"])
def test_fewer_bits_afterwards_are_those_of_folding(tiny_architecture, images, combine):
    layers = {}
    for bits in (9, 6):
        quantisation = Quantisation(combine=combine, maximum_bits=bits)
        _network, result, _pixels = folded(tiny_architecture, "signed", quantisation, images)
        layers[bits] = result.to_integer("tiny", images).layers
    for name, layer in layers[9].items():
        fewer, wanted = layer.with_maximum_bits(6), layers[6][name]
        assert fewer.format == wanted.format
        known = layer.weights["k"] > 0  # what was clamped has lost by how much
        assert np.array_equal(fewer.weights["k"][known], wanted.weights["k"][known])
        assert np.array_equal(fewer.weights["sign"], wanted.weights["sign"])
        dropped = fewer.format.dropped_bits if fewer.gives_codes else 0
        for port, codes in wanted.biases.items():
            assert np.array_equal(fewer.biases[port] >> dropped, codes >> dropped)
        again = fewer.with_maximum_bits(9)
        inside = known & (layer.weights["k"] <= fewer.format.weight.maximum - fewer.format.half_step)
        assert np.array_equal(again.weights["k"][inside], layer.weights["k"][inside])
        # narrower codes, whose maxima drop nothing, don't round by the half step that the coarse maxima needed
        coarse, expected = fewer.with_log_bits(6), layer.with_log_bits(6)
        assert coarse.format == expected.format and coarse.format.half_step == 0
        assert np.array_equal(coarse.weights["k"][inside], expected.weights["k"][inside])


def test_layers_with_a_linear_result_have_maxima_of_their_own(tiny_architecture, images):
    quantisation = QUANTISATIONS["coarse linear"]
    _network, result, _pixels = folded(tiny_architecture, "signed", quantisation, images)
    seen = {(step.gives_codes, step.format.maximum_bits)
            for step in result.steps.values() if not isinstance(step, FoldedNorm)}
    assert seen == {(True, 5), (False, 3)}


def test_fewer_bits_in_the_maxima_are_those_of_the_format():
    network = load("digits").with_maximum_bits(6)
    assert {layer.format.maximum_bits for layer in network.layers.values()} == {6}
    network.neuron_vectors("stage1_conv1", 3, 50)  # compares with the format's compute
    with pytest.raises(ModelError, match="from 1 to 9, not 10"):
        load("digits").with_maximum_bits(10)


def test_fewer_fraction_bits_of_linear_results_round_them(digits):
    network = load("digits")
    assert np.array_equal(network.with_out_fraction(14).logits(network.samples), network.logits(network.samples))
    coarse = network.with_out_fraction(8)
    assert {layer.format.out_fraction for layer in coarse.layers.values()} == {8}
    for name in coarse.layers:
        coarse.neuron_vectors(name, 3, 20)  # compares with the format's compute

    def stem(which):
        value = next(value for node, value in which.trace(network.samples) if node.name == "stem")
        return value * 2.0 ** which.layers["stem"].exponent.reshape(1, -1, 1, 1)

    unit = 2.0 ** coarse.layers["stem"].exponent.reshape(1, -1, 1, 1)
    # two exponentials and the bias, each half a unit of the coarse result off, and of the fine one
    assert (np.abs(stem(coarse) - stem(network)) <= 3 * 0.5 * unit * (1 + 2.0**-6)).all()
    right = 100 * (coarse.classify(digits.test_images) == digits.test_labels).mean()
    # five of 500 images: what follows counts in the new units, or next to nothing would be right
    assert abs(right - network.card["accuracy"]["bm_integer_accuracy"]) <= 1
    with pytest.raises(ModelError, match="from 0 to 40, not 41"):
        network.with_out_fraction(41)
