# SPDX-License-Identifier: Apache-2.0
"""What a command is doing, on stderr: drawn where a person looks on, plain lines in a log.

On a terminal a line is drawn over and is gone in the end. Anywhere else no such codes are written: what takes long
says each step, or each tenth of its work, in a line of its own.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["activity", "on_terminal", "say", "shares", "steps", "waiting"]


def on_terminal() -> bool:
    """Whether stderr is a terminal that can be drawn on; no variable for colours makes one of a file."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def say(line: str) -> None:
    """A line of a log, there at once."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what a few seconds are spent on, to a person only."""
    if on_terminal():
        with Console(stderr=True).status(f"{text} ..."):
            yield
    else:
        yield


@contextmanager
def steps(first: str) -> Iterator[Callable[[str], None]]:
    """Yields what is told each step of the work when it begins; ``first`` stands until then, on a terminal."""
    if on_terminal():
        with Console(stderr=True).status(f"{first} ...") as status:
            yield lambda step: status.update(f"{step} ...")
    else:
        yield lambda step: say(f"{step} ...")


LINE_SECONDS = 5.0
"""Without a terminal, so long after the last line of an :func:`activity` comes the next one."""


@contextmanager
def activity() -> Iterator[Callable[[str, float | None], None]]:
    """Yields what is told, as often as it likes, the step at work and the share done of it, None where unknown.

    A bar for the step on a terminal, a line every :data:`LINE_SECONDS` elsewhere, so none of a short one.
    """
    if not on_terminal():
        last = started = time.monotonic()

        def tell(step: str, share: float | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= LINE_SECONDS:
                last = now
                say(f"{step}{'' if share is None else f', {share:.0%}'}, {now - started:.0f} s")

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda step, share: progress.update(
            task, description=step, total=None if share is None else 1.0, completed=share or 0.0)


@contextmanager
def shares(description: str) -> Iterator[Callable[[float], None]]:
    """Yields what is told each finished share of the work, 1 together, from any thread.

    A bar with the time gone and left on a terminal, a line for each tenth elsewhere, with both times where it takes
    more than :data:`LINE_SECONDS`.
    """
    if not on_terminal():
        yield _tenths(description)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
               TextColumn("left:"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=1.0)
        yield lambda share: progress.advance(task, share)


def _tenths(description: str) -> Callable[[float], None]:
    lock, done, said, started = threading.Lock(), 0.0, 0, time.monotonic()

    def advance(share: float) -> None:
        nonlocal done, said
        with lock:
            done += share
            tenths = int(10 * done + 1e-6)  # each sum is rounded: n of them fall short by n * 2^-53 at most
            if tenths > said:
                said = tenths
                gone = time.monotonic() - started
                left = f", {gone:.0f} s, {gone * (1 / done - 1):.0f} s left" if gone >= LINE_SECONDS else ""
                say(f"{description}: {10 * tenths} %{left}")

    return advance
