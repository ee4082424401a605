# SPDX-License-Identifier: Apache-2.0
"""Neurons that take one input a cycle, at both boundaries, against their format's ``compute``."""

import dataclasses
import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator
from support.simulation import random_vectors

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS, REQUANTIZATIONS, RESULTS, SCALARS, SUMS, TWO_MAXIMA, ZEROS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron

SEED = 20090719


def stream(design, vectors, patience, rng):
    """What a serial neuron gives of vectors; ``patience``: share of active cycles at its input and at its output."""
    fmt, neuron = design.format, create_neuron(design)
    got = []
    count, elements = len(next(iter(vectors.values()))), fmt.inputs

    async def source(ctx):
        for v in range(count):
            for i in range(elements):
                while rng.random() > patience:
                    ctx.set(neuron.in_valid, 0)
                    await ctx.tick()
                for name, (code, _) in fmt.inputs_of.items():
                    if name in SCALARS:  # counts with the first element only
                        value = vectors[name][v] if i == 0 else rng.integers(0, 1 << code.bits)
                    else:
                        value = vectors[name][v][i]
                    ctx.set(getattr(neuron, name), int(value) & ((1 << code.bits) - 1))
                ctx.set(neuron.in_valid, 1)
                await ctx.tick().until(neuron.in_ready)
        ctx.set(neuron.in_valid, 0)

    async def sink(ctx):
        while len(got) < count:
            ready = int(rng.random() <= patience)
            ctx.set(neuron.out_ready, ready)
            _, _, valid, value = await ctx.tick().sample(neuron.out_valid, getattr(neuron, fmt.output[0]))
            if valid and ready:
                got.append(value & ((1 << fmt.output[1].bits) - 1))

    simulator = Simulator(neuron)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source, background=True)
    simulator.add_testbench(sink)
    simulator.run()
    return got


def check(fmt, count, patience, **design):
    rng = np.random.default_rng(SEED)
    vectors = random_vectors(fmt, count, rng)
    expected = fmt.compute(**vectors) & ((1 << fmt.output[1].bits) - 1)
    assert stream(Design(format=fmt, form="serial", **design), vectors, patience, rng) == list(expected), fmt


def bm_formats(**fields):
    """Every layout, boundary, result and signedness."""
    for layout, boundary, result, signed in itertools.product(LAYOUTS, ("neuron", "layer"), RESULTS, (False, True)):
        fits = {"relu": not signed, "bipolar": signed, "signed": True, "wired": not signed}[layout]
        if fits and (boundary == "layer" or result == "linear"):
            yield BmFormat(layout=layout, boundary=boundary, result=result, signed_inputs=signed, **fields)


@pytest.mark.parametrize(("inputs", "groups"), [(2, 1), (5, 1), (6, 3), (6, 2)])
def test_bm(inputs, groups):
    for number, fmt in enumerate(bm_formats(bits=3, inputs=inputs, groups=groups)):
        check(fmt, 12, (1.0, 0.5)[(number + groups) % 2])


@pytest.mark.parametrize("inputs", [1, 3])
def test_groups_of_one_input(inputs):
    """A group ends in each cycle."""
    for boundary, layout in (("neuron", "relu"), ("layer", "signed"), ("layer", "bipolar")):
        fmt = BmFormat(inputs=inputs, bits=3, layout=layout, groups=inputs, boundary=boundary)
        for patience in (1.0, 0.5):
            check(fmt, 20, patience)


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize("zero", ZEROS)
def test_sums_and_zero(sums, zero):
    for layout, groups in itertools.product(LAYOUTS, (1, 2)):
        if (sums, zero) == ("clamped", "step") and groups > 1:
            continue
        for fields in ({}, {"maximum_bits": 3, "end": "select"}, {"residual_bits": 7, "offset": -3}):
            end = {"end": fields.pop("end")} if "end" in fields else {}
            fmt = BmFormat(inputs=4, bits=4, layout=layout, sums=sums, zero=zero, groups=groups, boundary="layer",
                           **fields)
            check(fmt, 12, 0.7, **end)


@pytest.mark.parametrize("layout", TWO_MAXIMA)
def test_logarithmic_end(layout):
    for boundary, sums in itertools.product(("neuron", "layer"), SUMS):
        fmt = BmFormat(inputs=4, bits=4, layout=layout, boundary=boundary, combine="logarithmic", sums=sums)
        check(fmt, 30, 0.7)


@pytest.mark.parametrize("inputs", [1, 2, 5])
@pytest.mark.parametrize("signed_inputs", [False, True])
def test_mac(inputs, signed_inputs):
    formats = [MacFormat(inputs=inputs, bits=4, signed_inputs=signed_inputs, residual_bits=bits) for bits in (0, 9)]
    formats += [MacFormat(inputs=inputs, bits=3, signed_inputs=signed_inputs, boundary="layer", requantize=requantize,
                          residual_bits=bits) for requantize in REQUANTIZATIONS for bits in (0, 5)]
    for fmt, patience in itertools.product(formats, (1.0, 0.5)):
        check(fmt, 12, patience)


def test_wrong_hardware_is_caught():
    """The bench can fail: an input moved to another group, in the order of the elements."""
    fmt = BmFormat(inputs=6, bits=4, groups=3, boundary="layer", layout="signed")
    rng = np.random.default_rng(SEED)
    vectors = random_vectors(fmt, 20, rng)
    moved = {name: values[:, [0, 2, 1, 3, 4, 5]] if values.ndim > 1 else values for name, values in vectors.items()}
    got = stream(Design(format=fmt, form="serial"), moved, 1.0, rng)
    assert got != list(fmt.compute(**vectors))
    ungrouped = dataclasses.replace(fmt, groups=1)
    assert got != list(ungrouped.compute(**vectors))
