# SPDX-License-Identifier: Apache-2.0
"""MNIST and CIFAR-10 from the files that they were released as, or from npz files of the same images.

Whatever the container, the arrays are compared with the checksums of the original release.
"""

import gzip
import io
import itertools
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmhw.models.errors import ModelError

from .writing import sha256

__all__ = ["read_cifar10", "read_mnist"]

Arrays = dict[str, NDArray]

# SHA-256 of the arrays' bytes, in the order of the release, images with channels last.
MNIST = {
    "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
CIFAR10 = {
    "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
MNIST_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR10_RECORD = 1 + 3 * 32 * 32


def read_mnist(folder: Path) -> Arrays:
    """The fields of a Dataset, from ``mnist.npz`` (arrays x_train, y_train, x_test, y_test) or the four IDX
    files, plain or with ``.gz``."""
    return _dataset(_read(folder, "mnist", _mnist_npz, _mnist_idx, list(MNIST_FILES.values())), MNIST, folder,
                    (28, 28, 1))


def read_cifar10(folder: Path) -> Arrays:
    """The fields of a Dataset, from the six binary batches (``data_batch_1.bin`` ...) or from
    ``cifar10.npz``: labels as for MNIST, images ``x_train``/``x_test`` or strips of WebP pictures
    (``train_webp``, ``train_offsets``)."""
    files = [name for names in CIFAR10_FILES.values() for name in names]
    return _dataset(_read(folder, "cifar10", _cifar10_npz, _cifar10_binary, files), CIFAR10, folder, (32, 32, 3))


def _read(
    folder: Path,
    name: str,
    from_npz: Callable[[Path], Arrays],
    from_files: Callable[[Path], Arrays],
    files: list[str],
) -> Arrays:
    npz = folder / f"{name}.npz"
    try:
        if npz.is_file():
            return from_npz(npz)
        if _existing(folder / files[0]) is None:
            raise ModelError(f"Folder {folder} must hold {npz.name} or the files {', '.join(files)}")
        return from_files(folder)
    except ModelError:
        raise
    except Exception as error:  # NumPy, gzip, zipfile and Pillow raise many kinds for a broken or foreign file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"The {name} files in {folder} can't be read: {reason}") from None


def _existing(path: Path) -> Path | None:
    """The path, or the one with .gz behind it; None if neither is a file."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _bytes(path: Path) -> bytes:
    found = _existing(path)
    if found is None:
        raise ModelError(f"Data file {path} doesn't exist")
    data = found.read_bytes()
    return gzip.decompress(data) if found.suffix == ".gz" else data


def _mnist_npz(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return {key: arrays[key] for key in MNIST}


def _mnist_idx(folder: Path) -> Arrays:
    return {key: _idx(folder / file) for key, file in MNIST_FILES.items()}


def _idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file: two zero bytes, type (8 = uint8), number of axes, their sizes, values in C order."""
    data = _bytes(path)
    kind, axes = struct.unpack_from(">HBB", data)[1:]
    shape = struct.unpack_from(f">{axes}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if kind != 8 or values.size != math.prod(shape):
        raise ModelError(f"Data file {path} must be an IDX file of {shape} bytes, not {values.size}")
    return values.reshape(shape)


def _cifar10_npz(path: Path) -> Arrays:
    with np.load(path) as arrays:
        result = {f"y_{part}": arrays[f"y_{part}"] for part in CIFAR10_FILES}
        for part in CIFAR10_FILES:
            if f"x_{part}" in arrays:
                result[f"x_{part}"] = arrays[f"x_{part}"]
            else:
                result[f"x_{part}"] = _webp(arrays[f"{part}_webp"], arrays[f"{part}_offsets"])
    return result


def _webp(strips: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images 32x32 RGB out of pictures in which they lie one below the other."""
    try:
        from PIL import Image
    except ImportError:
        raise ModelError("WebP images need Pillow: pip install pillow") from None
    pictures = (Image.open(io.BytesIO(strips[a:b].tobytes())) for a, b in itertools.pairwise(offsets))
    return np.concatenate([np.asarray(p.convert("RGB")).reshape(-1, 32, 32, 3) for p in pictures])


def _cifar10_binary(folder: Path) -> Arrays:
    result = {}
    for part, files in CIFAR10_FILES.items():
        records = np.concatenate([np.frombuffer(_bytes(folder / file), np.uint8) for file in files])
        if records.size % CIFAR10_RECORD:
            raise ModelError(f"The files {', '.join(files)} must hold records of {CIFAR10_RECORD} bytes")
        records = records.reshape(-1, CIFAR10_RECORD)
        result[f"y_{part}"] = records[:, 0]
        result[f"x_{part}"] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return result


def _dataset(arrays: Arrays, checksums: dict[str, str], folder: Path, shape: tuple[int, int, int]) -> Arrays:
    """Checked arrays as fields of a Dataset; images of a shape (height, width, channels), flat ones too."""
    for key, checksum in checksums.items():
        if arrays[key].dtype != np.uint8:
            raise ModelError(f"The array {key} from {folder} must hold uint8, not {arrays[key].dtype}")
        found = sha256(np.ascontiguousarray(arrays[key]).tobytes())
        if found != checksum:
            raise ModelError(
                f"The array {key} from {folder} isn't that of the original release: SHA-256 "
                f"{found[:16]}..., not {checksum[:16]}..."
            )
    fields: Arrays = {}
    for part in ("train", "test"):
        images = arrays[f"x_{part}"].reshape(-1, *shape).transpose(0, 3, 1, 2)
        fields[f"{part}_images"] = np.ascontiguousarray(images)
        fields[f"{part}_labels"] = arrays[f"y_{part}"].reshape(-1).astype(np.int64)
    return fields
