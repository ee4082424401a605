# SPDX-License-Identifier: Apache-2.0
"""The folder in which a simulation is built: a temporary one, or one that the user names and keeps."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bmhw.errors import RunError, UsageError
from bmhw.flow.work_folder import is_plain, work_folder

from .plain_names import LINKS

__all__ = ["build_folder"]

_MARK = ".bmhw-sim"  # a folder that holds it is overwritten


@contextmanager
def build_folder(named: str | os.PathLike | None) -> Iterator[Path]:
    """The folder to work in. What it holds is in the folder ``named`` afterwards, also after an error.

    A named folder must be new, empty, or one of an earlier build: :class:`UsageError`, :class:`RunError`.
    """
    if named is None:
        with work_folder("bmhw-sim-") as folder:
            yield folder
        return
    kept = Path(named).absolute()
    _take(kept)
    if is_plain(kept):
        yield kept
        return
    with work_folder("bmhw-sim-") as folder:
        try:
            yield folder
        finally:
            shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LINKS))


def _take(folder: Path) -> None:
    """Make the folder, or see that a build may overwrite what is in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _MARK).is_file():
            if others := os.listdir(folder):
                raise UsageError(f"Build folder must be new, empty or of an earlier build, not {str(folder)!r}, which "
                                 f"holds {sorted(others)[0]!r}")
            (folder / _MARK).write_text("Built by bmhw.sim, which overwrites the files here.\n")
    except OSError as error:
        raise RunError(f"cannot build in {folder}: {error.strerror or error}") from None
