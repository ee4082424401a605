# SPDX-License-Identifier: Apache-2.0
"""The bench inside the simulator: drives any neuron and compares every bit of every output.

cocotb loads this module. A job file, named by the variable ``BMHW_SIM_JOB``, brings the vectors; what was
seen goes into a result file (both: :mod:`bmhw.sim.job`). The test fails for a wrong output as well as for a
broken protocol: an output withdrawn or changed, one too many, a wrong latency, no progress. No check is an
``assert``: the variable PYTHONOPTIMIZE takes those away.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence

import cocotb
import numpy as np
from cocotb.triggers import Timer

from bmhw.hdl.formats.choices import SCALARS

from .job import JOB_VARIABLE, Job, Observation
from .vectors import port_values

HALF_PERIOD = Timer(5, "ns")

# With valid and ready withheld half of the time, so many cycles without a transfer don't happen by chance.
_PATIENCE = 200


@cocotb.test()
async def outputs_equal_expected(dut):
    job = Job.load(os.environ[JOB_VARIABLE])
    observation = Observation(outputs=Outputs(job))
    try:
        await _RUN[job.form](dut, job, observation)
        if job.expected is not None:
            wrong = np.flatnonzero(np.array(observation.outputs, dtype=np.bytes_) != job.expected)
            if len(wrong):
                raise AssertionError(
                    f"{len(wrong)} of {job.count} outputs differ, the first of vector {wrong[0]}"
                )
    except Exception as error:
        observation.error = str(error) or type(error).__name__
        raise
    finally:
        observation.save(job.result_path)


class Outputs(list):
    """The outputs' bits; tells now and then in a file how many there are."""

    def __init__(self, job: Job):
        super().__init__()
        self._step = max(1, job.count // 100)
        # open as long as the simulator runs
        self._file = open(job.progress_path, "wb", buffering=0) if job.progress_path else None  # noqa: SIM115

    def append(self, bits: str) -> None:
        super().append(bits)
        if self._file is not None and len(self) % self._step == 0:
            self._file.seek(0)  # one write, which only gets longer: whoever reads finds a number
            self._file.write(b"%d" % len(self))


class Driver:
    """Sets the input ports; one that keeps its value isn't written again."""

    def __init__(self, dut, job: Job):
        self._handles = [getattr(dut, port) for port in job.ports]
        self._values: list[int | None] = [None] * len(self._handles)

    def drive(self, values: Iterable[int]) -> None:
        for index, value in enumerate(values):
            if value != self._values[index]:
                self._handles[index].value = self._values[index] = value


def vectors_of(job: Job) -> list[tuple[int, ...]]:
    """Each vector as the values of the ports."""
    return list(zip(*(port_values(packed) for packed in job.ports.values()), strict=True))


async def rising_edge(dut) -> None:
    """The second half of a cycle; whoever drives next does so at the falling edge."""
    dut.clk.value = 1
    await HALF_PERIOD
    dut.clk.value = 0


async def reset(dut) -> None:
    dut.rst.value = 1
    await HALF_PERIOD
    await rising_edge(dut)
    dut.rst.value = 0


async def run_parallel(dut, job: Job, observation: Observation) -> None:
    driver, output = Driver(dut, job), getattr(dut, job.output)
    for vector in vectors_of(job):
        driver.drive(vector)
        await HALF_PERIOD
        observation.outputs.append(str(output.value))


async def run_pipelined(dut, job: Job, observation: Observation) -> None:
    """A new vector every cycle; its output is read ``latency`` cycles later."""
    driver, output, vectors = Driver(dut, job), getattr(dut, job.output), vectors_of(job)
    dut.clk.value = 0
    await reset(dut)
    observation.cycles = job.count + job.latency
    for cycle in range(observation.cycles):
        # the first vectors follow the last ones, so that nothing stands still while the pipeline drains
        driver.drive(vectors[cycle % job.count])
        await HALF_PERIOD
        if cycle >= job.latency:
            observation.outputs.append(str(output.value))
        await rising_edge(dut)


async def run_serial(dut, job: Job, observation: Observation) -> None:
    """One element a cycle: half of the vectors at full rate, the others with stalls on both sides.

    What the neuron must not look at carries random bits: all data while ``in_valid`` is 0, and the biases
    behind the first element of a vector.
    """
    generator = random.Random(job.seed)
    noise = [[generator.getrandbits(width) for width in job.widths.values()] for _ in range(64)]
    driver, output = Driver(dut, job), getattr(dut, job.output)
    dut.clk.value = 0
    await reset(dut)
    await abandon_a_vector(dut, job, driver, noise)

    full_rate = job.full_rate_vectors  # vectors from here on meet stalls
    elements = elements_of(job)
    element = next(elements)
    offered = False  # the element waits for in_ready; it may not be withdrawn
    waiting: str | None = None  # an output that was not taken yet; it may not change
    accepted = cycle = idle = 0
    completed: list[int] = []  # for each vector the cycle in which its last element was accepted
    while len(observation.outputs) < job.count:
        offered = offered or (
            element is not None and (accepted < full_rate * job.fan_in or generator.getrandbits(1))
        )
        ready = len(observation.outputs) < full_rate or generator.getrandbits(1)
        hidden = generator.choice(noise)
        shown = element if offered and element is not None else [None] * len(hidden)
        driver.drive(other if value is None else value for value, other in zip(shown, hidden, strict=True))
        dut.in_valid.value, dut.out_ready.value = int(offered), int(ready)
        await HALF_PERIOD

        valid, bits, vector = str(dut.out_valid.value), str(output.value), len(observation.outputs)
        if valid not in ("0", "1"):
            raise AssertionError(f"out_valid is {valid} in cycle {cycle}")
        idle += 1
        if waiting is not None:
            if valid != "1":
                raise AssertionError(f"out_valid of vector {vector} fell before out_ready")
            if bits != waiting:
                raise AssertionError(
                    f"{job.output} of vector {vector} changed from {waiting} to {bits} before out_ready"
                )
        if valid == "1":
            if vector >= len(completed):
                raise AssertionError(f"out_valid of vector {vector} before its last element was accepted")
            if waiting is None and vector < full_rate:
                latency = cycle - completed[vector]
                if latency != job.latency:
                    raise AssertionError(f"latency of vector {vector} is {latency} cycles, not {job.latency}")
            waiting = bits
            if ready:
                observation.outputs.append(bits)
                waiting, idle = None, 0
                if vector < full_rate:
                    observation.cycles = cycle + 1
        if offered and str(dut.in_ready.value) == "1":
            accepted += 1
            if accepted % job.fan_in == 0:
                completed.append(cycle)
            element, offered, idle = next(elements, None), False, 0
        await rising_edge(dut)
        cycle += 1
        if idle > _PATIENCE + job.latency:
            raise AssertionError(
                f"no transfer in {idle} cycles after {accepted} elements and {len(observation.outputs)} outputs"
            )

    driver.drive(noise[0])
    dut.in_valid.value, dut.out_ready.value = 0, 1
    for _ in range(job.latency + job.fan_in + 1):
        await HALF_PERIOD
        if str(dut.out_valid.value) != "0":
            raise AssertionError("out_valid once more after the last vector")
        await rising_edge(dut)


async def abandon_a_vector(dut, job: Job, driver: Driver, noise: Sequence[Sequence[int]]) -> None:
    """Accept elements of random bits and reset in the middle: nothing of them may be left."""
    dut.in_valid.value, dut.out_ready.value = 1, 1
    for index in range(job.fan_in + (job.fan_in + 1) // 2):
        driver.drive(noise[index % len(noise)])
        await HALF_PERIOD
        await rising_edge(dut)
    dut.in_valid.value = 0
    await reset(dut)


def elements_of(job: Job) -> Iterator[tuple[int | None, ...]]:
    """The values of the ports element by element; None: not looked at (a bias behind the first element)."""
    values = {port: port_values(packed) for port, packed in job.ports.items()}
    for index in range(job.count * job.fan_in):
        vector, element = divmod(index, job.fan_in)
        yield tuple(
            (of_port[vector] if element == 0 else None) if port in SCALARS else of_port[index]
            for port, of_port in values.items()
        )


_RUN = {"parallel": run_parallel, "pipelined": run_pipelined, "serial": run_serial}
