# SPDX-License-Identifier: Apache-2.0
"""For each data set and architecture, the settings that its network is trained with unless options say
otherwise. Chosen on training images that were held off (``Settings.validation``), never on the test part."""

import dataclasses
from typing import Any

from .settings import Settings

__all__ = ["RECIPES", "recipe"]

_ANNEALED: dict[str, Any] = {"rates": (2e-3, 1e-2, 1e-3), "batch": 64, "validation": 5000, "method": "annealed"}

RECIPES: dict[tuple[str, str], Settings] = {
    (settings.dataset, settings.architecture): settings
    for settings in (
        Settings(dataset="digits", architecture="resnet-small", epochs=(30, 100, 8)),
        Settings(dataset="mnist", architecture="resnet20", epochs=(6, 10, 1), translate=1, **_ANNEALED),
        Settings(dataset="mnist", architecture="lenet", epochs=(8, 14, 1), translate=1, **_ANNEALED),
        Settings(
            dataset="cifar10", architecture="resnet20", epochs=(24, 16, 3), translate=4, mirror=True, **_ANNEALED
        ),
    )
}
"""(data set, architecture) -> settings; the first of a data set is its default."""


def recipe(dataset: str, architecture: str | None = None) -> Settings:
    """The settings of a data set, for its default architecture or the one named."""
    default = next(settings for (name, _), settings in RECIPES.items() if name == dataset)
    if architecture is None:
        return default
    return RECIPES.get((dataset, architecture), dataclasses.replace(default, architecture=architecture))
