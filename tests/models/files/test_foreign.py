# SPDX-License-Identifier: Apache-2.0
"""Networks of other people: what their files hold, which layer becomes which, what the files don't say."""

import functools
import gzip
import json
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.networks import random_network
from torch import nn

from bmhw.models import ModelError
from bmhw.models.errors import ModelUsageError
from bmhw.models.files.conventions import Conventions
from bmhw.models.files.initial import read_initial
from bmhw.models.files.store import WEIGHTS
from bmhw.models.networks.architecture import Builder, resnet_small
from bmhw.models.networks.network import Network


def small():
    """A layer of each kind twice; no two convolutions or normalisations are alike."""
    net = Builder(2, 8, 8)
    x = net.norm(net.conv("stem", "image", 3, 3))
    x = net.norm(net.conv("inner", x, 4, 3, stride=2))
    net.dense("dense", net.norm(net.dense("hidden", x, 5)), 10)
    return net.build()


ARCHITECTURE = small()
TWINS = resnet_small(1, 8, filters=4)
"""With layers of the same kind and shape."""


class Theirs(nn.Module):
    """The architecture ``small`` as somebody else would write it."""

    def __init__(self, epsilon=1e-5, affine=True, bias=True):
        super().__init__()
        options = {"eps": epsilon, "affine": affine}
        self.conv_a, self.bn_a = nn.Conv2d(2, 3, 3, padding=1, bias=bias), nn.BatchNorm2d(3, **options)
        self.conv_b, self.bn_b = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias), nn.BatchNorm2d(4, **options)
        self.fc, self.bn_c = nn.Linear(64, 5), nn.BatchNorm1d(5, **options)
        self.last = nn.Linear(5, 10)
        generator = torch.Generator().manual_seed(7)
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.1 if "var" in name
                            else torch.randn(value.shape, generator=generator))

    def forward(self, x):
        x = torch.relu(self.bn_a(self.conv_a(x)))
        x = torch.relu(self.bn_b(self.conv_b(x)))
        return self.last(torch.relu(self.bn_c(self.fc(x.flatten(1)))))


def save(path, state):
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return path


def read(path, architecture=ARCHITECTURE, **options):
    return read_initial(path, architecture, architecture.layouts("mac"), **options)


def network(initial, architecture=ARCHITECTURE):
    result = Network(architecture.with_border(initial.border), architecture.layouts("mac"))
    result.load_state_dict({**result.state_dict(), **initial.states["classical"]})
    return result.eval()


def assert_computes(initial, theirs, scale=lambda pixels: pixels / 256):
    pixels = torch.randint(0, 256, (20, 2, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    with torch.no_grad():
        expected = theirs.eval()(scale(pixels))
        # both round in single precision; an error is a few of its steps, 1.2e-7, of the largest sum on the way
        torch.testing.assert_close(network(initial)(pixels / 256), expected, rtol=1e-4, atol=1e-4 * expected.std())


# -- what a file doesn't say


@pytest.mark.parametrize("epsilon", [1e-8, 1e-5, 1e-3, 0.1])
def test_another_epsilon_is_folded(tmp_path, epsilon):
    """Also where the variance is 0 or smaller than this package's epsilon."""
    theirs = Theirs(epsilon)
    theirs.bn_a.running_var.copy_(torch.tensor([0.0, 1e-6, 2.0]))
    theirs.bn_b.running_var.copy_(torch.tensor([1e-3, 9.9e-4, 1.1e-3, 1e-12]))
    path = save(tmp_path / "theirs.pt", theirs.state_dict())
    initial = read(path, conventions=Conventions(norm_epsilon=epsilon))
    assert all(value.min() >= 0 for key, value in initial.states["classical"].items() if key.endswith("var"))
    assert_computes(initial, theirs)


def test_the_epsilon_that_is_assumed_follows_from_the_names(tmp_path):
    theirs = Theirs(1e-5)
    theirs.bn_a.running_var.fill_(1e-4)
    assert_computes(read(save(tmp_path / "theirs.pt", theirs.state_dict())), theirs)
    ours = random_network(ARCHITECTURE, ARCHITECTURE.layouts("mac"))
    for prefix in ("", "module.", "module.model."):
        state = {prefix + key: value for key, value in ours.state_dict().items()}
        initial = read(save(tmp_path / "ours.pt", state))
        assert initial.conventions.norm_epsilon == 1e-3
        for key, value in initial.states["classical"].items():  # every bit
            assert torch.equal(value, ours.state_dict()[key])


@pytest.mark.parametrize("conventions", [
    {"mean": (0.3,), "std": (0.35,)},
    {"mean": (0.2, 0.9), "std": (0.5, 0.1), "pixel_scale": 255},
    {"mean": (0.0, 0.5)},
    {"mean": (120.0, 255.0), "std": (60.0,), "pixel_scale": 1},
    {"std": (0.25,), "pixel_scale": 255},
])  # fmt: skip
def test_scaled_images_are_folded_with_exact_borders(tmp_path, conventions):
    theirs, chosen = Theirs(), Conventions(**conventions)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (chosen.mean, chosen.std))
    initial = read(save(tmp_path / "theirs.pt", theirs.state_dict()), conventions=chosen)
    assert_computes(initial, theirs, lambda pixels: (pixels / chosen.pixel_scale - mean) / std)
    wanted = tuple(float(m) * chosen.pixel_scale for m in mean.double().flatten().expand(2)) if mean.any() else ()
    assert initial.border == pytest.approx(wanted)
    text = "\n".join(initial.lines())
    assert str(chosen.completed(2, False)) in text and ("Padding of the image" in text) == bool(wanted)


def test_what_is_usual_changes_no_bit(tmp_path):
    theirs = Theirs(1e-3)
    state = read(save(tmp_path / "a.pt", theirs.state_dict()), conventions=Conventions(norm_epsilon=1e-3)).states
    for name, value in (("stem.weight", theirs.conv_a.weight), ("inner_norm.running_var", theirs.bn_b.running_var)):
        assert torch.equal(state["classical"][f"steps.{name}"], value)


@pytest.mark.parametrize(("options", "message"), [
    ({"norm_epsilon": 0.0}, "--norm-epsilon must be above 0 and at most 1, not 0"),
    ({"norm_epsilon": float("nan")}, "not nan"),
    ({"mean": (1.5,)}, "--mean must be from 0 to 0.996094, the largest pixel / 256, not 1.5"),
    ({"mean": (-0.1,)}, "not -0.1"),
    ({"mean": (0.1, 0.2, 0.3)}, "--mean must be one number or 2, one a channel, not 3"),
    ({"std": (0.5, 0.0)}, "--std must be numbers above 0, not 0"),
    ({"std": (float("inf"),)}, "not inf"),
    ({"pixel_scale": 0.0}, "--pixel-scale must be a number above 0, not 0"),
])  # fmt: skip
def test_conventions_that_are_none(tmp_path, options, message):
    path = save(tmp_path / "theirs.pt", Theirs().state_dict())
    with pytest.raises(ModelUsageError, match=message):
        read(path, conventions=Conventions(**options))


# -- what a file looks like


@pytest.mark.parametrize("wrap", [
    lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    lambda state: {"epoch": torch.tensor(3), "model_state_dict": state},
    lambda state: {"model": {"state_dict": state}},
    lambda state: {"best": state, "accuracy": 99.1},
    lambda state: {f"module.{key}": value for key, value in state.items()},
    lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    lambda state: OrderedDict(state, epoch=4, name="theirs"),
    lambda state: {key: value.double() if value.is_floating_point() else value for key, value in state.items()},
    lambda state: {key: nn.Parameter(value) if value.is_floating_point() else value for key, value in state.items()},
    lambda state: {key: value.to_sparse() if value.ndim == 2 else value for key, value in state.items()},
    lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    lambda state: {**state, "again.weight": state["fc.weight"], "again.bias": state["fc.bias"]},
    lambda state: {"conv_a.weight_orig": state["conv_a.weight"], "conv_a.weight_mask": torch.ones(3, 2, 3, 3),
                   **{key: value for key, value in state.items() if key != "conv_a.weight"}},
    lambda state: dict(reversed(state.items())),
])  # fmt: skip
def test_every_wrapping_gives_the_same_network(tmp_path, wrap):
    theirs = Theirs()
    assert_computes(read(save(tmp_path / "theirs.pt", wrap(theirs.state_dict()))), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_other_precisions_work(tmp_path, dtype, suffix):
    theirs, path = Theirs().to(dtype), tmp_path / f"theirs{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), path)
    assert_computes(read(path), theirs.float())


def test_a_safetensors_file_of_another_name_is_one(tmp_path):
    theirs = Theirs()
    save_file(theirs.state_dict(), tmp_path / "theirs.bin")
    assert_computes(read(tmp_path / "theirs.bin"), theirs)


def test_layers_without_bias_and_normalisations_without_affine_parameters(tmp_path):
    theirs = Theirs(affine=False, bias=False)
    initial = read(save(tmp_path / "theirs.pt", theirs.state_dict()))
    assert_computes(initial, theirs)
    notes = {match.target: match.note for match in initial.matches}
    assert notes["stem"] == "bias 0" and notes["stem_norm"] == "gamma 1, beta 0"
    assert notes["hidden"] == "from 5 x 64" and notes["inner_norm"] == "gamma 1, beta 0"


# -- which layer becomes which


def renamed(architecture, names):
    """A network of the architecture, and its state_dict under other names (a function of position and name)."""
    ours = random_network(architecture, architecture.layouts("mac"))
    state = {}
    for position, (name, step) in enumerate(ours.steps.items()):
        for part, value in step.state_dict().items():
            state[f"{names(position, name)}.{part}"] = value
    return ours, state


def words(position, _name):
    """Names that say nothing; sorted, they are in the reverse order."""
    return f"net.{'zyxwvutsrqponm'[position]}"


def test_unique_shapes_need_no_order(tmp_path):
    theirs = Theirs()
    initial = read(save(tmp_path / "theirs.safetensors", theirs.state_dict()))
    assert_computes(initial, theirs)
    assert [(m.target, m.source) for m in initial.matches] == [
        ("stem", "conv_a"), ("stem_norm", "bn_a"), ("inner", "conv_b"), ("inner_norm", "bn_b"), ("hidden", "fc"),
        ("hidden_norm", "bn_c"), ("dense", "last"),
    ]  # fmt: skip
    lines = list(initial.lines())
    assert lines[1].split() == ["stem", "conv_a", "3", "x", "2", "x", "3", "x", "3"] and len(lines) == 9


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_twins_are_told_apart_by_numbers_or_by_the_order_of_the_file(tmp_path, suffix):
    def told_apart(names):
        ours, state = renamed(TWINS, names)
        found = read(save(tmp_path / f"theirs{suffix}", state), TWINS, conventions=Conventions(norm_epsilon=1e-3))
        return all(torch.equal(value, ours.state_dict()[key]) for key, value in found.states["classical"].items())

    assert told_apart(lambda position, name: f"layers.{position}")  # of these, 10 comes behind 9
    # of words, only the order of the file is left
    if suffix == ".pt":
        assert told_apart(words)
    else:
        message = r"ambiguous: net.p, net.s have .* stage1_conv1_norm, stage1_norm;.*--order"
        with pytest.raises(ModelError, match=message):
            told_apart(words)
    # numbers against the order of the file
    if suffix == ".pt":
        with pytest.raises(ModelError, match="ambiguous"):
            told_apart(lambda position, name: f"layers.{99 - position}")


def test_an_order_file_settles_what_is_ambiguous(tmp_path):
    ours, state = renamed(TWINS, words)
    path = save(tmp_path / "theirs.safetensors", {**state, "net.head.weight": torch.zeros(7, 7)})
    order = tmp_path / "order.txt"
    names = [words(position, name) for position, name in enumerate(ours.steps)]
    every = [f"{name}.{part}" for name, step in zip(names, ours.steps.values(), strict=True)
             for part in step.state_dict()]
    short = [name.removeprefix("net.") for name in names]
    for lines in (names, ["# the architecture's order", "", *names], short, every):
        order.write_text("\n".join(lines) + "\n")
        found = read(path, TWINS, conventions=Conventions(norm_epsilon=1e-3), order=order).states["classical"]
        assert all(torch.equal(value, ours.state_dict()[key]) for key, value in found.items())
    for lines, message in (
        (["net.zz", *names], r"Line 1 of .*order.txt must name a layer of .*, not 'net.zz' \(did you mean"),
        (names[:-1], "must name 12 layers, not 11; the next is dense"),
        ([*names, names[0]], "must name 12 layers, not 13"),
        ([names[1], names[0], *names[2:]], "Layer net.y of .* can't be converted to stem: it has a normalisation"),
    ):
        order.write_text("\n".join(lines))
        with pytest.raises(ModelError, match=message) as caught:
            read(path, TWINS, order=order)
        assert "\n" not in str(caught.value)
    order.write_bytes(b"\xff\xfe\x00")
    for bad in (order, tmp_path / "none.txt", tmp_path):
        with pytest.raises(ModelUsageError, match=r"Order file .* can't be read"):
            read(path, TWINS, order=bad)


def test_one_layer_may_stand_for_two(tmp_path):
    """Tied weights, which a safetensors file holds once."""
    ours, state = renamed(TWINS, words)
    names = [words(position, name) for position, name in enumerate(ours.steps)]
    tied = ["net.w" if name == "net.y" else name for name in names]
    kept = {key: value for key, value in state.items() if not key.startswith("net.y.")}
    path, order = save(tmp_path / "theirs.safetensors", kept), tmp_path / "order.txt"
    with pytest.raises(ModelError, match="has 11 layers, not 12; the first that can't be converted: none for"):
        read(path, TWINS)
    order.write_text("\n".join(tied))
    found = read(path, TWINS, order=order).states["classical"]
    for part in ("weight", "bias", "running_mean"):
        assert torch.equal(found[f"steps.stem_norm.{part}"], state[f"net.w.{part}"])
        assert torch.equal(found[f"steps.stage0_conv1_norm.{part}"], state[f"net.w.{part}"])


# -- what can't be used


def changed(**changes):
    """The state_dict with other tensors; None removes one."""
    state = {**Theirs().state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


def with_value(name, value, dtype=torch.float32):
    tensor = Theirs().state_dict()[name].to(dtype).clone()
    tensor.view(-1)[0] = value
    return {name: tensor}


@pytest.mark.parametrize(("changes", "message"), [
    (with_value("conv_a.bias", float("nan")), "Tensor conv_a.bias of .* must hold finite numbers .* not nan"),
    (with_value("fc.weight", float("-inf")), "Tensor fc.weight of .* must hold finite numbers .* not -inf"),
    (with_value("fc.weight", 1e300, torch.float64), "Tensor fc.weight of .* not 1e\\+300"),
    (with_value("bn_b.running_mean", float("inf")), "Tensor bn_b.running_mean of"),
    (with_value("bn_b.running_var", float("nan")), "Tensor bn_b.running_var of .* not nan"),
    (with_value("bn_b.running_var", -0.5), "Tensor bn_b.running_var of .* variances of 0 or more, not -0.5"),
    ({"fc.weight": torch.ones(5, 64, dtype=torch.int8)}, "fc.weight of .* holds int8 numbers.*before they are quant"),
    ({"fc.weight": torch.ones(5, 64, dtype=torch.bool)}, "fc.weight of .* holds bool numbers"),
    ({"fc.weight": torch.ones(5, 64, dtype=torch.complex64)}, "fc.weight of .* holds complex64 numbers"),
    ({"fc.weight": torch.empty(5, 64, device="meta")}, "fc.weight of .* must hold numbers, not be meta"),
    ({"fc.weight": torch.ones(5, 0)}, "fc.weight of .* is empty"),
    ({"fc.weight": torch.ones(5, 65)}, r"Layer fc of .* to hidden: it has weight of shape \(5, 65\), not"),
    ({"last.weight": torch.ones(100, 5), "last.bias": torch.ones(100)}, r"Layer last .* \(100, 5\), not .*\(10, 5, 1"),
    ({"last.bias": torch.ones(11)}, r"Layer last of .* it has bias of shape \(11,\), not bias of shape \(10,\)"),
    ({"bn_a.running_var": torch.ones(4)}, "must have one value a channel, as many as bn_a.running_var"),
    ({"bn_a.running_var": torch.tensor(1.0)}, "must have one value a channel"),
    ({"bn_a.running_var": None}, "Layer bn_a of .* it has no running_var"),
    ({"bn_a.running_var": None, "bn_a.running_mean": None}, "bn_a of .* is a normalisation without running statistics"),
    ({"conv1d.weight": torch.ones(3, 2, 3)}, "Layer conv1d of .* is a weight of 3 axes"),
    ({"mean": torch.ones(3)}, "Tensor mean of .* belongs to no convolution"),
    ({"fc2.weight": torch.ones(9, 9)}, "has 8 layers, not 7; the first that can't be converted: fc2, which has weight"),
    ({"last.weight": None, "last.bias": None}, "has 6 layers, not 7; .* none for dense"),
    ({"fc.scale": torch.ones(5)}, "Layer fc of .* can't be converted to hidden: it has a scale"),
])  # fmt: skip
def test_tensors_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message) as caught:
        read(save(tmp_path / "theirs.pt", {key: value for key, value in {**Theirs().state_dict(), **changes}.items()
                                           if value is not None}))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_tensors_are_named(tmp_path):
    state = changed(fc__weight=torch.quantize_per_tensor(torch.randn(5, 64), 0.1, 0, torch.qint8))
    with pytest.raises(ModelError, match=r"Tensor fc.weight of .* holds qint8 numbers"):
        read(save(tmp_path / "theirs.pt", state))


def archive(*names):
    def write(path):
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"content")

    return write


class Code:
    pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "write", "message"), [
    ("a.pt", lambda path: path.write_bytes(b""), "is empty"),
    ("a.safetensors", lambda path: path.write_bytes(b""), "is empty"),
    ("a.safetensors", lambda path: path.write_bytes(b"\x00" * 40), "can't be read"),
    ("a.safetensors", lambda path: path.write_bytes((99).to_bytes(8, "little") + b"{" * 20), "can't be read"),
    ("a.onnx", lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch"), "is an ONNX model.*state_dict"),
    ("a.pt", lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch"), "is an ONNX model"),
    ("a.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file .Keras.*state_dict"),
    ("a.pt", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file"),
    ("a.tflite", lambda path: path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(99)), "TensorFlow Lite"),
    ("a.pb", lambda path: path.write_bytes(b"\n\x05" + bytes(99)), "TensorFlow graph"),
    ("a.npz", lambda path: np.savez(path, weight=np.ones(3)), "archive of NumPy arrays"),
    ("a.npy", lambda path: np.save(path, np.ones(3)), "single NumPy array"),
    ("a.keras", archive("config.json", "model.weights.h5"), "Keras archive"),
    ("a.zip", archive("readme.txt"), "zip archive that isn't PyTorch's"),
    ("a.pt", lambda path: path.write_bytes(b"PK\x03\x04nothing"), "can't be read"),
    ("a.pt.gz", lambda path: path.write_bytes(gzip.compress(b"x")), "compressed"),
    ("a.json", lambda path: path.write_text("{}"), "NAME-float.safetensors"),
    ("a.pt", lambda path: path.write_bytes(pickle.dumps(Code())), "pickle that isn't PyTorch's"),
    ("a.pt", lambda path: torch.save(nn.Linear(2, 2), path), "holds more than tensors, torch.nn.*state_dict"),
    ("a.pt", lambda path: torch.save({"state_dict": {}, "by": functools.partial}, path), "holds more than tensors"),
    ("a.pt", lambda path: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path), "TorchScript archive"),
    ("a.pt", lambda path: torch.save(torch.ones(3), path), "not a single tensor"),
    ("a.pt", lambda path: torch.save([torch.ones(3)], path), "not a list"),
    ("a.pt", lambda path: torch.save({}, path), "not an empty"),
    ("a.pt", lambda path: torch.save({3: torch.ones(3)}, path), "not a dictionary"),
    ("a.pt", lambda path: torch.save({"a": {"w": torch.ones(3)}, "b": {"w": torch.ones(3)}}, path), "several .* a, b"),
    ("a.pt", lambda path: torch.save({"settings": {}, "phase": 1, "models": {}}, path), "checkpoint of this program"),
    ("a.safetensors", lambda path: path.write_bytes((WEIGHTS / "digits.safetensors").read_bytes()), "integer codes"),
    ("folder.pt", lambda path: path.mkdir(), "must be a file"),
])  # fmt: skip
def test_files_that_hold_no_weights(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(ModelError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_dictionaries_that_hold_themselves(tmp_path):
    holder: dict = {}
    holder["model"] = holder
    torch.save(holder, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="must hold a state_dict"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_files(tmp_path, share, suffix):
    path = save(tmp_path / f"theirs{suffix}", Theirs().state_dict())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match="can't be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_border_in_a_file_of_this_package(tmp_path):
    state = {f"classical.{key}": value for key, value in random_network(
        ARCHITECTURE, ARCHITECTURE.layouts("mac")).state_dict().items() if value.is_floating_point()}
    path = tmp_path / "a-float.safetensors"
    save_file(state, path, metadata={"border": json.dumps([76.8, 0.0])})
    assert read(path).border == (76.8, 0.0)
    for text in ("x", "3", '["1"]'):
        save_file(state, path, metadata={"border": text})
        with pytest.raises(ModelError, match="Metadata border of"):
            read(path)
    with pytest.raises(ModelUsageError, match="is this program's own"):
        read(path, conventions=Conventions(mean=(0.5,)))
