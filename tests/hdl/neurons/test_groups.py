# SPDX-License-Identifier: Apache-2.0
"""Neurons with several groups of maxima, and what belongs to them: an exact zero, a sum beyond 1, a residual."""

import dataclasses
import itertools

import numpy as np
import pytest
from support.simulation import check_neuron, random_vectors

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS, RESULTS, SUMS, ZEROS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design

SEED = 20090719


def grouped_formats(**fields):
    """Every layout, result, kind of sums and zero, of 6 inputs in three groups."""
    usual = {"inputs": 6, "bits": 3, "groups": 3}
    for layout, boundary, result, sums, zero in itertools.product(LAYOUTS, ("neuron", "layer"), RESULTS, SUMS, ZEROS):
        if (boundary == "neuron" and result == "code") or (sums == "clamped" and zero == "step"):
            continue
        yield BmFormat(layout=layout, boundary=boundary, result=result, sums=sums, zero=zero, **usual | fields)


def of_groups(fmt, vectors):
    """The linear results of the groups, each computed as a neuron of its own, without bias; shape (groups, count)."""
    alone = dataclasses.replace(fmt, inputs=fmt.group_inputs, groups=1, result="linear", bias_bits=2)
    size = fmt.group_inputs
    results = []
    for group in range(fmt.groups):
        inside = {name: values[:, group * size:(group + 1) * size] for name, values in vectors.items()
                  if values.ndim > 1}
        results.append(alone.compute(**inside))
    return np.stack(results)


def check(design, vectors):
    check_neuron(design, vectors, f"(seed {SEED})")


class TestFormat:
    def test_result_is_sum_of_groups(self):
        rng = np.random.default_rng(SEED)
        for fmt in grouped_formats():
            vectors = random_vectors(fmt, 200, rng)
            linear = dataclasses.replace(fmt, result="linear")
            total = of_groups(fmt, vectors).sum(axis=0) + vectors["bias"]
            assert (linear.compute(**vectors) == total).all(), fmt

    def test_groups_must_divide_inputs(self):
        with pytest.raises(ValueError, match="must divide the 64 inputs, not 5; nearest: 4, 8"):
            BmFormat(inputs=64, bits=4, groups=5)
        with pytest.raises(ValueError, match="from 1 to 64, not 65"):
            BmFormat(inputs=64, bits=4, groups=65)
        with pytest.raises(ValueError, match="from 1 to 32, not 64"):
            BmFormat(inputs=64, bits=4, groups=64, layout="wired")

    def test_logarithmic_end_takes_one_group(self):
        with pytest.raises(ValueError, match="it has one group, so that 2 groups and 0 residual bits need a linear"):
            BmFormat(inputs=4, bits=4, groups=2, combine="logarithmic")

    def test_exact_zero(self):
        fields = {"inputs": 2, "bits": 4, "log_fraction": 2, "layout": "signed", "out_fraction": 8, "boundary": "layer",
                  "result": "linear"}
        none = {"c": [0, 0], "k": [15, 15], "sign": [0, 1]}
        assert BmFormat(**fields, sums="clamped", zero="step").compute(**none | {"k": [0, 15]}) == 19 - 19
        for sums in SUMS:
            assert BmFormat(**fields, sums=sums, zero="exact").compute(**none) == 0
        # full sums: code 0 times the largest weight is the smallest step of a clamped sum
        one = {"c": [0, 1], "k": [15, 0], "sign": [0, 0]}
        assert BmFormat(**fields).compute(**one) == 19 - 1
        assert BmFormat(**fields, zero="exact").compute(**one) == 0

    @pytest.mark.parametrize("offset", [-24, -6, -1, 0, 5, 16])
    def test_code_of_sums_beyond_one(self, offset):
        """The definition, in floating point: y in this range is no tie."""
        fmt = BmFormat(inputs=8, bits=4, log_fraction=2, groups=4, boundary="layer", offset=offset)
        y = np.arange(fmt.y.minimum, fmt.y.maximum + 1)
        real = np.floor(4 * np.log2(np.maximum(y, 1) / (1 << fmt.out_fraction)) + 0.5) + 15 + offset
        assert (fmt.code_of(y) == np.where(y > 0, np.clip(real, 0, 15), 0)).all()


class TestHardware:
    def test_every_layout_result_and_zero(self):
        rng = np.random.default_rng(SEED)
        for number, fmt in enumerate(grouped_formats()):
            end = ("subtract", "select")[number % 2]
            check(Design(format=fmt, end=end), random_vectors(fmt, 60, rng))

    @pytest.mark.parametrize("fields", [
        {"offset": -3}, {"offset": 3}, {"maximum_bits": 3}, {"out_fraction": 14, "offset": -5}, {"residual_bits": 9},
        {"residual_bits": 3, "groups": 1, "offset": -2}, {"groups": 12, "layout": "relu"}, {"bias_bits": 12}])
    def test_options(self, fields):
        rng = np.random.default_rng(SEED)
        for sums in SUMS:
            usual = {"inputs": 12, "bits": 4, "groups": 3, "layout": "signed", "boundary": "layer", "zero": "exact"}
            fmt = BmFormat(**usual | {"sums": sums} | fields)
            check(Design(format=fmt), random_vectors(fmt, 200, rng))

    def test_pipelined(self):
        rng = np.random.default_rng(SEED)
        for layout in LAYOUTS:
            fmt = BmFormat(inputs=12, bits=4, groups=3, layout=layout, boundary="layer", residual_bits=5)
            check(Design(format=fmt, form="pipelined"), random_vectors(fmt, 40, rng))

    def test_exponential_by_shift(self):
        fmt = BmFormat(inputs=4, bits=12, groups=2, layout="signed", boundary="layer", result="linear")
        vectors = random_vectors(fmt, 40, np.random.default_rng(SEED))
        vectors["c"][2:20] = 0
        check(Design(format=fmt), vectors)

    @pytest.mark.parametrize("requantize", ["scale", "shift"])
    def test_residual_of_mac(self, requantize):
        fmt = MacFormat(inputs=5, bits=4, boundary="layer", requantize=requantize, residual_bits=11)
        vectors = random_vectors(fmt, 200, np.random.default_rng(SEED))
        assert (dataclasses.replace(fmt, result="linear").compute(**{k: v for k, v in vectors.items() if k != "scale"})
                == (vectors["x"] * vectors["w"]).sum(axis=-1) + vectors["bias"] + vectors["r"]).all()
        check(Design(format=fmt), vectors)

    def test_name_tells_groups(self):
        fmt = BmFormat(inputs=64, bits=4, groups=4, boundary="layer")
        assert Design(format=fmt).name == "bm_relu_layer_4bit_64in_groups4"
        assert Design(format=dataclasses.replace(fmt, zero="step")).name == "bm_relu_layer_4bit_64in_groups4_zero_step"
