# SPDX-License-Identifier: Apache-2.0
"""A training run while it goes on."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .progress import on_terminal

__all__ = ["TrainingReport"]


class TrainingReport:
    """Shows a trainer's events on stderr: a bar a phase while it is entered, a line for each tenth of its epochs."""

    def __init__(self):
        self.console = console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not on_terminal(),
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> "TrainingReport":
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()

    def tell(self, line: str) -> None:
        """A line as it is: names stay whole where this isn't a terminal."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def __call__(self, event: dict[str, Any]) -> None:
        phase, epochs = event["phase"], event["epochs"]
        if event["event"] == "note":
            self.tell(event["text"])
            return
        if phase not in self.tasks:
            self.tasks[phase] = self.progress.add_task(phase, total=epochs, state="")
        if event["event"] == "step":
            done = event["epoch"] + event["step"] / event["steps"]
            loss = "" if event["loss"] is None else f" loss {event['loss']:.3f}"  # a GPU's first ones aren't known yet
            state = f"epoch {event['epoch'] + 1}/{epochs}{loss}"
            self.progress.update(self.tasks[phase], completed=done, state=state)
        elif event["epoch"] == epochs or event["epoch"] % max(1, epochs // 10) == 0:
            self.console.print(
                f"{phase:>10}  epoch {event['epoch']:>3}/{epochs}  loss {event['loss']:.3f}  "
                f"validation {event['validation_accuracy']:.2f} %  {event['seconds']:.1f} s/epoch"
            )
