# SPDX-License-Identifier: Apache-2.0
"""Results kept between runs: JSON values in the user's cache folder. Whatever is wrong with it, runs go on.

Folder: ``$BMHW_CACHE_DIR``, or the platform's cache folder for ``bmhw`` (``~/.cache/bmhw`` on Linux).
Deleting it is always safe.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import diskcache
import platformdirs

__all__ = ["Cache", "cache_folder", "digest"]

_SIZE_LIMIT = 1 << 30  # bytes; the results used longest ago go first
_BUSY = 5  # seconds to wait for another process that writes


def cache_folder() -> Path:
    return Path(os.environ.get("BMHW_CACHE_DIR") or platformdirs.user_cache_dir("bmhw", appauthor=False))


def digest(*values: Any) -> str:
    """A key made of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Cache:
    """Key-value store that never raises: a broken one is emptied, one that can't be had stores nothing.

    ``folder`` None stores nothing. Values are JSON, not pickles: reading a foreign cache runs no code.
    """

    def __init__(self, folder: Path | None):
        self._store: diskcache.Cache | None = None
        if folder is None:
            return
        try:
            self._store = self._open(folder)
        except Exception:
            # not a database, or an old format: begin again, and without one if even that fails
            shutil.rmtree(folder, ignore_errors=True)
            try:
                self._store = self._open(folder)
            except Exception:
                self._store = None

    @staticmethod
    def _open(folder: Path) -> diskcache.Cache:
        return diskcache.Cache(str(folder), disk=diskcache.JSONDisk, size_limit=_SIZE_LIMIT, timeout=_BUSY,
                               eviction_policy="least-recently-used")

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored value, or None."""
        if self._store is None:
            return None
        try:
            value = self._store.get(key)
        except Exception:
            self._drop(key)
            return None
        return value if isinstance(value, dict) else None

    def set(self, key: str, value: dict[str, Any]) -> None:
        if self._store is None:
            return
        try:
            self._store.set(key, value)
        except Exception:
            self._drop(key)

    def close(self) -> None:
        """Release the files; from here on nothing is stored."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _drop(self, key: str) -> None:
        """An entry that can't be read or written must not stand in the way for good."""
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.delete(key)
            self._store = store
        except Exception:
            shutil.rmtree(store.directory, ignore_errors=True)
