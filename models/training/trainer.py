# SPDX-License-Identifier: Apache-2.0
"""Training in three phases: the classical network, the BM network that it teaches, the quantised BM network.

Every random choice follows from (seed, phase, epoch, step), so that a resumed run continues as if never
stopped.
"""

import copy
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmhw.hdl.checks import not_one_of
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.files.conventions import Conventions
from bmhw.models.files.run_files import CHECKPOINT, LOG
from bmhw.models.files.writing import write_atomically
from bmhw.models.integer.fold import check_foldable, fold
from bmhw.models.integer.folded_network import FoldedNetwork
from bmhw.models.integer.quantise import FoldedLayer, Quantisation
from bmhw.models.networks.architecture import build
from bmhw.models.networks.groups import Groups, from_json
from bmhw.models.networks.network import NORM_EPSILON, Network
from bmhw.models.networks.wiring import Wiring
from bmhw.models.operators.precision import powers_name

from .augmentation import mirrored, translated
from .datasets import Dataset
from .methods import METHODS
from .settings import Settings
from .step import Loss, Losses, Step, step_for

__all__ = ["PHASES", "Settings", "Stopped", "Trainer", "accuracy", "saved_groups"]

PHASES = ("classical", "bm", "quantised")


class Stopped(Exception):
    """The run was asked to stop, and its checkpoint is written."""


@torch.no_grad()
def accuracy(network: nn.Module, images: np.ndarray, labels: np.ndarray, batch: int = 250) -> float:
    """Per cent of uint8 images that a network classifies right."""
    network.eval()
    right = 0
    for start in range(0, len(images), batch):
        scores = network(_pixels(network, images[start : start + batch]))
        right += int((scores.argmax(dim=1).cpu().numpy() == labels[start : start + batch]).sum())
    return 100 * right / len(images)


def _pixels(network: nn.Module, images: np.ndarray) -> Tensor:
    """Images as a network takes them: 0..255 for a folded one, pixel / 256 otherwise."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(next(network.parameters()).device).float()
    return pixels if isinstance(network, FoldedNetwork) else pixels / 256


class Trainer:
    """A run in ``folder``: ``checkpoint.pt``, ``train.jsonl``; goes on from the checkpoint with ``resume``.

    ``data``: the whole data set; its test part is never looked at. ``initial``: phase -> state_dict that the
    phase's network starts from (see ``bmhw.models.files.initial``).

    ``stop``: set it (in a signal handler, say), and the run writes its checkpoint and raises Stopped.
    """

    def __init__(
        self,
        settings: Settings,
        data: Dataset,
        folder: Path,
        *,
        resume: bool = False,
        device: str = "cpu",
        checkpoint_seconds: float = 60,
        initial: Mapping[str, Mapping[str, Tensor]] | None = None,
    ):
        self.settings, self.folder, self.device = settings, folder, device
        self.data = data.validation_split(settings.validation)
        self.initial = initial or {}
        self.checkpoint_seconds, self.stop = checkpoint_seconds, False
        # the whole training part lies where it is trained with: 138 MB for CIFAR-10
        self._images, self._labels = (
            torch.from_numpy(np.ascontiguousarray(part)).to(device)
            for part in (self.data.train_images, self.data.train_labels)
        )
        channels, size = data.train_images.shape[1:3]
        images = len(self.data.train_images)
        if settings.epoch_images is not None and not 1 <= settings.epoch_images <= images:
            raise ModelUsageError(
                f"Images of an epoch must be from 1 to {images}, not {settings.epoch_images}"
            )
        self.architecture = build(settings.architecture, channels, size).with_border(settings.border)
        self.layouts = settings.layouts(self.architecture)
        check_foldable(self.architecture, self.layouts, settings.quantisation)
        powers_name(device)  # a precision that doesn't exist
        self.models: dict[str, nn.Module] = {}
        self.phase, self.epoch, self.step = 0, 0, 0
        self.history: list[dict[str, Any]] = []
        self._optimizer_state: dict[str, Any] | None = None
        self._step: Step | None = None
        self._losses = self._new_losses()  # of the epoch so far, and when it began
        self._started = time.monotonic()
        if settings.method not in METHODS:
            raise ModelUsageError(not_one_of("Method", METHODS, settings.method))
        self.method = METHODS[settings.method]
        if any(count < 0 for count in settings.epochs):
            raise ModelUsageError(f"Epochs must be 0 or more, not {min(settings.epochs)}")
        folder.mkdir(parents=True, exist_ok=True)
        if resume:
            self._restore()
        else:
            write_atomically(self._log, lambda path: path.write_text(""))
        self._saved_at = time.monotonic()

    # -- models

    def _create(self, phase: str) -> nn.Module:
        """The model that a phase starts from."""
        settings, architecture = self.settings, self.architecture
        torch.manual_seed(settings.seed)
        if phase == "classical":
            model = Network(architecture, architecture.layouts("mac"))
            model.load_state_dict({**model.state_dict(), **self.initial.get(phase, {})})
        elif phase == "bm" and phase in self.initial:
            model = Network(architecture, self.layouts, settings.quantisation.groups)
            model.load_state_dict({**model.state_dict(), **self.initial[phase]})
        elif phase == "bm" and set(self.layouts.values()) == {"mac"}:
            model = copy.deepcopy(self.models["classical"])  # a classical network stays what it is
        elif phase == "bm":
            classical = self.models["classical"].cpu()
            groups = settings.quantisation.groups
            model = self.method.start(classical, self.layouts, self._calibration("cpu"), groups)
            self.models["classical"].to(self.device)
        else:
            model = fold(self.models["bm"].cpu(), self._calibration("cpu"), settings.quantisation)
            self.models["bm"].to(self.device)
            for step in model.steps.values():
                if isinstance(step, FoldedLayer):
                    step.gradient_norm = settings.norm if self.method.smooth_codes else None
        if phase == "bm":
            Wiring(model, self.layouts, settings.quantisation.groups).apply()
        return model.to(self.device)

    def _calibration(self, device: str | None = None) -> Tensor:
        images = self.data.train_images[: self.settings.calibration]
        return torch.from_numpy(images).to(device or self.device).float() / 256

    @property
    def _device_name(self) -> str:
        """With the version of PyTorch: a resumed run can have epochs of several."""
        name = torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else self.device
        return f"{name}, PyTorch {torch.__version__}"

    # -- one run

    def run(self, report: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        """Train all phases. ``report`` gets every event: steps, and the epochs that are logged."""
        while self.phase < len(PHASES):
            name = PHASES[self.phase]
            if name not in self.models:
                self.models[name] = self._create(name)
            self._run_phase(name, report)
            self.phase, self.epoch, self.step, self._optimizer_state = self.phase + 1, 0, 0, None
            self.save_checkpoint()

    def _run_phase(self, name: str, report: Callable[[dict[str, Any]], None]) -> None:
        settings, model = self.settings, self.models[name]
        epochs, rate = settings.epochs[self.phase], settings.rates[self.phase]
        steps = math.ceil((settings.epoch_images or len(self.data.train_images)) / settings.batch)
        phase = {"phase": name, "epochs": epochs}
        self._step = step = self._training_step(name, lambda line: report({"event": "note", **phase, "text": line}))
        if self._optimizer_state is not None:
            step.load_optimizer(self._optimizer_state)
        while self.epoch < epochs:
            if self.step == 0:
                self._losses, self._started = self._new_losses(), time.monotonic()
            for images, labels in self._batches(steps):
                share = (self.epoch * steps + self.step) / (epochs * steps)
                if name == "bm" and self.method.prepare(model, share, settings.norm):
                    step.changed()
                self._losses.add(step(images, labels, rate * _schedule(share, settings.warmup)))
                self.step += 1
                done = {"epoch": self.epoch, "step": self.step, "steps": steps, "loss": self._losses.last}
                report({"event": "step", **phase, **done})
                self._save_if_due()
            self._losses.settle()
            losses = self._losses.values
            event = {
                "event": "epoch",
                "phase": name,
                "epoch": self.epoch + 1,
                "epochs": epochs,
                "loss": float(np.mean(losses)) if losses else None,
                "validation_accuracy": accuracy(model, self.data.test_images, self.data.test_labels),
                "seconds": round(time.monotonic() - self._started, 2),
                "device": self._device_name,
                "threads": torch.get_num_threads(),
                "powers": powers_name(self.device),
            }
            self.epoch, self.step = self.epoch + 1, 0
            self.history.append(event)
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(event) + "\n")
            report(event)
        self._step = None  # a graph's memory is free for what follows
        model.eval()

    def _training_step(self, name: str, tell: Callable[[str], object]) -> Step:
        settings, model = self.settings, self.models[name]
        loss = Loss()
        if name != "classical":
            layers = name == "bm" and self.method.distils_layers
            soft = {"soft": settings.soft, "temperature": settings.temperature}
            loss = Loss(teacher=self.models["classical"], layers=layers, **soft)
        # a classical network that is trained here has the wiring already that its successors take over
        wiring = Wiring(model, self.layouts, settings.quantisation.groups)
        return step_for(model, loss, wiring, clip=settings.clip, batch=settings.batch, tell=tell)

    def _new_losses(self, values: list[float] | None = None) -> Losses:
        hint = f"take a smaller rate than {self.settings.rates}"
        return Losses(self.device, PHASES[min(self.phase, len(PHASES) - 1)], hint, values)

    def _batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's remaining batches: images 0..255 as floats, and labels."""
        key = [self.settings.seed, self.phase, self.epoch]
        order = np.random.default_rng(key).permutation(len(self.data.train_images))
        order = torch.from_numpy(order[: self.settings.epoch_images]).to(self.device)
        for step in range(self.step, steps):
            chosen = order[step * self.settings.batch : (step + 1) * self.settings.batch]
            rng = np.random.default_rng([*key, step])
            images = translated(self._images[chosen], self.settings.translate, rng)
            if self.settings.mirror:
                images = mirrored(images, rng)
            yield images.float(), self._labels[chosen]

    # -- checkpoints

    @property
    def _log(self) -> Path:
        return self.folder / LOG

    @property
    def _checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _save_if_due(self) -> None:
        if self.stop or time.monotonic() - self._saved_at > self.checkpoint_seconds:
            self._losses.settle()  # a network that is none is not kept
            self._optimizer_state = self._step.optimizer.state_dict()
            self.save_checkpoint()
        if self.stop:
            raise Stopped

    def save_checkpoint(self) -> None:
        state = {
            "settings": dataclasses.asdict(self.settings),
            "phase": self.phase,
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "losses": self._losses.values,
            "seconds": time.monotonic() - self._started,
            "optimizer": self._optimizer_state,
            "models": {name: model.state_dict() for name, model in self.models.items()},
        }
        write_atomically(self._checkpoint, lambda path: torch.save(state, path))
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        if not self._checkpoint.is_file():
            raise ModelUsageError(f"Nothing to resume: {self._checkpoint} doesn't exist")
        try:
            with warnings.catch_warnings():  # about foreign kinds of files, of which a line is said below
                warnings.simplefilter("ignore")
                state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
            if not isinstance(state, Mapping):
                raise TypeError(f"it holds a {type(state).__name__}")
            saved = state["settings"]
            # a setting that a newer version knows has its default in an older version's checkpoint
            saved = {f.name: f.default for f in dataclasses.fields(Settings)} | self._assumed_before(saved) | saved
            saved["quantisation"] = dataclasses.asdict(Quantisation()) | saved["quantisation"]
            mine = dataclasses.asdict(self.settings)
            different = [key for key in mine if mine[key] != saved[key]]
        except Exception as error:  # torch raises many kinds for a broken file, a foreign one is any other thing
            raise self._unusable(error) from None
        if different:
            key = different[0]
            raise ModelUsageError(
                f"Checkpoint {self._checkpoint} was made with {key} {saved.get(key)!r}, not {mine[key]!r}"
            )
        try:
            for name in PHASES:
                if name in state["models"]:
                    # the structure first (a folded network's depends on the trained one), then the values
                    self.models[name] = self._create(name)
                    self.models[name].load_state_dict(state["models"][name])
            self.phase, self.epoch, self.step = (_count(state[key]) for key in ("phase", "epoch", "step"))
            self.history, self._optimizer_state = state["history"], state["optimizer"]
            # an older version's checkpoint doesn't have them: the epoch counts from here
            self._losses = self._new_losses([float(loss) for loss in state.get("losses", [])])
            self._started = time.monotonic() - float(state.get("seconds", 0))
            sum(epoch["seconds"] for epoch in self.history)
            if len(self.models) < min(self.phase, len(PHASES)):
                raise KeyError(PHASES[len(self.models)])
            if self._optimizer_state is not None and self.phase < len(PHASES):
                _check_optimizer(self._optimizer_state, self.models[PHASES[self.phase]])
        except Exception as error:  # whatever is wrong with it, it is no checkpoint of such a run
            raise self._unusable(error) from None

    def _assumed_before(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """What was said otherwise, and what was assumed of somebody else's network when ``conventions`` were no setting
        yet."""
        mine, before = self.settings.conventions, {"neurons": tuple(f"{n}=mac" for n in saved.get("mac_layers", ()))}
        if mine is None or saved.get("initial") is None:
            return before
        assumed = Conventions(norm_epsilon=NORM_EPSILON).completed(len(mine.mean), own_names=True)
        return before | {"conventions": dataclasses.asdict(assumed)}

    def _unusable(self, error: Exception) -> ModelError:
        missing = isinstance(error, KeyError)
        reason = " ".join(f"it lacks {error}".split() if missing else str(error).splitlines()[:1])
        return ModelError(f"Checkpoint {self._checkpoint} can't be read: {reason or type(error).__name__}")


def saved_groups(folder: Path) -> Groups | None:
    """The groups of the run whose checkpoint lies in a folder; None where there is none that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
        return from_json(state["settings"]["quantisation"].get("groups", 1))
    except Exception:  # what is wrong with it is said when it is restored
        return None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _check_optimizer(state: Mapping[str, Any], model: nn.Module) -> None:
    """ValueError unless it is the state of this model's optimizer; PyTorch itself doesn't look at the shapes."""
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if values[name].shape != parameter.shape:
                raise ValueError(f"its optimizer has {name} of shape {tuple(values[name].shape)}")


def _schedule(share: float, warmup: float) -> float:
    """The rate's factor at a share of the run: a linear warm-up, then half a cosine."""
    return (
        share / warmup if share < warmup else 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
    )
