# SPDX-License-Identifier: Apache-2.0
"""The error of this package that a command line prints as one line."""

__all__ = ["ModelError"]


class ModelError(ValueError):
    """A model, weights file or data set that can't be used; one line that names the value and what is valid."""
