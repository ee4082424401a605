# SPDX-License-Identifier: Apache-2.0
"""Elements' outputs through the ends that they share, against the whole neuron's ``compute``; cells in an array."""

import itertools

import numpy as np
import pytest
from support.simulation import random_vectors, simulate

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS, REQUANTIZATIONS, TWO_MAXIMA
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.element_ends import GroupEnd, ResultEnd, element_format
from bmhw.hdl.verilog.element_array import ElementArray

SEED = 20090719


def summed(end, latency, shown, bias, width):
    """The sums that a group's end makes of what elements show, (vectors, steps, outputs), a step a cycle; a sum waits
    outside until its neuron's next step comes."""
    names = [name for name in end.ports if name[0] in "ma" and name != "minus"]
    late = latency - 1  # what belongs to the addition comes later than what goes through exp2
    so_far = None
    for step in range(shown.shape[1]):
        inputs = {name: shown[:, step, i] for i, name in enumerate(names)}
        later = {"bias": bias, "first": np.full(len(bias), step == 0),
                 "waiting": np.zeros_like(bias) if so_far is None else so_far}
        if "minus" in end.ports:
            inputs["minus"] = np.full(len(bias), step % 2)
        inputs |= {name: np.concatenate([np.zeros(late, dtype=np.int64), values])
                   for name, values in later.items() if name in end.ports}
        count = len(bias)
        inputs = {name: np.concatenate([values, np.repeat(values[-1:], count + late - len(values))])
                  for name, values in inputs.items()}
        masked = {name: [int(v) & ((1 << len(getattr(end, name))) - 1) for v in values]
                  for name, values in inputs.items()}
        y = np.array(simulate(end, latency, **masked)["y"])[:count]
        so_far = np.where(y >> (width - 1), y - (1 << width), y)
    return so_far


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bm(layout):
    for groups, sums in ((1, "full"), (3, "clamped")):
        fmt = BmFormat(inputs=12, bits=4, layout=layout, groups=groups, sums=sums, zero="exact", boundary="layer")
        vectors = random_vectors(fmt, 30, np.random.default_rng(SEED))
        bias = vectors.pop("bias")
        shown = element_format(fmt).compute(**vectors)  # (vectors, groups, branches)
        if layout == "wired":
            shown = shown.reshape(30, -1, 1)
        y = summed(GroupEnd(format=fmt, adder="ripple"), 2, shown, bias, fmt.y.bits)
        z = simulate(ResultEnd(format=fmt, adder="ripple", multiplier="dadda"), 1,
                     y=[int(v) & ((1 << fmt.y.bits) - 1) for v in y])["z"]
        assert z == list(fmt.compute(**vectors, bias=bias))


@pytest.mark.parametrize("layout", TWO_MAXIMA)
def test_logarithmic_end(layout):
    """Two maxima, in which the biases are one more input each, to a code; nothing comes once a group."""
    fmt = BmFormat(inputs=12, bits=4, layout=layout, combine="logarithmic", boundary="layer", offset=2, maximum_bits=4)
    vectors = random_vectors(fmt, 60, np.random.default_rng(SEED))
    biases = [vectors.pop(name) for name in ("bias1", "bias2")]
    shown = element_format(fmt).compute(**vectors).reshape(60, 2)
    maxima = {f"m{i + 1}": [int(v) for v in np.maximum(shown[:, i], bias >> fmt.dropped_bits)]
              for i, bias in enumerate(biases)}
    z = simulate(ResultEnd(format=fmt, adder="ripple", multiplier="dadda"), 1, **maxima)["z"]
    assert z == list(fmt.compute(**vectors, bias1=biases[0], bias2=biases[1]))
    assert len(set(z)) > 4


@pytest.mark.parametrize("flush", [None, 4])
@pytest.mark.parametrize("requantize", REQUANTIZATIONS)
def test_mac(flush, requantize):
    fmt = MacFormat(inputs=12, bits=3, boundary="layer", requantize=requantize)
    vectors = random_vectors(fmt, 30, np.random.default_rng(SEED))
    shown = element_format(fmt, flush).compute(x=vectors["x"], w=vectors["w"])[..., np.newaxis]
    y = summed(GroupEnd(format=fmt, adder="ripple", flush=flush), 1, shown, vectors["bias"], fmt.y.bits)
    scale = {"scale": vectors["scale"]} if fmt.has_scale else {}
    z = simulate(ResultEnd(format=fmt, adder="ripple", multiplier="dadda"), 1,
                 y=[int(v) & ((1 << fmt.y.bits) - 1) for v in y], **scale)["z"]
    assert z == list(fmt.compute(**vectors))


def test_array():
    """Results of three elements, each with its own weights, leave as parities, the last element's first."""
    fmt = BmFormat(inputs=4, bits=3, layout="signed", sums="clamped", zero="exact", boundary="element")
    rng = np.random.default_rng(SEED)
    elements, n = 3, fmt.inputs
    cycles = 24 * n
    c, k, sign = rng.integers(0, 8, cycles), rng.integers(0, 8, cycles), rng.integers(0, 2, cycles)
    array = ElementArray(design=Design(format=fmt, form="serial"), elements=elements)
    # a group in every n cycles; its results are copied when the next one's first input reaches the maxima
    first = np.arange(cycles) % n == 0
    out = simulate(array, 0, first=first, c=c, k=k, sign=sign, load=first)["shift_out"]
    for group, (element, shift) in itertools.product(range(2, 20), zip((2, 1, 0), range(3), strict=True)):
        times = np.arange(group * n, (group + 1) * n)
        # a weight reaches element i another i cycles later
        m = fmt.compute(c=c[times], k=k[times - element], sign=sign[times - element]).ravel()
        parity = bin(int(m[0])).count("1") + bin(int(m[1])).count("1") & 1
        assert out[times[-1] + 4 + shift] == parity, (group, element)
