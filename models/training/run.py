# SPDX-License-Identifier: Apache-2.0
"""A whole training run: the phases, Ctrl-C, and the files that it writes."""

import dataclasses
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from bmhw import __version__
from bmhw.models.errors import ModelError
from bmhw.models.files.float_weights import half_precision, load_float, save_float
from bmhw.models.files.initial import Initial
from bmhw.models.files.run_files import RunFiles
from bmhw.models.files.store import save
from bmhw.models.files.writing import staged

from .datasets import Dataset
from .memory import keep_memory
from .settings import Settings
from .trainer import Trainer, accuracy

__all__ = ["Report", "train"]


class Report(AbstractContextManager, Protocol):
    """Entered while phases are trained, and called with each event of them (see ``Trainer.run``)."""

    def __call__(self, event: dict[str, Any]) -> None: ...


def train(
    settings: Settings, data: Dataset, files: RunFiles, *, report: Report, initial: Initial | None = None,
    device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Train all phases, from ``initial`` or the checkpoint of the files' folder, and write the network; returns its
    accuracies on the test part in per cent.

    Ctrl-C once writes a checkpoint and raises Stopped, a second time it is KeyboardInterrupt at once.
    """
    torch.backends.cudnn.deterministic = True  # cuDNN's fastest sums differ from run to run
    keep_memory()
    states = {} if initial is None else initial.states
    trainer = Trainer(settings, data, files.folder, resume=files.resume, device=device, initial=states)

    def interrupted(*_):
        if trainer.stop:  # the second time: at once
            raise KeyboardInterrupt
        trainer.stop = True

    usual = signal.signal(signal.SIGINT, interrupted)
    source = commit()  # before training: the tree may have moved on when it ends
    try:
        with report:
            trainer.run(report)
    finally:
        signal.signal(signal.SIGINT, usual)
    return write(trainer, data, files, None if initial is None else initial.path, source)


def commit() -> str | None:
    """The commit of the source tree that this runs from; None outside one."""
    result = subprocess.run(
        ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None if result.returncode == 0 else None


def write(
    trainer: Trainer, data: Dataset, files: RunFiles, initial: Path | None, source: str | None
) -> dict[str, float]:
    """Write weights, floating-point weights and card; returns the accuracies on the test part in per cent.

    ``files``: of the run; ``initial``: the file that the weights started from; ``source``: the commit
    that the run was started from.
    """
    floats = {kind: half_precision(trainer.models[kind].cpu()) for kind in ("classical", "bm")}
    network = trainer.models["quantised"].cpu().to_integer(files.name, data.test_images[:64])
    right = network.classify(data.test_images) == data.test_labels
    figures = {"classical": accuracy(floats["classical"], data.test_images, data.test_labels)}
    # of layout mac and not trained again, the second network is the first one
    same = trainer.models["bm"].layouts == trainer.models["classical"].layouts and not trainer.settings.epochs[1]
    figures["bm"] = figures["classical"] if same else accuracy(floats["bm"], data.test_images, data.test_labels)
    accuracies = {
        "classical_accuracy": figures["classical"],
        "bm_float_accuracy": figures["bm"],
        "bm_integer_accuracy": 100 * int(right.sum()) / len(right),
    }
    card = {
        "accuracy": accuracies,
        "data": {
            "name": data.name,
            "description": data.description,
            "train_images": len(trainer.data.train_images),
            "validation_images": trainer.settings.validation,
            "test_images": len(data.test_images),
        },
        "training": {
            **dataclasses.asdict(trainer.settings),
            # a resumed run's too: the clock of this process would count its last part alone
            "seconds": round(sum(epoch["seconds"] for epoch in trainer.history), 1),
            "commit": source,
            "bmhw_version": __version__,
            "torch_version": torch.__version__,
            "history": trainer.history,
        },
    }
    known = files.shared(initial)
    try:
        with staged(files.folder, files.kept) as stage:
            load_float(save(network, stage, card | {"float_weights": save_float(files.name, stage, floats, known)}))
    except (ModelError, OSError) as error:
        raise ModelError(f"{error}; the trained network is in {files.folder}: --resume writes it once more") from None
    return accuracies
