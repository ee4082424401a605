# SPDX-License-Identifier: Apache-2.0
"""Writing files so that no half-written one is ever left behind."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from bmhw.flow.files import replacing

__all__ = ["sha256", "write_atomically"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write(temporary)


def sha256(data: bytes) -> str:
    """The checksum that cards hold, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
