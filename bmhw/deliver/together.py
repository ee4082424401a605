# SPDX-License-Identifier: Apache-2.0
"""Files that one command writes into a folder: all or none of them, and only over its own."""

import contextlib
import json
import os
import re
import shlex
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmhw.errors import RunError
from bmhw.flow.files import write_atomically

__all__ = ["command_text", "recorded_command", "write_together"]


def command_text(program: str, args: Namespace, defaults: Mapping[str, Any], *without: str) -> str:
    """``python -m PROGRAM`` with its options in one order, those ``without`` and those at their defaults left out."""
    words = ["python", "-m", program]
    for option, value in vars(args).items():
        if option in without or value == defaults.get(option):
            continue
        flag = f"--{option.replace('_', '-')}"
        for single in value if isinstance(value, list) else [value]:
            words += [flag] if single is True else [flag, str(single)]
    return shlex.join(words)


def recorded_command(path: Path, program: str) -> str | None:
    """The command of ``program`` that wrote a file, as the file says itself; None for any other file."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            description = json.loads(text)
            command = description["command"] if description["generator"] == program else None
        else:
            found = re.search(r"^(?://|#|<!--) .*\b[Ww]ritten by: +(\S.*?)(?: -->)?$", text[:4096], re.M)
            command = found[1] if found else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return command if isinstance(command, str) and program in command else None


def write_together(folder: Path, files: dict[str, str], *, command: str, force: bool = False) -> list[Path]:
    """Write all files into ``folder`` or none of them: first under temporary names, then renamed.

    ``command``: ``python -m PROGRAM ...`` (:func:`command_text`), which stands in each file. A file of the same name is
    replaced if ``command`` wrote it, with ``force`` also if another one of the program did; any other file is left
    alone. :class:`RunError` names what is wrong.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in files):
            _check_replaceable(path, command, force)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".bmhw-export-") as temporary:
            for name, text in files.items():
                write_atomically(Path(temporary) / name, text)
            _move_together(Path(temporary), folder, list(files))
    except (OSError, RunError) as error:
        if made:
            with contextlib.suppress(OSError):  # it was never made, or is no longer empty
                folder.rmdir()
        if isinstance(error, RunError):
            raise
        raise RunError(f"cannot write into {folder}: {error.strerror or error}") from None
    return [folder / name for name in files]


def _check_replaceable(path: Path, command: str, force: bool) -> None:
    if not os.path.lexists(path):
        return
    program = command.split()[2]
    before = recorded_command(path, program)
    if before is None:
        raise RunError(f"cannot write {path}: it exists and is not a file of {program}; "
                       "move it away, or choose another --out or --name")
    if before != command and not force:
        raise RunError(f"cannot write {path}: it was written by another command, {before}; "
                       "choose another --out or --name, or overwrite it with --force")


def _move_together(source: Path, target: Path, names: list[str]) -> None:
    """Move the files; if one can't be moved, put things back as they were."""
    moved: list[str] = []
    try:
        for name in names:
            moved.append(name)
            if (target / name).exists():
                os.replace(target / name, source / f"{name}.before")
            os.replace(source / name, target / name)
    except BaseException:  # an interruption too: what was there would go with the temporary folder
        for name in moved:
            with contextlib.suppress(OSError):
                if (source / f"{name}.before").exists():
                    os.replace(source / f"{name}.before", target / name)
                elif not (source / name).exists():  # it is in its place, where there was nothing
                    (target / name).unlink(missing_ok=True)
        raise
