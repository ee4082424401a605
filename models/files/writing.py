# SPDX-License-Identifier: Apache-2.0
"""Writing files so that no half-written one is ever left behind."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bmhw.flow.files import replacing
from bmhw.models.errors import ModelError

__all__ = ["sha256", "staged", "write_atomically"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write(temporary)


@contextlib.contextmanager
def staged(folder: Path, kept: Callable[[Path], bool] = lambda path: False) -> Iterator[Path]:
    """A folder whose files are moved to ``folder`` at the end, cards (.json) last, if nothing is raised until then.

    ``kept``: which files that stand there must not be replaced, except by the same bytes; ModelError if one would be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        yield Path(temporary)
        files = sorted(Path(temporary).iterdir(), key=lambda path: (path.suffix == ".json", path.name))
        for file in files:
            target = folder / file.name
            if target.exists() and kept(target) and target.read_bytes() != file.read_bytes():
                raise ModelError(f"{target} exists and is not replaced")
        for file in files:
            os.chmod(file, 0o644)
            os.replace(file, folder / file.name)


def sha256(data: bytes) -> str:
    """The checksum that cards hold, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
