# SPDX-License-Identifier: Apache-2.0
"""What goes into the simulator's process and what comes back, each as one ``.npz`` file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["JOB_VARIABLE", "Job", "Observation"]

JOB_VARIABLE = "BMHW_SIM_JOB"


@dataclass(kw_only=True)
class Job:
    """A run of the bench.

    Parameters
    ----------
    form: ``parallel``, ``pipelined`` or ``serial``.
    count: number of vectors; ``fan_in``: elements of each array port, one a cycle if ``serial``.
    latency: cycles between inputs and their output (``serial``: last accepted element and ``out_valid``).
    output: name of the output port.
    seed, stalls: ``serial``: valid and ready are withheld at random in the second half of the vectors.
    widths: bits of each input port.
    ports: each input port's packed bits (:func:`bmhw.sim.vectors.pack`), one row a vector; ``serial``: one
        row an element of an array port.
    expected: the output's bit strings, or None if nothing is compared.
    result_path, progress_path: files for the observation, and for how many outputs there are so far, rewritten
        about a hundred times.
    """

    form: str
    count: int
    fan_in: int
    latency: int
    output: str
    seed: int
    stalls: bool
    widths: dict[str, int]
    ports: dict[str, NDArray[np.uint8]]
    expected: NDArray[np.bytes_] | None = None
    result_path: str = ""
    progress_path: str = ""

    @property
    def full_rate_vectors(self) -> int:
        """How many vectors ``serial`` takes without stalls."""
        return (self.count + 1) // 2 if self.stalls else self.count

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {f"port_{name}": packed for name, packed in self.ports.items()}
        if self.expected is not None:
            arrays["expected"] = self.expected
        plain = {name: value for name, value in vars(self).items() if name not in ("ports", "expected")}
        np.savez(path, plain=json.dumps(plain), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Job":
        with np.load(path) as file:
            ports = {
                name.removeprefix("port_"): file[name] for name in file.files if name.startswith("port_")
            }
            expected = file["expected"] if "expected" in file.files else None
            return cls(ports=ports, expected=expected, **json.loads(str(file["plain"])))


@dataclass
class Observation:
    """What the bench saw: each output's bits, highest first; cycles (at full rate, if serial); an error."""

    outputs: list[str] = field(default_factory=list)
    cycles: int = 0
    error: str | None = None

    def save(self, path: str | Path) -> None:
        plain = dict(vars(self))
        outputs = np.array(plain.pop("outputs"), dtype=np.bytes_)
        np.savez(path, plain=json.dumps(plain), outputs=outputs)

    @classmethod
    def load(cls, path: str | Path) -> tuple["Observation", NDArray[np.bytes_]]:
        """The observation without its outputs, and these as an array of bit strings."""
        with np.load(path) as file:
            return cls(**json.loads(str(file["plain"]))), file["outputs"]
