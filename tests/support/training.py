# SPDX-License-Identifier: Apache-2.0
"""Trainings that are stopped on the way."""

from contextlib import contextmanager
from unittest.mock import patch

from bmhw.models.training.trainer import Trainer

__all__ = ["stopped_in"]


@contextmanager
def stopped_in(phase):
    """A run within stops at its first step in a phase, by number, as Ctrl-C stops it."""
    saved = Trainer._save_if_due

    def stop(trainer):
        trainer.stop = trainer.phase == phase
        saved(trainer)

    with patch.object(Trainer, "_save_if_due", stop):
        yield
