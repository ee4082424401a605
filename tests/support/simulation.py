# SPDX-License-Identifier: Apache-2.0
"""Run a block in Amaranth's own simulator, and pack vectors for its ports."""

import numpy as np
from amaranth.lib.wiring import Flow
from amaranth.sim import Simulator

from bmhw.hdl.formats.choices import SCALARS
from bmhw.hdl.neurons.neuron import create_neuron


def pack(values, bits):
    """Rows of integers -> one integer a row, element 0 in the lowest ``bits``."""
    mask = (1 << bits) - 1
    return [sum((int(v) & mask) << (bits * i) for i, v in enumerate(row)) for row in np.asarray(values)]


def simulate(block, latency=None, **inputs):
    """Outputs {port: list of int} for inputs {port: sequence of int}; ``latency`` None: combinational."""
    outputs = {name: [] for name, (flow, _) in block.ports.items() if flow is Flow.Out}
    count = len(next(iter(inputs.values())))

    async def bench(ctx):
        for step in range(count + (latency or 0)):
            for name, values in inputs.items():
                ctx.set(getattr(block, name), int(values[min(step, count - 1)]))
            if latency is None:
                await ctx.delay(1e-9)
            for name, collected in outputs.items():
                if step >= (latency or 0):
                    collected.append(ctx.get(getattr(block, name)))
            if latency is not None:
                await ctx.tick()

    simulator = Simulator(block)
    if latency is not None:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return outputs


def random_vectors(fmt, count, rng):
    """Random input values {port: array} for a neuron's format, both extremes of each port included."""
    vectors = {}
    for name, (code, elements) in fmt.inputs_of.items():
        top = fmt.full_scale if name in ("bias1", "bias2") else code.maximum
        shape = (count,) if name in SCALARS else (count, elements)
        values = rng.integers(code.minimum, top + 1, size=shape)
        values[0], values[1] = code.minimum, top
        vectors[name] = values
    return vectors


def check_neuron(design, vectors, told=""):
    """A neuron with all inputs at once against its format's ``compute``, each bit of each result."""
    fmt = design.format
    neuron = create_neuron(design)
    name, code = fmt.output
    expected = fmt.compute(**vectors) & ((1 << code.bits) - 1)
    latency = None if design.form == "parallel" else neuron.latency
    got = np.array(simulate(neuron, latency, **packed_vectors(fmt, vectors))[name])
    wrong = np.nonzero(got != expected)[0]
    assert not len(wrong), f"{design}: vector {wrong[0]} {told}: {got[wrong[0]]} != {expected[wrong[0]]}"


def packed_vectors(fmt, vectors):
    """The same vectors as integers for a neuron's ports."""
    return {name: pack(np.atleast_2d(vectors[name].T).T, code.bits) for name, (code, _) in fmt.inputs_of.items()}
