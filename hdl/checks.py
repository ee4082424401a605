# SPDX-License-Identifier: Apache-2.0
"""Argument checks whose messages name the value and the valid range."""

from collections.abc import Iterable

__all__ = ["check_choice", "check_range"]


def check_range(name: str, value: int, low: int, high: int | None = None) -> int:
    """Return ``value`` if it is an integer in ``low..high``; ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        valid = f"an integer from {low} to {high}" if high is not None else f"an integer of {low} or more"
        raise ValueError(f"{name} must be {valid}, not {value!r}")
    return value


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``; ``ValueError`` otherwise."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value
