# SPDX-License-Identifier: Apache-2.0
"""Temporary folders in which tools work, at a place whose path no tool stumbles over.

abc ends a name at a space and Yosys hands it absolute names, GNU Make builds in no folder whose path has a space,
shells and makefiles give ``$``, ``#``, quotes and brackets meanings of their own.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bmhw.errors import RunError

__all__ = ["is_plain", "work_folder"]

_PLAIN = re.compile(r"[A-Za-z0-9_./+@-]+" if os.name == "posix" else r"[A-Za-z0-9_./+@:\\~-]+")


def is_plain(path: str | os.PathLike) -> bool:
    """Whether every tool takes this path, links in it followed, for one name and nothing else."""
    return all(_PLAIN.fullmatch(str(name)) for name in (path, os.path.realpath(path)))


@contextmanager
def work_folder(prefix: str = "bmhw-") -> Iterator[Path]:
    """A folder that is removed with all that is in it: in the usual place, or where that isn't plain in the first of
    others that is. :class:`RunError` if there is none."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_place(), ignore_cleanup_errors=True) as name:
        yield Path(os.path.realpath(name))


def _place() -> str:
    usual = tempfile.gettempdir()
    places = [usual, "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), os.getcwd()]
    for place in places:
        if is_plain(place) and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK):
            return place
    raise RunError(f"no place for temporary files: in {usual!r}, what is not a letter, a digit or one of _./+@- stops "
                   "tools; have TMPDIR name another folder")
