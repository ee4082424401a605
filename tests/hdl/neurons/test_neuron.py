# SPDX-License-Identifier: Apache-2.0
"""Every neuron, in every form, against its format's ``compute``."""

import dataclasses
import itertools

import numpy as np
import pytest
from support.simulation import check_neuron, packed_vectors, random_vectors, simulate

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import BINARY_MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import COMBINES, LAYOUTS, REQUANTIZATIONS, RESULTS, SUMS, TWO_MAXIMA
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.log_ends import LOG_ENDS
from bmhw.hdl.neurons.neuron import create_neuron

SEED = 20090719


def bm_formats(bits, inputs):
    for layout, combine, signed in itertools.product(LAYOUTS, COMBINES, (False, True)):
        fits = {"relu": not signed, "bipolar": signed and combine == "linear", "signed": True,
                "wired": not signed and inputs > 1}[layout]
        if fits and not (combine == "logarithmic" and bits > 12):
            yield BmFormat(inputs=inputs, bits=bits, layout=layout, combine=combine, signed_inputs=signed)


def formats(bits, inputs):
    yield from bm_formats(bits, inputs)
    for signed in (False, True):
        yield MacFormat(inputs=inputs, bits=bits, signed_inputs=signed)


def check(design, vectors):
    check_neuron(design, vectors, f"(seed {SEED})")


class TestNeuron:
    @pytest.mark.parametrize("bits", [  # the smallest, where tables take over, the largest; the others in long runs
        pytest.param(bits, marks=() if bits in (2, 3, 5, 8, 12, 13, 16) else pytest.mark.long)
        for bits in range(2, 17)])
    def test_widths(self, bits):
        rng = np.random.default_rng(SEED + bits)
        # the tables of a wide neuron take the simulator long to compile: there one input, and fan-in on its own
        for fmt in formats(bits, inputs=3 if bits <= 8 else 1):
            check(Design(format=fmt), random_vectors(fmt, 40, rng))

    @pytest.mark.parametrize("inputs", [1, 2, 9, *(pytest.param(n, marks=pytest.mark.long) for n in (5, 17))])
    def test_fan_in(self, inputs):
        rng = np.random.default_rng(SEED + inputs)
        for fmt in formats(4, inputs):
            check(Design(format=fmt), random_vectors(fmt, 40, rng))

    # Every pair of architectures meets one format, and every architecture every format: simulating all in all formats
    # takes as many times as long as there are formats, and what an adder hands to a maximum doesn't depend on its kind.

    @pytest.mark.parametrize("maximum", BINARY_MAXIMA)
    @pytest.mark.parametrize("adder", ADDERS)
    def test_bm_architectures(self, maximum, adder):
        every = list(bm_formats(5, inputs=6))
        assert len(every) <= min(len(BINARY_MAXIMA), len(ADDERS)), "an architecture would miss a format"
        fmt = every[(BINARY_MAXIMA.index(maximum) + list(ADDERS).index(adder)) % len(every)]
        check(Design(format=fmt, maximum=maximum, adder=adder),
              random_vectors(fmt, 40, np.random.default_rng(SEED)))

    @pytest.mark.parametrize("multiplier", MULTIPLIERS)
    @pytest.mark.parametrize("adder", ADDERS)
    def test_mac_architectures(self, multiplier, adder):
        signed = bool((list(MULTIPLIERS).index(multiplier) + list(ADDERS).index(adder)) % 2)
        fmt = MacFormat(inputs=5, bits=6, weight_bits=5, signed_inputs=signed)
        check(Design(format=fmt, multiplier=multiplier, adder=adder),
              random_vectors(fmt, 60, np.random.default_rng(SEED)))

    @pytest.mark.parametrize("parameters", [
        {"log_bits": 6, "log_fraction": 3}, {"log_bits": 9, "log_fraction": 2}, {"weight_bits": 7},
        {"weight_bits": 4, "log_fraction": 2}, {"maximum_bits": 5}, {"maximum_bits": 3, "combine": "logarithmic"},
        {"log2": "mitchell", "exp2": "schraudolph"}, {"log2": "piecewise", "exp2": "piecewise"},
        {"sums": "clamped"}, {"sums": "clamped", "combine": "logarithmic", "maximum_bits": 4},
        {"out_fraction": 4}, {"combine": "logarithmic", "offset": 9}, {"combine": "logarithmic", "offset": -40},
    ], ids=str)
    def test_format_parameters(self, parameters):
        rng = np.random.default_rng(SEED)
        fmt = BmFormat(inputs=4, bits=6, layout="signed", signed_inputs=True, **parameters)
        check(Design(format=fmt), random_vectors(fmt, 150, rng))

    @pytest.mark.parametrize("sums", SUMS)
    @pytest.mark.parametrize("combine", COMBINES)
    @pytest.mark.parametrize("inputs", [2, 7, 8])
    def test_wired_is_signed_with_the_signs_of_the_ports(self, inputs, combine, sums):
        rng = np.random.default_rng(SEED)
        wired = BmFormat(inputs=inputs, bits=5, layout="wired", combine=combine, sums=sums, boundary="layer")
        signed = dataclasses.replace(wired, layout="signed")
        vectors = random_vectors(wired, 100, rng)
        sign = (np.arange(inputs) >= (inputs + 1) // 2).astype(int)
        assert np.array_equal(wired.compute(**vectors), signed.compute(**vectors, sign=sign))
        for maximum in ("tree", "elimination", "digits"):
            check(Design(format=wired, maximum=maximum), vectors)

    def test_small_neuron_exhaustively(self):
        fmt = BmFormat(inputs=2, bits=2, layout="relu")
        ranges = [range(4)] * 6 + [range(-8, 8)]
        rows = np.array(list(itertools.product(*ranges)))[::7]
        check(Design(format=fmt), {"x": rows[:, :2], "k1": rows[:, 2:4], "k2": rows[:, 4:6], "bias": rows[:, 6]})

    def test_wrong_hardware_is_caught(self):
        """The bench can fail: one constant of the format changed between model and hardware."""
        fmt = BmFormat(inputs=3, bits=6)
        vectors = random_vectors(fmt, 40, np.random.default_rng(SEED))
        planted = Design(format=BmFormat(inputs=3, bits=6, log2="mitchell"))
        got = simulate(create_neuron(planted), None, **packed_vectors(fmt, vectors))["y"]
        assert (np.array(got) != fmt.compute(**vectors) & ((1 << fmt.y.bits) - 1)).any()


class TestLayerBoundary:
    """Activation code in, next layer's activation code (or a linear result) out."""

    @pytest.mark.parametrize("bits", [2, 3, 5, 8])
    @pytest.mark.parametrize("result", RESULTS)
    def test_bm(self, bits, result):
        rng = np.random.default_rng(SEED + bits)
        for fmt in bm_formats(bits, inputs=5):
            if fmt.combine == "linear" or result == "code":
                layer = dataclasses.replace(fmt, boundary="layer", result=result)
                check(Design(format=layer, maximum="elimination4"), random_vectors(layer, 60, rng))

    @pytest.mark.parametrize("maximum", BINARY_MAXIMA)
    def test_clamped_sums(self, maximum):
        rng = np.random.default_rng(SEED)
        for index, fmt in enumerate(bm_formats(5, inputs=6), start=BINARY_MAXIMA.index(maximum)):
            adder = ("ripple", "carry_skip")[index % 2]  # every format meets both, with half the maxima each
            clamped = dataclasses.replace(fmt, boundary="layer", sums="clamped", result="code", maximum_bits=None,
                                          bias_bits=None)
            check(Design(format=clamped, maximum=maximum, adder=adder), random_vectors(clamped, 80, rng))

    @pytest.mark.parametrize("offset", [-20, 30])
    @pytest.mark.parametrize("combine", COMBINES)
    def test_offset(self, offset, combine):
        fmt = BmFormat(inputs=5, bits=6, combine=combine, boundary="layer", offset=offset)
        check(Design(format=fmt), random_vectors(fmt, 100, np.random.default_rng(SEED)))

    @pytest.mark.parametrize("bits", [2, 3, 5, 8])
    @pytest.mark.parametrize("requantize", REQUANTIZATIONS)
    def test_mac(self, bits, requantize):
        rng = np.random.default_rng(SEED + bits)
        for signed, shift in itertools.product((False, True), (None, 3)):
            fmt = MacFormat(inputs=5, bits=bits, boundary="layer", requantize=requantize, signed_inputs=signed,
                            requantize_shift=shift)
            check(Design(format=fmt), random_vectors(fmt, 60, rng))


class TestLogarithmicEnds:
    """Every architecture of the logarithmic end on every pair of maxima, and in a neuron."""

    @pytest.mark.parametrize("parameters", [
        {"bits": 2}, {"bits": 4}, {"bits": 4, "offset": 9}, {"bits": 4, "offset": -20}, {"bits": 5, "sums": "clamped"},
        {"bits": 3, "maximum_bits": 1}, {"bits": 5, "sums": "clamped", "maximum_bits": 4, "offset": 5},
        {"bits": 8, "sums": "clamped", "maximum_bits": 6}, {"bits": 8, "maximum_bits": 6, "offset": -6},
        {"bits": 6, "log_fraction": 1, "maximum_bits": 5}, {"bits": 3, "log_fraction": 0},
    ], ids=str)
    @pytest.mark.parametrize("end", LOG_ENDS)
    def test_every_pair_of_maxima(self, end, parameters):
        fmt = BmFormat(inputs=3, layout="signed", combine="logarithmic", boundary="layer", **parameters)
        values = range((fmt.full_scale >> fmt.dropped_bits) + 1)
        m1, m2 = np.array(list(itertools.product(values, repeat=2))).T
        got = simulate(LOG_ENDS[end](format=fmt, adder="ripple"), m1=m1, m2=m2)["z"]
        assert got == fmt.log_subtract.compute(m1 << fmt.dropped_bits, m2 << fmt.dropped_bits).tolist()

    @pytest.mark.parametrize("layout", TWO_MAXIMA)
    @pytest.mark.parametrize("end", LOG_ENDS)
    def test_neuron(self, end, layout):
        rng = np.random.default_rng(SEED)
        for sums, maximum_bits in itertools.product(("full", "clamped"), (4, 5)):
            fmt = BmFormat(inputs=6, bits=5, layout=layout, combine="logarithmic", boundary="layer", sums=sums,
                           maximum_bits=maximum_bits)
            check(Design(format=fmt, maximum="digits", adder="lookahead", end=end),
                  random_vectors(fmt, 150, rng))


class TestPipelined:
    @pytest.mark.parametrize("registers", [None, ("maxima",), ("log2", "combine")])
    def test_bm(self, registers):
        rng = np.random.default_rng(SEED)
        for layout in LAYOUTS:
            fmt = BmFormat(inputs=5, bits=4, layout=layout)  # the maxima of a wired neuron have three inputs and two
            check(Design(format=fmt, form="pipelined", registers=registers), random_vectors(fmt, 50, rng))

    @pytest.mark.parametrize("registers", [None, ("products",), ("compression", "final_adder")])
    def test_mac(self, registers):
        fmt = MacFormat(inputs=4, bits=5)
        vectors = random_vectors(fmt, 50, np.random.default_rng(SEED))
        check(Design(format=fmt, form="pipelined", registers=registers), vectors)

    @pytest.mark.parametrize("architecture", [
        *({"maximum": maximum} for maximum in BINARY_MAXIMA),
        *({"multiplier": multiplier} for multiplier in MULTIPLIERS)],
        ids=lambda architecture: "-".join(map("_".join, architecture.items())))
    def test_registers_everywhere_and_at_one_place(self, architecture):
        """Also inside the maxima and the compression, for every one of their architectures."""
        rng = np.random.default_rng(SEED)
        for fmt in formats(3, inputs=6):
            if isinstance(fmt, MacFormat) != ("multiplier" in architecture):
                continue
            pipeline = Design(format=fmt, form="pipelined", **architecture)
            inside = [place for place in pipeline.places if "." in place]
            for registers in (pipeline.places, inside, inside[len(inside) // 2:][:1]):
                if registers:
                    design = dataclasses.replace(pipeline, registers=tuple(registers))
                    assert create_neuron(design).latency == len(registers)
                    check(design, random_vectors(fmt, 30, rng))

    def test_places_are_in_the_order_of_the_data(self):
        places = Design(format=BmFormat(inputs=9, bits=4), maximum="tree", form="pipelined").places
        assert places == ("log2", "sums", "maxima.1", "maxima.2", "maxima.3", "maxima", "exp2", "combine")
        assert Design(format=BmFormat(inputs=9, bits=4), maximum="elimination").places == (
            "log2", "sums", "maxima", "exp2", "combine")
        assert Design(format=MacFormat(inputs=4, bits=4), multiplier="operator").places == (
            "products", "compression.1", "compression", "final_adder")

    def test_latency_counts_registers(self):
        fmt = BmFormat(inputs=4, bits=4)
        assert create_neuron(Design(format=fmt)).latency == 0
        assert create_neuron(Design(format=fmt, form="pipelined")).latency == 5
        assert create_neuron(Design(format=fmt, form="pipelined", registers=("sums", "exp2"))).latency == 2


class TestArguments:
    @pytest.mark.parametrize(("parameters", "message"), [
        ({"inputs": 0}, "Number of inputs must be an integer of 1 or more, not 0"),
        ({"bits": 17}, "Width in bits must be an integer from 2 to 16, not 17"),
        ({"boundary": "layer", "out_fraction": 0}, "whose log2 follows must be an integer from 1 to 40, not 0"),
        ({"layout": "relu", "signed_inputs": True}, "relu needs unsigned inputs"),
        ({"layout": "bipolar", "signed_inputs": False}, "bipolar needs signed inputs"),
        ({"layout": "wired", "signed_inputs": True}, "wired needs unsigned inputs"),
        ({"layout": "wired", "inputs": 1}, "of layout wired must be an integer of 2 or more, not 1"),
        ({"layout": "triangular"}, "must be one of bipolar, relu, signed, wired, not 'triangular'"),
        ({"log_fraction": 8}, "Log code fraction must be an integer from 0 to 7, not 8"),
        ({"layout": "bipolar", "combine": "logarithmic"}, "not bipolar"),
        ({"bits": 16, "log2": "exact"}, "must be an integer from 1 to 12, not 16"),
        ({"sums": "clamped", "weight_bits": 6}, r"as the activations' log codes \(8 bits\), not 6"),
        ({"maximum_bits": 10}, "must be an integer from 1 to 9, not 10"),
    ])
    def test_bm_format(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            BmFormat(**{"inputs": 9, "bits": 8, **parameters})

    @pytest.mark.parametrize(("parameters", "message"), [
        ({"maximum": "binary"}, "Maximum must be one of tree, .* not 'binary'"),
        ({"end": "table"}, "End must be one of subtract, select, anticipate, select_anticipate, not 'table'"),
        ({"form": "systolic"}, "Form must be one of parallel, pipelined, serial, not 'systolic'"),
        ({"registers": ("maxima",)}, "need form pipelined, not 'parallel'"),
        ({"form": "pipelined", "registers": ()}, "not after none"),
        ({"form": "pipelined", "registers": ("products",)}, "must be one of log2, sums, maxima"),
        ({"form": "pipelined", "registers": ("maxima.4",)}, r"must be one of log2, .* maxima.3, maxima, .*'maxima.4'"),
        ({"form": "pipelined", "registers": ("sums", "sums")}, "once each, not as sums, sums"),
    ])
    def test_design(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            Design(format=BmFormat(inputs=9, bits=8), **parameters)

    @pytest.mark.parametrize("combine", COMBINES)
    def test_end_for_wide_maxima(self, combine):
        with pytest.raises(ValueError, match="End select is for maxima of 9 bits or fewer, not 11"):
            Design(format=BmFormat(inputs=9, bits=10, log_fraction=4, combine=combine), end="select")
