# SPDX-License-Identifier: Apache-2.0
"""Random changes of training images."""

import numpy as np
import torch

from bmhw.models.training.augmentation import mirrored, translated


def test_translated_images_are_moved_not_changed():
    images = torch.arange(1, 40 * 63 + 1).reshape(40, 1, 9, 7).to(torch.uint8)
    moved = translated(images, 1, np.random.default_rng(0))
    found = set()
    for image, original in zip(moved[:, 0], images[:, 0], strict=True):
        padded = np.pad(original, 1)
        places = [(y, x) for y in range(3) for x in range(3) if np.array_equal(image, padded[y : y + 9, x : x + 7])]
        assert places
        found.update(places)
    assert len(found) == 9
    assert translated(images, 0, np.random.default_rng(0)) is images


def test_mirrored_images_are_turned_or_not():
    images = torch.arange(20 * 6, dtype=torch.uint8).reshape(20, 1, 2, 3)
    turned = mirrored(images, np.random.default_rng(0))
    same = [np.array_equal(image, original) for image, original in zip(turned, images, strict=True)]
    assert 0 < sum(same) < 20
    for image, original, kept in zip(turned, images, same, strict=True):
        assert kept or torch.equal(image, original.flip(-1))
