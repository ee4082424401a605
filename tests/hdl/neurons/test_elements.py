# SPDX-License-Identifier: Apache-2.0
"""Elements against their format's ``compute``, and refusals of what makes none."""

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator
from support.simulation import random_vectors

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS, SUMS, ZEROS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import SELECTIONS, Design
from bmhw.hdl.neurons.neuron import create_neuron

SEED = 20090719


def run(design, vectors):
    """What an element shows behind each group or flush, as ``compute`` does: (vectors, groups, outputs)."""
    fmt, element = design.format, create_neuron(design)
    outputs = ["y"] if design.neuron == "mac" else list(fmt.shown)
    sizes = [fmt.flush or fmt.inputs] if design.neuron == "mac" else (
        [fmt.positive_inputs, fmt.group_inputs - fmt.positive_inputs] if fmt.layout == "wired" else [fmt.group_inputs])
    count, late = len(next(iter(vectors.values()))), element.latency - 1
    # where parts begin: an accumulator's last one may be shorter
    firsts, position = [], 0
    while position < fmt.inputs:
        firsts.append(position)
        position += sizes[(len(firsts) - 1) % len(sizes)]
    lasts = [*(first - 1 for first in firsts[1:]), fmt.inputs - 1]
    seen = []

    def given(name, time):
        vector, place = divmod(min(max(time, 0), count * fmt.inputs - 1), fmt.inputs)
        return int(place in firsts) if name == "first" else int(vectors[name][vector][place])

    async def bench(ctx):
        for time in range(count * fmt.inputs + element.latency):
            for name in ("first", *fmt.inputs_of):
                value = given(name, time - (late if name in ("first", "sign") else 0))
                port = getattr(element, name)
                ctx.set(port, value & ((1 << len(port)) - 1))
            await ctx.tick()
            done = time - element.latency + 1  # the last input that the outputs count
            if done >= 0 and done % fmt.inputs in lasts and done < count * fmt.inputs:
                values = [ctx.get(getattr(element, name)) for name in outputs]
                if design.neuron == "mac" and fmt.y.signed:
                    values = [value - (value >> (fmt.y.bits - 1) << fmt.y.bits) for value in values]
                seen.append(values)

    simulator = Simulator(element)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(seen).reshape(count, -1)


def check(fmt, count=12, **architecture):
    vectors = random_vectors(fmt, count, np.random.default_rng(SEED))
    if isinstance(fmt, MacFormat):
        vectors["x"][2], vectors["w"][2] = fmt.x.maximum, fmt.w.minimum  # the furthest from 0
        vectors["x"][3], vectors["w"][3] = fmt.x.minimum, fmt.w.minimum
    expected = fmt.compute(**vectors).reshape(count, -1)
    parts = Design(format=fmt, form="serial", **architecture).parts
    for registers in (None, parts[:1]):
        got = run(Design(format=fmt, form="serial", registers=registers, **architecture), vectors)
        assert (got == expected).all(), (fmt, architecture, registers)


def bm_formats(**fields):
    for layout, sums, zero, signed in itertools.product(LAYOUTS, SUMS, ZEROS, (False, True)):
        fits = {"relu": not signed, "bipolar": signed, "signed": True, "wired": not signed}[layout]
        if fits and (sums, zero) != ("clamped", "step"):
            yield BmFormat(layout=layout, sums=sums, zero=zero, signed_inputs=signed, boundary="element", **fields)


class TestHardware:
    @pytest.mark.parametrize("selection", SELECTIONS["bm"])
    def test_bm(self, selection):
        for adder, fmt in zip(itertools.cycle(("ripple", "sklansky", "operator")), bm_formats(
                inputs=12, bits=3, groups=2), strict=False):
            check(fmt, adder=adder, selection=selection)

    @pytest.mark.parametrize("fields", [{"groups": 1}, {"groups": 6}, {"groups": 4, "maximum_bits": 3}])
    def test_groups(self, fields):
        for fmt in bm_formats(inputs=12, bits=4, **fields):
            if fmt.layout in ("signed", "wired"):
                check(fmt)

    @pytest.mark.parametrize("flush", [None, 1, 4, 5])
    @pytest.mark.parametrize("selection", SELECTIONS["mac"])
    def test_mac(self, selection, flush):
        for multiplier, signed, weight_bits in (("dadda", False, 4), ("booth", True, 3), ("operator", False, 2)):
            fmt = MacFormat(inputs=12, bits=3, weight_bits=weight_bits, signed_inputs=signed, boundary="element",
                            flush=flush)
            check(fmt, multiplier=multiplier, selection=selection, adder=("ripple", "operator")[signed])

    def test_wrong_hardware_is_caught(self):
        """The bench can fail: an input moved to the next group."""
        fmt = BmFormat(inputs=6, bits=4, groups=2, layout="signed", boundary="element")
        vectors = random_vectors(fmt, 20, np.random.default_rng(SEED))
        moved = {name: values[:, [0, 1, 3, 2, 4, 5]] for name, values in vectors.items()}
        got = run(Design(format=fmt, form="serial"), moved)
        assert (got != fmt.compute(**vectors).reshape(20, -1)).any()


class TestFormat:
    def test_maxima_give_the_neurons_result(self):
        """What an element shows, through exponentials and a sum, is the linear result."""
        rng = np.random.default_rng(SEED)
        for fmt in bm_formats(inputs=12, bits=4, groups=3):
            neuron = BmFormat(inputs=12, bits=4, groups=3, layout=fmt.layout, sums=fmt.sums, zero=fmt.zero,
                              signed_inputs=fmt.signed_inputs, boundary="layer", result="linear")
            vectors = random_vectors(fmt, 30, rng)
            terms = neuron.exp2_unit.compute(fmt.compute(**vectors)) * np.array(fmt.branches)
            assert (terms.sum(axis=(-2, -1)) == neuron.compute(**vectors)).all()

    def test_accumulator_is_the_narrowest(self):
        for fields, bits in (({}, 18), ({"flush": 36}, 14), ({"flush": 1}, 8), ({"weight_bits": 2}, 16)):
            assert MacFormat(inputs=576, bits=4, boundary="element", **fields).y.bits == bits
        fmt = MacFormat(inputs=5, bits=2, boundary="element", flush=3)
        assert fmt.compute(x=[[3, 3, 3, 1, 1]], w=[[-2, -2, -2, 1, 1]]).tolist() == [[-18, 2]]


@pytest.mark.parametrize(("fields", "message"), [
    ({"residual_bits": 3}, "Boundary element stops at the maxima: residual_bits must be 0, not 3"),
    ({"combine": "logarithmic"}, "combine must be linear, not logarithmic"),
    ({"result": "code"}, "result must be linear, not code"),
])
def test_a_bm_element_has_no_end(fields, message):
    with pytest.raises(ValueError, match=message):
        BmFormat(inputs=4, bits=4, boundary="element", **fields)


@pytest.mark.parametrize(("fields", "message"), [
    ({"flush": 5}, "Flush must be an integer from 1 to 4, not 5"),
    ({"flush": 2, "boundary": "neuron"}, "Flush 2 needs boundary element, not neuron"),
    ({"residual_bits": 3}, "stops at the sum of products: residual_bits must be 0, not 3"),
])
def test_formats_of_mac_elements(fields, message):
    with pytest.raises(ValueError, match=message):
        MacFormat(**{"inputs": 4, "bits": 4, "boundary": "element", **fields})


@pytest.mark.parametrize(("fields", "message"), [
    ({"form": "parallel"}, "Boundary element needs form serial, one input a cycle, not parallel"),
    ({"form": "pipelined"}, "one input a cycle, not pipelined"),
    ({"registers": ("maxima",)}, "can be after sums only, not after maxima"),
    ({"selection": "around"}, "Selection must be one of before, behind, enable, not 'around'"),
])
def test_designs_of_elements(fields, message):
    with pytest.raises(ValueError, match=message):
        Design(**{"format": BmFormat(inputs=4, bits=4, boundary="element"), "form": "serial", **fields})
