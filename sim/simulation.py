# SPDX-License-Identifier: Apache-2.0
"""Simulating a neuron's Verilog and comparing it with the integer model."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmhw.errors import RunError, TimeLimitError, warn_once
from bmhw.hdl.formats.choices import SCALARS

from . import build
from .build_folder import build_folder
from .job import JOB_VARIABLE, Job, Observation
from .ports import CONTROLS
from .simulators import Simulator, find_simulators
from .vectors import bit_strings, broadcast_inputs, integers, pack

if TYPE_CHECKING:
    from bmhw.hdl.neurons.design import Design

__all__ = ["WAVEFORM_SUFFIXES", "Mismatch", "Report", "simulate", "verify"]

Integers = NDArray[np.int64]
Result = TypeVar("Result")

WAVEFORM_SUFFIXES = {"verilator": ".vcd", "icarus": ".fst"}

# So many elements of an array are shown in a message; the rest is in the JSON.
_SHOWN_ELEMENTS = 16


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """The first output that is not the expected one.

    ``vector`` counts vectors from 0 (over flattened leading axes); ``got_bits`` may hold X or Z, and ``got``
    is None then; ``wrong_bits`` are positions, 0 the lowest.
    """

    vector: int
    output: str
    inputs: dict[str, Any]
    got: int | None
    got_bits: str
    expected: int
    wrong_bits: tuple[int, ...]

    def __str__(self) -> str:
        got = f"0b{self.got_bits}" if self.got is None else str(self.got)
        inputs = ", ".join(f"{name}={_shortened(value)}" for name, value in self.inputs.items())
        bits = ", ".join(map(str, self.wrong_bits))
        return (
            f"vector {self.vector}: {self.output} is {got}, expected {self.expected} "
            f"(bits {bits} differ); inputs {inputs}"
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of :func:`verify`.

    ``outputs`` has the shape of ``expected``, or is flat and shorter where a broken protocol ended the bench.
    ``error``: a wrong output or a broken protocol, in the bench's words; None if there is neither.
    ``cycles``: clock cycles; ``serial``: those of the vectors at full rate, ``full_rate_vectors``.
    """

    outputs: Integers
    expected: Integers
    mismatches: int
    first_mismatch: Mismatch | None
    error: str | None
    simulator: Simulator
    latency: int
    cycles: int
    full_rate_vectors: int
    build_seconds: float
    run_seconds: float
    waveform: Path | None

    @property
    def passed(self) -> bool:
        """Every bit of every output is the expected one, and the protocol was kept."""
        return self.error is None


def simulate(design: "Design", inputs: Mapping[str, ArrayLike], **options: Any) -> Integers:
    """The outputs of the design's Verilog for ``inputs``, simulated; compared with nothing.

    Parameters
    ----------
    design: the neuron.
    inputs: for each port integers of shape (..., n), for biases (...); leading axes broadcast.
    options: as for :func:`verify`.

    Returns integers of the broadcast leading shape. Raises :class:`RunError` where an output bit is neither
    0 nor 1 and where the protocol is broken.
    """
    run = _run(design, inputs, None, **options)
    error = run.error
    if error is None and run.unknown.any():
        vector = int(np.flatnonzero(run.unknown)[0])
        error = f"{run.job.output} of vector {vector} is 0b{run.bits[vector].decode()}"
    if error is not None:
        raise RunError(f"{design.name}: {error}")
    return run.outputs.reshape(run.shape)


def verify(
    design: "Design", inputs: Mapping[str, ArrayLike], expected: ArrayLike | None = None, **options: Any
) -> Report:
    """Simulate the design's Verilog and compare every output bit with ``expected``.

    Parameters
    ----------
    design, inputs: as for :func:`simulate`.
    expected: integers of the broadcast leading shape; default: the integer model, ``design.format.compute``.
    simulator: a name as for :func:`~bmhw.sim.simulators.find_simulator` (default: ``SIM``, else automatic).
    verilog: text with a module ``design.name``, simulated in place of the generated one.
    waveform: file to write: VCD with Verilator, FST with Icarus.
    build_dir: folder for everything that is built, and for logs; default: a temporary one.
    cache: whether to use and to keep built simulations (see :mod:`bmhw.sim.build`).
    stalls: ``serial``: withhold valid and ready at random in the second half of the vectors.
    seed: of the stalls, and of the random bits where the neuron must not look.
    time_limit: seconds for building and running; :class:`TimeLimitError` when they have passed.
    progress: called now and then with what is being done and the share that is done of it, None where unknown.
    """
    if expected is None:
        expected = design.format.compute(**inputs)
    run = _run(design, inputs, np.asarray(expected), **options)
    expected = np.asarray(expected, dtype=np.int64).ravel()
    seen = len(run.outputs)
    wrong = np.flatnonzero((run.outputs != expected[:seen]) | run.unknown)
    if run.error is None and (seen != len(expected) or len(wrong)):
        raise RunError(f"{run.simulator} and the comparison of its outputs disagree")
    return Report(
        outputs=run.outputs.reshape(run.shape) if seen == len(expected) else run.outputs,
        expected=expected.reshape(run.shape),
        mismatches=len(wrong),
        first_mismatch=_mismatch(run, expected, int(wrong[0])) if len(wrong) else None,
        error=run.error,
        simulator=run.simulator,
        latency=run.job.latency,
        cycles=run.cycles,
        full_rate_vectors=run.job.full_rate_vectors,
        build_seconds=run.build_seconds,
        run_seconds=run.run_seconds,
        waveform=options.get("waveform"),
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a run of the bench gives; ``unknown`` marks outputs with a bit that is neither 0 nor 1."""

    job: Job
    inputs: dict[str, Integers]
    shape: tuple[int, ...]
    outputs: Integers
    unknown: NDArray[np.bool_]
    bits: NDArray[np.bytes_]
    error: str | None
    cycles: int
    simulator: Simulator
    build_seconds: float
    run_seconds: float


def _run(
    design: "Design",
    inputs: Mapping[str, ArrayLike],
    expected: Integers | None,
    *,
    simulator: str | None = None,
    verilog: str | None = None,
    waveform: Path | None = None,
    build_dir: str | os.PathLike | None = None,
    cache: bool = True,
    stalls: bool = True,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Callable[[str, float | None], None] = lambda what, share: None,
) -> _Run:
    arrays, shape = broadcast_inputs(design.format, inputs)
    name, code = design.format.output
    bits = None
    if expected is not None:
        if expected.shape != shape:
            raise ValueError(f"Expected {name} must have shape {shape}, not {expected.shape}")
        bits = bit_strings(code.check(f"Expected {name}", expected).ravel(), code.bits)
    from bmhw.hdl.neurons.neuron import create_neuron  # loads Amaranth

    serial = design.form == "serial"
    ports = design.format.inputs_of
    job = Job(
        form=design.form,
        count=len(next(iter(arrays.values()))),
        fan_in=design.format.inputs,
        latency=create_neuron(design).latency,
        output=name,
        seed=seed,
        stalls=stalls,
        expected=bits,
        widths={
            port: port_code.bits * (1 if serial or port in SCALARS else elements)
            for port, (port_code, elements) in ports.items()
        },
        ports={
            port: pack(values.reshape(-1, 1) if serial else values, ports[port][0].bits)
            for port, values in arrays.items()
        },
    )
    if job.count == 0:
        raise ValueError("There must be 1 vector or more to simulate, not 0")
    candidates = find_simulators(simulator)
    if verilog is None:
        from bmhw.hdl.verilog.convert import to_verilog

        verilog = to_verilog(design)

    deadline = float("inf") if time_limit is None else time.monotonic() + time_limit

    def bench(found: Simulator) -> tuple[bool, Observation, NDArray[np.bytes_], float, float]:
        with build_folder(build_dir) as folder, _named_limit(f"{found}: {design.name}", time_limit):
            started = time.perf_counter()
            build.build(
                verilog,
                design.name,
                [*ports, name, *CONTROLS[design.form]],
                folder,
                found,
                waves=waveform is not None,
                cache=cache,
                deadline=deadline,
                tick=lambda: progress(f"building {design.name} with {found}", None),
            )
            built = time.perf_counter()
            job.result_path = str(folder / "result.npz")
            job.progress_path = str(folder / "progress")
            job.save(folder / "job.npz")
            for left in (job.result_path, job.progress_path):  # by an earlier run in a folder that is ours
                Path(left).unlink(missing_ok=True)
            traced = folder / f"{design.name}{WAVEFORM_SUFFIXES[found.name]}" if waveform is not None else None
            passed = build.run(
                design.name,
                folder,
                found,
                waveform=traced,
                variables={JOB_VARIABLE: str(folder / "job.npz")},
                deadline=deadline,
                tick=lambda: progress(
                    f"{job.count} vectors in {found}", _outputs_so_far(Path(job.progress_path)) / job.count
                ),
            )
            observation, strings = Observation.load(job.result_path)
            if traced is not None and waveform is not None and traced != Path(waveform).absolute():
                shutil.copyfile(traced, waveform)
            return passed, observation, strings, built - started, time.perf_counter() - built

    # a waveform's format is the simulator's: then no other one takes over
    found, result = _first_that_runs(candidates if waveform is None else candidates[:1], bench)
    passed, observation, strings, build_seconds, run_seconds = result
    if passed != (observation.error is None):
        raise RunError(f"{found}: the bench {'passed' if passed else 'failed'} but says {observation.error}")
    outputs, unknown = integers(strings, code)
    return _Run(
        job=job,
        inputs=arrays,
        shape=shape,
        outputs=outputs,
        unknown=unknown,
        bits=strings,
        error=observation.error,
        cycles=observation.cycles,
        simulator=found,
        build_seconds=build_seconds,
        run_seconds=run_seconds,
    )


def _first_that_runs(candidates: list[Simulator], bench: Callable[[Simulator], Result]) -> tuple[Simulator, Result]:
    """What the bench gives with the first simulator that builds and runs it, and one line if it isn't the first of all;
    the first one's error where none does."""
    failure: RunError | None = None
    for simulator in candidates:
        try:
            result = bench(simulator)
        except TimeLimitError:
            raise
        except RunError as error:
            failure = failure or error
            continue
        if failure is not None:
            warn_once("simulator", f"{failure}; {simulator} is taken")
        return simulator, result
    raise failure or RunError("there is no simulator")


@contextlib.contextmanager
def _named_limit(name: str, time_limit: float | None) -> Iterator[None]:
    """A time limit's error names the whole limit, not what an earlier step left of it."""
    try:
        yield
    except TimeLimitError:
        raise TimeLimitError(f"{name} took more than the time limit of {time_limit:g} s") from None


def _outputs_so_far(path: Path) -> int:
    """What the bench wrote last; 0 before it did."""
    try:
        return int(path.read_text() or 0)
    except FileNotFoundError:
        return 0


def _mismatch(run: _Run, expected: Integers, vector: int) -> Mismatch:
    bits, wanted = (
        run.bits[vector].decode(),
        bit_strings(expected[vector : vector + 1], len(run.bits[vector])),
    )
    wrong = [
        position
        for position, (a, b) in enumerate(zip(bits[::-1], wanted[0].decode()[::-1], strict=True))
        if a != b
    ]
    return Mismatch(
        vector=vector,
        output=run.job.output,
        expected=int(expected[vector]),
        got=None if run.unknown[vector] else int(run.outputs[vector]),
        got_bits=bits,
        wrong_bits=tuple(wrong),
        inputs={
            port: int(values[vector, 0]) if port in SCALARS else values[vector].tolist()
            for port, values in run.inputs.items()
        },
    )


def _shortened(value: int | list[int]) -> str:
    if isinstance(value, int) or len(value) <= _SHOWN_ELEMENTS:
        return str(value)
    return f"[{', '.join(map(str, value[:_SHOWN_ELEMENTS]))}, ... {len(value)} in all]"
