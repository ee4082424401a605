# SPDX-License-Identifier: Apache-2.0
"""Data sets: files in every container, their checksums, and one-line errors for what can't be used."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from bmhw.models import ModelError
from bmhw.models.files import image_files
from bmhw.models.files.writing import sha256
from bmhw.models.training.datasets import load_dataset


def checksums(arrays):
    return {key: sha256(np.ascontiguousarray(array).tobytes()) for key, array in arrays.items()}


@pytest.fixture
def mnist_arrays(monkeypatch):
    """A few random images in the place of MNIST, its checksums with them."""
    rng = np.random.default_rng(5)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 30, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 12, dtype=np.uint8),
    }
    monkeypatch.setattr(image_files, "MNIST", checksums(arrays))
    return arrays


@pytest.fixture
def cifar10_arrays(monkeypatch):
    rng = np.random.default_rng(6)
    arrays = {
        "x_train": rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 50, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 10, dtype=np.uint8),
    }
    monkeypatch.setattr(image_files, "CIFAR10", checksums(arrays))
    return arrays


def write_idx(folder, arrays, zipped):
    for key, file in image_files.MNIST_FILES.items():
        array = arrays[key]
        data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        (folder / (file + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)


def write_binary(folder, arrays):
    for part, files in image_files.CIFAR10_FILES.items():
        pixels = arrays[f"x_{part}"].transpose(0, 3, 1, 2).reshape(len(arrays[f"y_{part}"]), -1)
        records = np.concatenate([arrays[f"y_{part}"][:, None], pixels], axis=1)
        for file, some in zip(files, np.array_split(records, len(files)), strict=True):
            (folder / file).write_bytes(some.tobytes())


@pytest.mark.parametrize("container", ["npz", "idx", "idx.gz"])
def test_mnist(mnist_arrays, tmp_path, container):
    if container == "npz":
        np.savez(tmp_path / "mnist.npz", **mnist_arrays)
    else:
        write_idx(tmp_path, mnist_arrays, container.endswith("gz"))
    data = load_dataset("mnist", tmp_path)
    assert np.array_equal(data.train_images[:, 0], mnist_arrays["x_train"])
    assert np.array_equal(data.test_images[:, 0], mnist_arrays["x_test"])
    assert np.array_equal(data.train_labels, mnist_arrays["y_train"])
    assert np.array_equal(data.test_labels, mnist_arrays["y_test"])


@pytest.mark.parametrize("container", ["npz", "binary", "webp"])
def test_cifar10(cifar10_arrays, tmp_path, container):
    if container == "npz":
        np.savez(tmp_path / "cifar10.npz", **cifar10_arrays)
    elif container == "binary":
        write_binary(tmp_path, cifar10_arrays)
    else:
        np.savez(tmp_path / "cifar10.npz", **webp_strips(cifar10_arrays))
    data = load_dataset("cifar10", tmp_path)
    assert data.train_images.shape == (50, 3, 32, 32)
    assert np.array_equal(data.test_images.transpose(0, 2, 3, 1), cifar10_arrays["x_test"])
    assert np.array_equal(data.train_labels, cifar10_arrays["y_train"])


def webp_strips(arrays):
    result = {}
    for part in ("train", "test"):
        strips = []
        for some in np.array_split(arrays[f"x_{part}"], 2):
            buffer = io.BytesIO()
            Image.fromarray(some.reshape(-1, 32, 3)).save(buffer, "WEBP", lossless=True, exact=True)
            strips.append(np.frombuffer(buffer.getvalue(), np.uint8))
        result[f"{part}_webp"] = np.concatenate(strips)
        result[f"{part}_offsets"] = np.cumsum([0, *(len(strip) for strip in strips)])
        result[f"y_{part}"] = arrays[f"y_{part}"]
    return result


def test_what_is_not_the_original_is_refused(mnist_arrays, tmp_path):
    altered = {key: array.copy() for key, array in mnist_arrays.items()}
    altered["x_test"][3, 4, 5] ^= 1
    np.savez(tmp_path / "mnist.npz", **altered)
    with pytest.raises(ModelError, match=r"x_test .* isn't that of the original release"):
        load_dataset("mnist", tmp_path)


def test_missing_and_broken_files(mnist_arrays, tmp_path):
    with pytest.raises(ModelError, match="--data DIR"):
        load_dataset("mnist")
    with pytest.raises(ModelError, match=r"must hold mnist.npz or the files train-images-idx3-ubyte"):
        load_dataset("mnist", tmp_path)
    write_idx(tmp_path, mnist_arrays, zipped=False)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ModelError, match="must be an IDX file"):
        load_dataset("mnist", tmp_path)
    labels.unlink()
    with pytest.raises(ModelError, match="t10k-labels-idx1-ubyte doesn't exist"):
        load_dataset("mnist", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 not a whole file")
    with pytest.raises(ModelError, match="can't be read"):
        load_dataset("mnist", tmp_path)


def test_arrays_of_another_shape_hold_the_same_images(mnist_arrays, tmp_path):
    """As Keras has labels, and flat images; the bytes are those of the release."""
    flat = {key: array.reshape(len(array), -1) for key, array in mnist_arrays.items()}
    np.savez(tmp_path / "mnist.npz", **flat)
    data = load_dataset("mnist", tmp_path)
    assert np.array_equal(data.train_images[:, 0], mnist_arrays["x_train"])
    assert np.array_equal(data.test_labels, mnist_arrays["y_test"]) and data.test_labels.ndim == 1


class Code:
    pass


def spoilt_npz(arrays, **changes):
    def write(folder):
        content = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
        np.savez(folder / "mnist.npz", **content)

    return write


def broken_member(arrays):
    """A whole archive with a member whose compressed bytes are nonsense."""

    def write(folder):
        path = folder / "mnist.npz"
        np.savez_compressed(path, **arrays)
        data = bytearray(path.read_bytes())
        data[200:4000] = b"\xaa" * 3800
        path.write_bytes(data)

    return write


@pytest.mark.parametrize(("write", "message"), [
    (lambda arrays: spoilt_npz(arrays, x_train=None), "x_train"),
    (lambda arrays: spoilt_npz(arrays, y_test=arrays["y_test"].astype(np.int64)), "y_test .* uint8, not int64"),
    (lambda arrays: spoilt_npz(arrays, y_test=np.array([Code()], dtype=object)), "can't be read"),
    (lambda arrays: spoilt_npz(arrays, x_train=np.uint8(3)), "isn't that of the original release"),
    (broken_member, "can't be read"),
    (lambda arrays: lambda folder: (folder / "mnist.npz").write_bytes(b""), "can't be read"),
    (lambda arrays: lambda folder: np.save((folder / "mnist.npz").open("wb"), arrays["y_test"]), "can't be read"),
    (lambda arrays: lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b""), "can't be read"),
    (lambda arrays: lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(bytes(3) + b"\xff" + bytes(99)),
     "can't be read"),
    (lambda arrays: lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(
        struct.pack(">HBB3I", 0, 8, 3, *[2**31] * 3)), "must be an IDX file"),
    (lambda arrays: lambda folder: (folder / "train-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(bytes(999))[:-300].replace(b"\x00", b"\xaa") + b"x"), "can't be read"),
    (lambda arrays: lambda folder: (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08" + b"\xaa" * 99),
     "can't be read"),
])  # fmt: skip
def test_foreign_content_is_one_line(mnist_arrays, tmp_path, write, message):
    write(mnist_arrays)(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        load_dataset("mnist", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [
    {"train_offsets": np.array([0, 10])}, {"train_offsets": np.array(3)}, {"train_offsets": np.array(["a", "b"])},
    {"train_webp": np.zeros(200, dtype=np.uint8)}, {"test_webp": np.zeros(0, dtype=np.uint8)},
])  # fmt: skip
def test_broken_pictures_are_one_line(cifar10_arrays, tmp_path, changes):
    np.savez(tmp_path / "cifar10.npz", **{**webp_strips(cifar10_arrays), **changes})
    with pytest.raises(ModelError, match="can't be read") as caught:
        load_dataset("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_validation_part_is_cut_from_the_training_images(digits):
    split = digits.validation_split(200)
    assert np.array_equal(np.concatenate([split.train_images, split.test_images]), digits.train_images)
    assert np.array_equal(np.concatenate([split.train_labels, split.test_labels]), digits.train_labels)
    assert len(split.test_images) == 200
    with pytest.raises(ModelError, match="from 1 to 648, not 0"):
        digits.validation_split(0)
