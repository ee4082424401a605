# SPDX-License-Identifier: Apache-2.0
"""For each data set, the settings that its networks are trained with unless options say otherwise."""

from .training import Settings

__all__ = ["RECIPES"]

RECIPES: dict[str, Settings] = {
    "digits": Settings(dataset="digits", architecture="resnet-small", epochs=(30, 100, 8)),
}
