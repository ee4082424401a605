# SPDX-License-Identifier: Apache-2.0
"""The errors of this package; a command line shows them as one line."""

from bmhw.errors import RunError, UsageError

__all__ = ["ModelError", "ModelUsageError"]


class ModelError(RunError, ValueError):
    """A weights file, architecture or data set that can't be used; names what was found and what is valid."""


class ModelUsageError(ModelError, UsageError):
    """A name or number that doesn't exist; the message names it and the valid ones."""

    exit_status = UsageError.exit_status
