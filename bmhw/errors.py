# SPDX-License-Identifier: Apache-2.0
"""Errors that a command line shows as one line, without a traceback; warnings, as one line too."""

import contextlib
import sys
import threading

__all__ = ["BmhwError", "RunError", "TimeLimitError", "UsageError", "warn_once"]

_warned: set[str] = set()
_warning = threading.Lock()


class BmhwError(Exception):
    """An expected failure: ``str()`` is the line that the user sees, ``exit_status`` the command's."""

    exit_status = 1


class RunError(BmhwError):
    """Something went wrong in a run: a tool, a file, a time limit. Exit status 1."""


class TimeLimitError(RunError):
    """A tool took longer than it may."""


class UsageError(BmhwError):
    """Options that make no sense; the message names the value and the valid range. Exit status 2."""

    exit_status = 2


def warn_once(subject: str, message: str) -> None:
    """One line on stderr for each ``subject`` in the life of a process."""
    with _warning:
        if subject in _warned:
            return
        _warned.add(subject)
    with contextlib.suppress(OSError):  # stderr may be a file on the full disk that this is about
        print(f"bmhw: warning: {' '.join(message.split())}", file=sys.stderr, flush=True)
