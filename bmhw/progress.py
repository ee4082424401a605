# SPDX-License-Identifier: Apache-2.0
"""The progress bar of long measurements."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["shares", "steps"]

LINE_SECONDS = 5.0
"""Without a terminal, so long after the last line comes the next one."""


@contextmanager
def shares(description: str) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal's stderr, with the time gone and left; yields what is told each finished share of the work, 1
    together."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
               TextColumn("left:"), TimeRemainingColumn())
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as progress:
        task = progress.add_task(description, total=1.0)
        yield lambda share: progress.advance(task, share)


@contextmanager
def steps() -> Iterator[Callable[[str, float | None], None]]:
    """Yields what is told, as often as it likes, the step at work and the share done of it, None where unknown.

    On a terminal's stderr a bar for the step, else a line every :data:`LINE_SECONDS`, so none of a short one.
    """
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    last = started = time.monotonic()
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(step: str, share: float | None) -> None:
            nonlocal last
            progress.update(task, description=step, total=None if share is None else 1.0, completed=share or 0.0)
            now = time.monotonic()
            if not stderr.is_terminal and now - last >= LINE_SECONDS:
                last = now
                done = "" if share is None else f", {share:.0%}"
                print(f"{step}{done}, {now - started:.0f} s", file=sys.stderr, flush=True)

        yield tell
