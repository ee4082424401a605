# SPDX-License-Identifier: Apache-2.0
"""Architectures of the linear end: each computes what the format states, and is proven equal to the plain one."""

import itertools

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out
from support.proof import equivalent
from support.simulation import packed_vectors, random_vectors, simulate

from bmhw.hdl.arithmetic.sum_lookup import SumLookup
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons import bm_parts
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.linear_ends import LINEAR_ENDS, RowsLog2
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import block_to_verilog

SEED = 20090719


class Waiting(Block):
    """The sum of two rows, then its ReLU and log2: what :class:`RowsLog2` doesn't wait for."""

    def __init__(self, *, format: BmFormat):
        self.format = format
        width = format.y.bits
        super().__init__({"row0": In(width), "row1": In(width), "z": Out(format.log_bits)})

    def elaborate(self, platform):
        m = Module()
        log2 = place(m, platform, "log2", bm_parts.ReluLog2(format=self.format))
        m.d.comb += [log2.y.eq(self.row0 + self.row1), self.z.eq(log2.z)]
        return m


class SumOfGroups(Block):
    """The groups of a neuron as neurons of their own, their linear results added; then ReLU and log2, if any."""

    def __init__(self, *, format: BmFormat):
        self.format = format
        output, code = format.output
        ports = {name: In(code.bits * count) for name, (code, count) in format.inputs_of.items()}
        super().__init__({**ports, output: Out(code.bits)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        alone = BmFormat(inputs=fmt.group_inputs, bits=fmt.bits, layout=fmt.layout, sums=fmt.sums, zero=fmt.zero,
                         out_fraction=fmt.out_fraction, boundary="layer", result="linear")
        total = self.bias.as_signed()
        for group in range(fmt.groups):
            neuron = place(m, platform, f"group_{group}", create_neuron(Design(format=alone)))
            for name, (code, count) in alone.inputs_of.items():
                if name != "bias":
                    bits = code.bits * count
                    m.d.comb += getattr(neuron, name).eq(getattr(self, name)[group * bits:(group + 1) * bits])
            total = total + neuron.y.as_signed()
        if fmt.result == "linear":
            m.d.comb += self.y.eq(total)
        else:
            end = place(m, platform, "relu_log2", bm_parts.ReluLog2(format=fmt))
            m.d.comb += [end.y.eq(total), self.z.eq(end.z)]
        return m


class TestSumLookup:
    @pytest.mark.parametrize("width, size", [(2, 1), (2, 2), (3, 4), (4, 8), (5, 7), (5, 16), (6, 3)])
    def test_every_pair_of_rows(self, width, size):
        rng = np.random.default_rng(SEED + size)
        a, b = np.array(list(itertools.product(range(1 << width), repeat=2))).T
        total = (a + b + (1 << width - 1)) % (1 << width) - (1 << width - 1)
        for _ in range(3):
            table = rng.integers(0, 6, size)
            got = simulate(SumLookup(width=width, table=tuple(map(int, table))), a=a, b=b)["value"]
            assert got == np.where(total < 0, 0, table[np.clip(total, 0, size - 1)]).tolist()

    def test_table_fits_the_sum(self):
        with pytest.raises(ValueError, match="sum of 3 bits must have 1 to 4 entries, not 5"):
            SumLookup(width=3, table=(0,) * 5)


class TestEnds:
    @pytest.mark.parametrize("fields", [
        {}, {"groups": 1}, {"groups": 1, "residual_bits": 7}, {"offset": -3}, {"offset": 4}, {"offset": -40},
        {"out_fraction": 1}, {"out_fraction": 9, "offset": -6}, {"log2": "mitchell"}, {"bias_bits": 1}], ids=str)
    def test_proven_equal_to_the_plain_one(self, fields):
        """For every pair of rows, sums that no neuron can have included."""
        fmt = BmFormat(**{"inputs": 12, "bits": 4, "groups": 4, "layout": "signed", "boundary": "layer"} | fields)
        assert equivalent(block_to_verilog(Waiting(format=fmt), "gold"), block_to_verilog(RowsLog2(format=fmt), "gate"))

    @pytest.mark.parametrize("end", LINEAR_ENDS)
    def test_neurons(self, end):
        rng = np.random.default_rng(SEED)
        for layout, form in (("bipolar", "parallel"), ("signed", "pipelined"), ("wired", "pipelined")):
            fmt = BmFormat(inputs=4, bits=4, groups=2, layout=layout, boundary="layer", residual_bits=5)
            design = Design(format=fmt, end=end, form=form, maximum="digits")
            neuron, vectors = create_neuron(design), random_vectors(fmt, 100, rng)
            latency = None if form == "parallel" else neuron.latency
            got = simulate(neuron, latency, **packed_vectors(fmt, vectors))["z"]
            assert got == fmt.compute(**vectors).tolist(), (design, SEED)

    @pytest.mark.parametrize("design, words", [
        ({"end": "anticipate", "combine": "logarithmic"},
         "End of a logarithmic combine must be one of subtract, select, not anticipate"),
        ({"end": "anticipate", "result": "linear"}, "needs result code and form parallel or pipelined, not linear and"),
        ({"end": "select_anticipate", "out_fraction": 12, "groups": 2, "offset": -5},
         "12 or fewer fraction bits and octaves above 1 together, not 14"),
        ({"end": "select_anticipate", "bits": 9, "log_fraction": 2, "out_fraction": 8},
         "for maxima of 9 bits or fewer, not 10")], ids=str)
    def test_refused(self, design, words):
        end = design.pop("end")
        fmt = BmFormat(**{"inputs": 4, "bits": 4, "boundary": "layer"} | design)
        with pytest.raises(ValueError, match=words):
            Design(format=fmt, end=end)


class TestGroups:
    @pytest.mark.parametrize("layout, sums, end", [
        ("relu", "clamped", None), ("wired", "full", None),
        *(("signed", "clamped", end) for end in ("anticipate", "select_anticipate"))])
    def test_proven_equal_to_the_sum_of_groups(self, layout, sums, end):
        """Of groups whose inputs are their own: one that took another's would differ. No end: a linear result."""
        fmt = BmFormat(inputs=4, bits=3, groups=2, layout=layout, sums=sums, boundary="layer",
                       result="code" if end else "linear")
        gate = create_neuron(Design(format=fmt, end=end or "subtract", maximum="digits"))
        assert equivalent(block_to_verilog(SumOfGroups(format=fmt), "gold"), block_to_verilog(gate, "gate"))
