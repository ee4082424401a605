# SPDX-License-Identifier: Apache-2.0
"""Argument checks whose messages name the value and the valid range."""

import difflib
from collections.abc import Iterable

__all__ = ["check_choice", "check_range", "nearest", "not_one_of"]


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
        raise ValueError(not_one_of(name, choices, value))
    return value


def nearest(word: str, valid: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the closest valid word, or nothing."""
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def not_one_of(what: str, valid: Iterable[str], found: object) -> str:
    """The line for a name that doesn't exist: the valid ones, what was found, and the nearest valid one."""
    valid = list(map(str, valid))
    return f"{what} must be one of {', '.join(valid)}, not {found!r}{nearest(str(found), valid)}"
