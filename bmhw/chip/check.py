# SPDX-License-Identifier: Apache-2.0
"""The check of a network on many images: on all processors, and where an interrupted one ended."""

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmhw.flow.cache import Cache, digest
from bmhw.flow.children import Children
from bmhw.flow.files import replacing
from bmhw.flow.synthesis import in_parallel

from .bench import Bench, Difference, Filling, Run

__all__ = ["Check", "Result"]

CHUNK_CYCLES = 20_000_000
"""Of one run of the program, about: an interrupted check loses no more, and the first image's way through all layers,
which nothing else overlaps, is little of it."""
CHUNK_IMAGES = 100
"""At most: their numbers are files."""


@dataclass
class Result:
    """What a check found: ``right`` of ``images`` classified as their label says, and the fillings of FIFOs."""

    images: int = 0
    right: int = 0
    cycles: int = 0
    """Of all runs."""
    fifos: dict[str, Filling] = field(default_factory=dict)
    _steps: list[tuple[float, int]] = field(default_factory=list)

    @property
    def cycles_per_image(self) -> float | None:
        """Of images back to back; None where each had a run of its own."""
        count = sum(images for _, images in self._steps)
        return sum(rate * images for rate, images in self._steps) / count if count else None

    def add(self, run: Run, labels: NDArray) -> None:
        self.images += len(run.classes)
        self.right += int((np.array(run.classes) == labels).sum())
        self.cycles += run.cycles[-1]
        if run.cycles_per_image is not None:
            self._steps.append((run.cycles_per_image, len(run.classes) - 1))
        for name, filling in run.fifos.items():
            before = self.fifos.get(name, Filling(0, 0))
            self.fifos[name] = Filling(max(before.largest, filling.largest), before.waited + filling.waited)


class Check:
    """Images in runs of some, side by side; what a run found is kept until the last one is done.

    Parameters
    ----------
    bench: built. images, labels: (count, ...).
    seed, gaps: of pauses at both ends (:meth:`Bench.run`).
    jobs: programs at a time, of one thread each.
    cache: where an interrupted check is kept; a finished one is forgotten, so that a check never tells old results.
    """

    def __init__(self, bench: Bench, images: NDArray[np.uint8], labels: NDArray, *, seed: int = 0, gaps: int = 0,
                 jobs: int = 1, cache: Cache | None = None):
        self.bench, self.images, self.labels, self.seed, self.gaps = bench, images, labels, seed, gaps
        self.jobs, self.cache = jobs, cache or Cache(None)
        size = min(max(CHUNK_CYCLES // bench.plan.cycles, 1), CHUNK_IMAGES, math.ceil(len(images) / jobs))
        self.chunks = [slice(start, min(start + size, len(images))) for start in range(0, len(images), size)]
        self._key = digest("check", bench.digest, hashlib.sha256(images.tobytes()).hexdigest(), seed, gaps, size)
        kept = (self.cache.get(self._key) or {}).get("runs", {})
        self._runs = {int(start): Run(run["classes"], run["cycles"], {name: Filling(**filling)
                                                                       for name, filling in run["fifos"].items()})
                      for start, run in kept.items()}
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """Images that are compared, by an interrupted check in the beginning."""
        return sum(len(run.classes) for run in self._runs.values())

    def run(self, report: Callable[[], None] = lambda: None) -> Result:
        """``report``: is called behind each image. :class:`Difference` at another number; with several jobs it need not
        be the first one."""
        children = Children()
        in_parallel(children, [partial(self._chunk, chunk, report, children) for chunk in self.chunks
                               if chunk.start not in self._runs], self.jobs)
        result = Result()
        for chunk in self.chunks:
            result.add(self._runs[chunk.start], self.labels[chunk])
        self.cache.set(self._key, {})
        return result

    def _chunk(self, chunk: slice, report: Callable[[], None], children: Children) -> None:
        try:
            run = self.bench.run(self.images[chunk], first=chunk.start, seed=self.seed + chunk.start, gaps=self.gaps,
                                 report=lambda done: report(), children=children)
        except Difference as difference:
            difference.chunk = chunk
            raise
        with self._lock:
            self._runs[chunk.start] = run
            self.cache.set(self._key, {"runs": {start: asdict(run) for start, run in self._runs.items()}})

    def waves(self, file: Path, difference: Difference) -> None:
        """Write what every signal did around a difference that :meth:`run` raised."""
        chunk = difference.chunk
        with replacing(file) as temporary:
            written = self.bench.folder / "waves.vcd"
            self.bench.waves(written, self.images[chunk], difference.cycle, seed=self.seed + chunk.start,
                             gaps=self.gaps)
            written.replace(temporary)
