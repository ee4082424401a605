# SPDX-License-Identifier: Apache-2.0
"""The progress bar of long measurements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["shares"]


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
