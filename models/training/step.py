# SPDX-License-Identifier: Apache-2.0
"""A step of training: its loss, and two ways to run it, kernel by kernel or as one graph of a GPU's kernels."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.models.errors import ModelError
from bmhw.models.integer.folded_network import FoldedNetwork
from bmhw.models.networks.network import Network
from bmhw.models.networks.wiring import Wiring

from .methods import layer_distance

__all__ = ["GraphStep", "Loss", "Losses", "Step", "step_for"]

EAGER_STEPS = 3
"""Steps in front of each capture, in which libraries choose their kernels and take their memory."""
LOOKS_EVERY = 32
"""Steps after which a GPU is waited for, to see whether the losses are finite."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Of a batch: cross entropy with the labels and, where there is a ``teacher``, ``soft`` times the distance from its
    soft labels at a ``temperature``; with ``layers``, the distance of the layers' outputs too (``layer_distance``)."""

    teacher: Network | None = None
    soft: float = 0.0
    temperature: float = 1.0
    layers: bool = False

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a number. images: (batch, channels, height, width), 0..255; labels: (batch,)."""
        # several channels of a classical network train 1.4 times faster in this layout on a CPU
        classical = (images / 256).contiguous(memory_format=torch.channels_last)
        if self.teacher is None:
            return functional.cross_entropy(model.scores(model.trace(classical)), labels)
        trace = model.trace(images if isinstance(model, FoldedNetwork) else images / 256)
        scores = model.scores(trace)
        with torch.no_grad():
            taught = self.teacher.eval().trace(classical)
        distance = functional.kl_div(
            functional.log_softmax(scores / self.temperature, dim=1),
            functional.log_softmax(self.teacher.scores(taught) / self.temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        loss = self.soft * (distance * self.temperature**2)
        loss = loss + (1 - self.soft) * functional.cross_entropy(scores, labels)
        return loss + layer_distance(self.teacher.architecture, trace, taught) if self.layers else loss


class Step:
    """Steps of one network, kernel by kernel: loss, gradient of a norm of at most ``clip``, Adam, wiring.

    With tensors on a GPU nothing here waits for it: no value is looked at on the host, and the rate is a tensor.
    """

    def __init__(self, model: nn.Module, loss: Loss, wiring: Wiring, *, clip: float):
        self.model, self.loss, self.wiring, self.clip = model, loss, wiring, clip
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.Adam(model.parameters(), **self._options())

    def _options(self) -> dict[str, Any]:
        """Adam's on this device, with tensors where a graph has to see what changes."""
        static = self.device.type == "cuda"
        return {"lr": torch.zeros((), device=self.device) if static else 0.0, "capturable": static}

    def load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Go on with the state of an optimizer, from whatever device."""
        groups = [group | self._options() for group in state["param_groups"]]
        self.optimizer.load_state_dict({**state, "param_groups": groups})

    def changed(self) -> None:
        """To be called when the model's layers compute another thing than in the step before."""

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """One step on a batch (see :class:`Loss`) at a rate; the loss before it, a tensor that later steps leave
        alone."""
        self._set_rate(rate)
        return self._body(images, labels)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _body(self, images: Tensor, labels: Tensor) -> Tensor:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model, images, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        with warnings.catch_warnings():  # what a graph can hold needn't be captured
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            self.optimizer.step()
        self.wiring.apply()
        return loss.detach()


class GraphStep(Step):
    """The same as one CUDA graph: images and labels are copied into tensors that stay where they are, and one call
    starts all kernels.

    The first :data:`EAGER_STEPS` steps, and as many after each :meth:`changed`, are steps like all others but run
    kernel by kernel on a stream of their own, before the next one is captured. A batch of another size than ``batch``
    (the last of an epoch) is run kernel by kernel too. Where the capture fails, all go on so, and ``tell`` gets one
    line about it.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, wiring: Wiring, *, clip: float, batch: int, tell: Callable[[str], object]
    ):
        super().__init__(model, loss, wiring, clip=clip)
        self.batch, self.tell, self.failed = batch, tell, False
        self._images: Tensor | None = None
        self._labels: Tensor | None = None
        self._replay: Callable[[], None] | None = None
        self._output: Tensor | None = None
        self._eager = 0  # steps since what is computed changed
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def changed(self) -> None:
        if self._replay is not None and self._stream is not None:
            torch.cuda.synchronize(self.device)  # it may still run
        # its memory is free before the next one takes its own
        self._replay, self._output, self._eager = None, None, 0

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        if self.failed or len(images) != self.batch:
            return super().__call__(images, labels, rate)
        if self._images is None:
            self._images, self._labels = torch.empty_like(images), torch.empty_like(labels)
        self._set_rate(rate)
        self._images.copy_(images)
        self._labels.copy_(labels)
        if self._eager < EAGER_STEPS:
            self._eager += 1
            return self._beside()
        if self._replay is None:
            try:
                self._replay = self._capture()
            except Exception as error:  # of whatever kind: what is wrong in other ways too, the next step says
                self.failed = True
                self.optimizer.zero_grad(set_to_none=True)  # what the capture began
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                self.tell(f"No CUDA graph of the training step, which goes on kernel by kernel: {reason}")
                return self._body(self._images, self._labels)
        self._replay()
        return self._output.clone()

    def _beside(self) -> Tensor:
        """A step on a stream of its own, as PyTorch wants it in front of a capture."""
        if self._stream is None:
            return self._body(self._images, self._labels)
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self._body(self._images, self._labels)
        current.wait_stream(self._stream)
        loss.record_stream(current)
        return loss

    def _capture(self) -> Callable[[], None]:
        """What runs a step on the tensors as they are then, with the loss in ``_output``; nothing is run yet."""
        self.optimizer.zero_grad(set_to_none=True)  # gradients lie in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._output = self._body(self._images, self._labels)
        return graph.replay


def step_for(
    model: nn.Module, loss: Loss, wiring: Wiring, *, clip: float, batch: int, tell: Callable[[str], object]
) -> Step:
    """The fastest way on the model's device: one graph on a GPU of CUDA, of ``batch`` images. ``tell`` gets a line
    where that fails."""
    if next(model.parameters()).device.type == "cuda":
        return GraphStep(model, loss, wiring, clip=clip, batch=batch, tell=tell)
    return Step(model, loss, wiring, clip=clip)


class Losses:
    """Of an epoch's steps. A CPU's are known at once; a GPU is waited for every :data:`LOOKS_EVERY` steps only.

    ``values``: what is known so far. ``hint``: what to do about a loss that is no finite number.
    """

    def __init__(self, device: torch.device | str, phase: str, hint: str, values: list[float] | None = None):
        self.values = values or []
        self.phase, self.hint = phase, hint
        self._every = 1 if torch.device(device).type == "cpu" else LOOKS_EVERY
        self._unknown: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """ModelError where one of those that become known isn't finite."""
        self._unknown.append(loss)
        if len(self._unknown) >= self._every:
            self.settle()

    def settle(self) -> None:
        """Wait for all of them; ModelError where one isn't finite."""
        if not self._unknown:
            return
        found, self._unknown = torch.stack(self._unknown).tolist(), []
        for value in found:
            if not math.isfinite(value):
                raise ModelError(f"The loss of phase {self.phase} became {value}; {self.hint}")
        self.values += found

    @property
    def last(self) -> float | None:
        """The last known one; None: none yet."""
        return self.values[-1] if self.values else None
