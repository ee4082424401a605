# SPDX-License-Identifier: Apache-2.0
"""Image data sets: unsigned 8-bit pixels, a training part and a held-out part."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError, ModelUsageError

__all__ = ["DATASETS", "Dataset", "load_dataset"]


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


DATASETS = {"digits": digits}


def load_dataset(name: str) -> Dataset:
    """A data set by name; ModelError for an unknown one."""
    if name not in DATASETS:
        raise ModelUsageError(f"Data set must be one of {', '.join(DATASETS)}, not {name!r}")
    return DATASETS[name]()
