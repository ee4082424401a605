# SPDX-License-Identifier: Apache-2.0
"""Image data sets: unsigned 8-bit pixels, a training part and a held-out (test) part."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.checks import not_one_of
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.files.image_files import read_cifar10, read_mnist

__all__ = ["DATASETS", "NEEDS_FILES", "Dataset", "load_dataset"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images uint8 (count, channels, height, width), labels int64 (count,)."""

    name: str
    description: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    @property
    def classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def validation_split(self, count: int) -> "Dataset":
        """The last ``count`` training images in the place of the test part: choices are made on them, so
        that the test part is looked at once, at the end."""
        most = len(self.train_images) // 2
        if not 1 <= count <= most:
            raise ModelUsageError(f"Validation images must be from 1 to {most}, not {count}")
        return dataclasses.replace(
            self,
            train_images=self.train_images[:-count],
            train_labels=self.train_labels[:-count],
            test_images=self.train_images[-count:],
            test_labels=self.train_labels[-count:],
        )


def digits() -> Dataset:
    """scikit-learn's handwritten digits, 8x8 (Alpaydin and Kaynak, UCI 1998), every image with its own
    position in a fixed shuffled order; the last 500 of 1797 are held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ModelError("The digits images need scikit-learn: pip install 'bmhw[models]'") from None
    pixels, labels = load_digits(return_X_y=True)
    # 0..16 becomes 0..255; a shift of the pixels, saturated
    images = np.minimum(pixels.astype(np.int64) << 4, 255).astype(np.uint8).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    return Dataset(
        name="digits",
        description="scikit-learn digits, 8x8 handwriting, 1297 for training and 500 held out",
        train_images=images[:-500],
        train_labels=labels[:-500],
        test_images=images[-500:],
        test_labels=labels[-500:],
    )


def mnist(folder: Path) -> Dataset:
    """MNIST handwritten digits, 28x28 grey (LeCun, Cortes and Burges)."""
    return Dataset(name="mnist", description="MNIST, 28x28, 60000 for training and 10000 held out",
                   **read_mnist(folder))  # fmt: skip


def cifar10(folder: Path) -> Dataset:
    """CIFAR-10, 32x32 RGB photographs (Krizhevsky 2009)."""
    return Dataset(name="cifar10", description="CIFAR-10, 32x32 RGB, 50000 for training and 10000 held out",
                   **read_cifar10(folder))  # fmt: skip


DATASETS = {"digits": digits, "mnist": mnist, "cifar10": cifar10}
NEEDS_FILES = ("mnist", "cifar10")
"""Data sets that are read from a folder of the user's."""


def load_dataset(name: str, folder: Path | None = None) -> Dataset:
    """A data set by name, from the files in ``folder`` if it is one of :data:`NEEDS_FILES`.

    ModelError for an unknown name and for files that are missing, broken or not the original data.
    """
    if name not in DATASETS:
        raise ModelUsageError(not_one_of("Data set", DATASETS, name))
    if name not in NEEDS_FILES:
        return DATASETS[name]()
    if folder is None:
        raise ModelUsageError(f"Data set {name} is read from files: name their folder with --data DIR")
    return DATASETS[name](folder)
