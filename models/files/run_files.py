# SPDX-License-Identifier: Apache-2.0
"""The files of a training run: what they are called, and that a run never replaces those of another one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmhw.models.errors import ModelUsageError

from .float_weights import SUFFIX

__all__ = ["CHECKPOINT", "LOG", "RunFiles"]

CHECKPOINT, LOG = "checkpoint.pt", "train.jsonl"


class RunFiles:
    """The files of a run of a name in a folder; ``force``: whether those of another run may be replaced.

    A run that goes on (``resume``) may replace its own: the card that has its settings, and what was written before
    there was one.
    """

    def __init__(self, folder: Path, name: str, *, resume: bool = False, force: bool = False):
        self.folder, self.name, self.resume, self.force = folder, name, resume, force
        self._own: set[Path] = set()

    @property
    def _results(self) -> list[Path]:
        """The network's files that are there, the card first."""
        card, integers = (self.folder / f"{self.name}.{suffix}" for suffix in ("json", "safetensors"))
        return [path for path in (card, integers, *self._float_files) if path.exists()]

    @property
    def _float_files(self) -> list[Path]:
        """In every number of parts, but not those of a network whose name goes on differently."""
        parts = [self.folder / f"{self.name}{SUFFIX}", self.folder / f"{self.name}-classical{SUFFIX}"]
        number = 2
        while (part := self.folder / f"{self.name}-{number}{SUFFIX}").exists():
            parts.append(part)
            number += 1
        return parts

    def check(self, settings: Mapping[str, Any]) -> None:
        """Before training; ModelUsageError for the first file that the run would replace. ``settings``: of the run, as
        a card holds them."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ModelUsageError(f"{self.folder} must be a folder")
        results = self._results
        card = self.folder / f"{self.name}.json"
        if self.resume and not self.force:
            if card.exists() and not _is_of(card, settings):
                raise ModelUsageError(
                    f"{card} is of another run; --force replaces it, --name gives this run's network another name"
                )
        elif not self.force:
            for path in (*results, self.folder / CHECKPOINT, self.folder / LOG):
                if path.exists():
                    raise ModelUsageError(
                        f"{path} exists; --force replaces an earlier run, --resume goes on with it, --out names "
                        "another folder"
                    )
        self._own.update(results)

    def kept(self, path: Path) -> bool:
        """Whether a file mustn't be replaced: it was not there, or not of this run, when the run began."""
        return not self.force and path not in self._own

    def shared(self, initial: Path | None) -> Path | None:
        """The floating-point weights that the run starts from, if they may lie in its folder under their name: not
        where others of that name lie."""
        if initial is None or not initial.name.endswith(SUFFIX):
            return None
        stem = initial.name.removesuffix(SUFFIX)
        for path in RunFiles(self.folder, stem)._float_files:
            source = initial.with_name(path.name)
            if path.exists() and not (source.is_file() and path.read_bytes() == source.read_bytes()):
                return None
        return initial


def _is_of(card: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a card tells of a run with these settings."""
    try:
        return _tells(json.loads(card.read_text(encoding="utf-8"))["training"], json.loads(json.dumps(settings)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _tells(told: Any, known: Any) -> bool:
    """What an older version's card doesn't tell counts as equal."""
    if isinstance(known, dict):
        return all(key not in told or _tells(told[key], value) for key, value in known.items())
    return told == known
