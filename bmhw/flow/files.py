# SPDX-License-Identifier: Apache-2.0
"""Files whole or not at all, and known to be right before a long run."""

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bmhw.errors import BmhwError, RunError, UsageError

__all__ = [
    "check_file_name", "check_own", "check_writable", "deliver_json", "reading", "replacing", "write_atomically",
]


def check_writable(path: str | os.PathLike) -> None:
    """:class:`RunError` now, before a long run, if ``path`` can't be written later. ``-`` is stdout."""
    if str(path) == "-":
        return
    target = Path(path)
    if target.is_dir():
        raise RunError(f"cannot write {target}: it is a folder")
    if not target.parent.is_dir():
        raise RunError(f"cannot write {target}: there is no folder {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise RunError(f"cannot write {target}: permission denied")


def check_file_name(option: str, name: str) -> None:
    """:class:`UsageError` unless files in any folder can be called ``name`` and an ending of up to 50 bytes."""
    if name in ("", ".", "..") or set(name) & set("/\\:") or not name.isprintable() or len(name.encode()) > 200:
        raise UsageError(f"{option} must be a name of files of at most 200 bytes, without folders, not {name!r}")


@contextlib.contextmanager
def reading(path: str | os.PathLike, meaning: str) -> Iterator[None]:
    """Around what takes a file of JSON apart: :class:`RunError` that ``path`` is no ``meaning`` for whatever is missing
    in it or of another kind than was expected."""
    try:
        yield
    except BmhwError:
        raise
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{path} is no {meaning}: {' '.join(repr(error).split())}") from error


def check_own(path: Path, mark: str, command: str) -> None:
    """:class:`RunError` if there is a file that ``command``, whose files begin with ``mark``, did not write."""
    try:
        if path.exists() and mark not in path.read_text(errors="replace")[:4096]:
            raise RunError(f"cannot write {path}: it exists and is not a file of {command}; move it away")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def deliver_json(value: object, file: str | None) -> bool:
    """Write figures where ``--json`` wants them: ``-`` is stdout, None nowhere. Whether they went to stdout, where no
    table may follow."""
    text = json.dumps(value, indent=2) + "\n"
    if file == "-":
        print(text, end="")
    elif file is not None:
        write_atomically(file, text)
    return file == "-"


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a whole file or none; else :class:`RunError`."""
    data = content.encode() if isinstance(content, str) else content
    try:
        target = Path(os.path.realpath(path))
        if str(path).startswith("/dev/") or (target.exists() and not stat.S_ISREG(target.stat().st_mode)):
            with open(path, "ab") as file:  # a device or a pipe can't be renamed over
                file.write(data)
            return
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty file beside ``path`` to be filled, then renames it to ``path``; if anything goes wrong, it is
    gone and ``path`` is as it was."""
    target = Path(os.path.realpath(path))  # a link stays a link
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that nobody else may read
        os.chmod(temporary, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
