# SPDX-License-Identifier: Apache-2.0
"""Results kept between runs: JSON values in a folder of the program's own. Whatever is wrong with it, runs go on.

Folder: ``bmhw-cache`` in ``$BMHW_CACHE_DIR``, or in the platform's cache folder for ``bmhw`` (``~/.cache/bmhw`` on
Linux). A tag in it (https://bford.info/cachedir) says whose it is; a folder of that name without it isn't used.
Deleting it is always safe; the program itself deletes nothing in it but databases whose header holds its mark.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import platformdirs

from bmhw.errors import warn_once

__all__ = ["Cache", "NotOursError", "cache_folder", "claim", "digest", "without_cache"]

OWN = "bmhw-cache"
TAG = "CACHEDIR.TAG"
_TAG_TEXT = ("Signature: 8a477f597d28d172789f06886806bc55\n"
             "# Results, simulations and libraries kept by bmhw. Deleting this folder is always safe.\n")

_SIZE_LIMIT = 1 << 30  # bytes of a database; the values used longest ago go first
_BUSY = 5  # seconds to wait for another process that writes
_USED_AGAIN = 3600  # seconds in which a value that is read again isn't noted as used again

# What SQLite writes at the beginning of a file, and at byte 68 the number that says whose it is.
_MAGIC = b"SQLite format 3\0"
_APPLICATION = int.from_bytes(b"bmhw", "big")
_ID_AT = slice(68, 72)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, used REAL NOT NULL, checksum BLOB NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
"""


class NotOursError(Exception):
    """A file or folder in the cache's place that this program did not make, or may not trust."""


def cache_folder() -> Path:
    """The folder for everything that is kept: results, simulations, compiled libraries. It need not exist."""
    named = os.environ.get("BMHW_CACHE_DIR") or platformdirs.user_cache_dir("bmhw", appauthor=False)
    return Path(named).expanduser().absolute() / OWN


def digest(*values: Any) -> str:
    """A key made of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def claim(folder: Path) -> None:
    """Make a cache's folder, or see that it is one: ``OSError``, or :class:`NotOursError` if it isn't.

    What is tagged is ours, and so is a new or an empty folder. Links are not followed: what they lead to isn't ours.
    """
    if not os.path.lexists(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make_tagged(folder)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise NotOursError(f"{folder} is {'a link' if stat.S_ISLNK(status.st_mode) else 'no folder'}")
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise NotOursError(f"{folder} belongs to another user")
    with contextlib.suppress(FileNotFoundError):
        if _head(folder / TAG, len(_TAG_TEXT)) == _TAG_TEXT.encode():
            return
        raise NotOursError(f"{folder / TAG} is not this program's")
    if os.listdir(folder):
        raise NotOursError(f"{folder} holds other files")
    with contextlib.suppress(FileExistsError):  # another process was faster
        _write_tag(folder)


def without_cache(path: Path, reason: Exception) -> None:
    """Say once in a process that it goes on without a cache, or with one that keeps nothing more, and why."""
    text = reason.strerror if isinstance(reason, OSError) else None
    named = str(reason) if isinstance(reason, NotOursError) else f"{path}: {text or reason}"
    warn_once("cache", f"nothing is kept in the cache: {named}")


class Cache:
    """Key-value store that never raises: what is wrong with it is said once, and nothing is stored.

    ``folder`` None stores nothing. ``name``: of the database in the folder. Values are JSON, not pickles: reading
    a foreign cache runs no code. Any thread may use it.
    """

    def __init__(self, folder: Path | None, name: str = "results"):
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._writes = self._notes_use = True
        if folder is None:
            return
        # absolute: it may be used after a change of the working folder
        self._path = Path(os.path.abspath(folder)) / f"{name}.db"
        try:
            claim(self._path.parent)
            self._open()
        except (OSError, ValueError, sqlite3.Error, NotOursError) as error:
            self._give_up(error)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored value, or None."""
        with self._lock:
            if self._connection is None:
                return None
            try:
                return self._get(self._connection, key)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
            return None

    def set(self, key: str, value: dict[str, Any]) -> None:
        with self._lock:
            if self._connection is None or not self._writes:
                return
            data = zlib.compress(json.dumps(value).encode(), 1)
            row = (key, time.time(), _checksum(key, data), data)
            try:
                try:
                    self._store(self._connection, row)
                except sqlite3.DatabaseError as error:
                    if not _damaged(error):
                        raise
                    self._failed(error)
                    if self._connection is not None:
                        self._store(self._connection, row)
            except (sqlite3.Error, OSError) as error:
                # a full disk, no permission: what is there can still be read
                self._writes = False
                without_cache(self._path, error)

    def close(self) -> None:
        """Release the files; from here on nothing is stored."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def _open(self) -> None:
        """Open the database, or begin one; one of ours that is damaged is replaced."""
        if _state(self._path) == "damaged":
            self._set_aside()
        connection = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            # A machine that goes down may damage the file; that is found, and nothing is lost that can't be made
            # again. A process that is ended damages nothing.
            connection.execute("PRAGMA synchronous = OFF")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries_used'").fetchone():
                with _transaction(connection):
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    for statement in _SCHEMA.strip().split(";\n"):
                        connection.execute(statement)
        except sqlite3.Error as error:
            connection.close()
            if not _damaged(error):
                raise
            self._set_aside()
            return self._open()
        self._connection = connection

    def _get(self, connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
        row = connection.execute("SELECT used, checksum, value FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None or row[1] != _checksum(key, row[2]):
            return None  # a damaged value is written anew
        if self._notes_use and time.time() - row[0] > _USED_AGAIN:
            try:
                connection.execute("UPDATE entries SET used = ? WHERE key = ?", (time.time(), key))
            except sqlite3.OperationalError:
                self._notes_use = False  # a cache that can only be read
        value = json.loads(zlib.decompress(row[2]))
        return value if isinstance(value, dict) else None

    @staticmethod
    def _store(connection: sqlite3.Connection, row: tuple) -> None:
        def pragma(name: str) -> int:
            return connection.execute(f"PRAGMA {name}").fetchone()[0]

        with _transaction(connection):
            connection.execute("INSERT OR REPLACE INTO entries (key, used, checksum, value) VALUES (?, ?, ?, ?)", row)
            while (pragma("page_count") - pragma("freelist_count")) * pragma("page_size") > _SIZE_LIMIT:
                removed = connection.execute(
                    "DELETE FROM entries WHERE key IN (SELECT key FROM entries ORDER BY used "
                    "LIMIT (SELECT count(*) / 10 + 1 FROM entries))")
                if not removed.rowcount:
                    break

    def _failed(self, error: Exception) -> None:
        """Begin again if our own file is damaged, else go on without."""
        self.close()
        if not _damaged(error):
            self._give_up(error)
            return
        try:
            self._set_aside()
            self._open()
        except (OSError, sqlite3.Error, NotOursError) as second:
            self._give_up(second)

    def _give_up(self, error: Exception) -> None:
        self.close()
        without_cache(self._path, error)

    def _set_aside(self) -> None:
        """Have a damaged database out of the way, its journal first: it must not be played into a new one.

        Removed is what the mark in its header shows to be ours; what can't be recognised is renamed.
        """
        warn_once("cache", f"the cache {self._path} was damaged and is begun again")
        state, journal = _state(self._path), self._path.with_name(f"{self._path.name}-journal")
        if state == "ours":
            journal.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        elif state == "damaged":
            number = 1
            while os.path.lexists(aside := self._path.with_name(f"{self._path.name}.damaged-{number}")):
                number += 1
            with contextlib.suppress(FileNotFoundError):
                os.rename(journal, f"{aside}-journal")
            # if another process has put a new database there meanwhile, that one's values are lost, and no more
            os.rename(self._path, aside)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection):
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _damaged(error: Exception) -> bool:
    """Whether SQLite says that the file is no database or malformed: Python's other errors are subclasses."""
    return type(error) is sqlite3.DatabaseError


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()


def _state(path: Path) -> str:
    """``new``, ``ours`` or ``damaged``; :class:`NotOursError` for another program's database, a link, a folder."""
    try:
        head = _head(path, _ID_AT.stop)
    except FileNotFoundError:
        return "new"
    if not head:
        return "new"
    if not head.startswith(_MAGIC):
        return "damaged"
    if head[_ID_AT] != _APPLICATION.to_bytes(4, "big"):
        raise NotOursError(f"{path} is another program's database")
    return "ours"


def _head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise NotOursError(f"{path} is no regular file")
    with open(path, "rb") as file:
        return file.read(size)


def _make_tagged(folder: Path) -> None:
    """The folder appears with its tag in it, so that no other process sees it without."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write_tag(temporary)
        os.rename(temporary, folder)
    except OSError:
        # the disk is full, or another process was faster
        (temporary / TAG).unlink(missing_ok=True)
        temporary.rmdir()
        if not folder.is_dir():
            raise


def _write_tag(folder: Path) -> None:
    file = open(folder / TAG, "x", encoding="ascii")  # noqa: SIM115
    try:
        with file:
            file.write(_TAG_TEXT)
    except OSError:  # half a tag on a full disk would tell the next run that the folder isn't ours
        (folder / TAG).unlink()
        raise
