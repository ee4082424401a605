# SPDX-License-Identifier: Apache-2.0
"""Packing against plain Python integers, and what the vectors must reach."""

import dataclasses

import numpy as np
import pytest

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS, SUMS
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.sim import corner_vectors, needed_vectors, random_vectors, vectors
from bmhw.sim.bm_candidates import candidates_of, maxima_of
from bmhw.sim.mac_stimulus import mac_vectors
from bmhw.sim.table_entries import roundings_of
from bmhw.sim.vectors import bit_strings, broadcast_inputs, integers, pack, port_values

FORMATS = [
    MacFormat(inputs=3, bits=4),
    MacFormat(inputs=1, bits=2, signed_inputs=True, weight_bits=7),
    MacFormat(inputs=4, bits=4, boundary="layer"),
    BmFormat(inputs=5, bits=4),
    BmFormat(inputs=20, bits=3, layout="bipolar"),
    BmFormat(inputs=2, bits=5, layout="signed", combine="logarithmic"),
    BmFormat(inputs=3, bits=5, layout="signed", signed_inputs=True, boundary="layer"),
    BmFormat(inputs=6, bits=4, groups=3, layout="wired", boundary="layer", residual_bits=9),
    BmFormat(inputs=8, bits=4, groups=2, layout="bipolar", sums="clamped"),
    MacFormat(inputs=3, bits=4, residual_bits=5),
]


@pytest.mark.parametrize("bits", [1, 3, 8, 9, 17, 40, 63, 64])
@pytest.mark.parametrize("signed", [False, True])
class TestPacking:
    def values(self, bits, signed):
        if bits == 64 and not signed:
            bits = 63  # what an int64 holds
        code = LinearCode(bits=bits, signed=signed)
        values = np.random.default_rng(bits).integers(
            code.minimum, code.maximum, (7, 5), dtype=np.int64, endpoint=True
        )
        values[0], values[1] = code.minimum, code.maximum
        return values

    def test_element_0_lies_lowest(self, bits, signed):
        values, mask = self.values(bits, signed), (1 << bits) - 1
        expected = [sum((int(v) & mask) << (bits * i) for i, v in enumerate(row)) for row in values]
        assert port_values(pack(values, bits)) == expected

    def test_bit_strings_and_back(self, bits, signed):
        values = self.values(bits, signed).ravel()
        strings = bit_strings(values, bits)
        assert [s.decode() for s in strings] == [
            format(int(v) & ((1 << bits) - 1), f"0{bits}b") for v in values
        ]
        back, unknown = integers(strings, LinearCode(bits=bits, signed=signed))
        assert not unknown.any()
        np.testing.assert_array_equal(back, values)


def test_unknown_bits_are_marked():
    back, unknown = integers(np.array([b"0101", b"01x1", b"zzzz"]), LinearCode(bits=4))
    np.testing.assert_array_equal(back, [5, 5, 0])
    np.testing.assert_array_equal(unknown, [False, True, True])


def test_inputs_broadcast():
    number_format = BmFormat(inputs=3, bits=4)
    arrays, shape = broadcast_inputs(
        number_format, {"x": np.ones((2, 4, 3), int), "k1": [1, 2, 3], "k2": np.zeros((4, 3), int)}
    )
    assert shape == (2, 4)
    assert {name: array.shape for name, array in arrays.items()} == {
        "x": (8, 3),
        "k1": (8, 3),
        "k2": (8, 3),
        "bias": (8, 1),
    }
    np.testing.assert_array_equal(arrays["k1"][5], [1, 2, 3])


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"x": [1, 2, 3], "k1": [0, 0, 0]}, "'k2'"),
        ({"x": [1, 2, 3], "k1": [0, 0, 0], "k2": [0, 0, 0], "w": [1]}, "'w'"),
        ({"x": [1, 2], "k1": [0, 0, 0], "k2": [0, 0, 0]}, "3 elements"),
        ({"x": [1, 2, 16], "k1": [0, 0, 0], "k2": [0, 0, 0]}, "0 to 15, not 16"),
    ],
)
def test_wrong_inputs_are_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        broadcast_inputs(BmFormat(inputs=3, bits=4), inputs)


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
class TestStimulus:
    def test_values_are_valid(self, number_format):
        inputs = vectors(number_format, 150, seed=3)
        outputs = number_format.compute(**inputs)  # checks every range
        assert outputs.shape == (150,)

    def test_corners_reach_every_extreme(self, number_format):
        corners = corner_vectors(number_format)
        for port, (code, _) in number_format.inputs_of.items():
            highest = number_format.full_scale if port in ("bias1", "bias2") else code.maximum
            flat = corners[port].reshape(len(corners[port]), -1)
            assert (flat == code.minimum).all(axis=1).any(), port
            assert (flat == highest).all(axis=1).any(), port

    def test_corners_let_each_input_stand_out(self, number_format):
        x = corner_vectors(number_format)[next(iter(number_format.inputs_of))]
        alone = (x == x.max()).sum(axis=1) == 1
        winners = set(x[alone].argmax(axis=1))
        assert len(winners) == min(number_format.inputs, 16)

    def test_chosen_vectors_are_seeded(self, number_format):
        first, again, other = (vectors(number_format, 150, seed) for seed in (1, 1, 2))
        assert all((first[port] == again[port]).all() for port in first)
        assert any((first[port] != other[port]).any() for port in first)

    def test_every_bit_of_every_port_is_0_and_1(self, number_format):
        for port, values in vectors(number_format).items():
            flat = values.reshape(len(values), -1)
            for bit in range(number_format.inputs_of[port][0].bits):
                assert ((flat >> bit & 1) == 0).any(axis=0).all() and ((flat >> bit & 1) == 1).any(axis=0).all()

    def test_random_vectors_are_seeded(self, number_format):
        first, again, other = (random_vectors(number_format, 20, seed) for seed in (1, 1, 2))
        assert all((first[port] == again[port]).all() for port in first)
        assert any((first[port] != other[port]).any() for port in first)


class TestCoverage:
    def test_one_unit_of_a_sum_shows_at_a_code(self):
        """A part of a requantised neuron's sums lies where one unit less is another code, a part where one more is."""
        number_format = MacFormat(inputs=7, bits=5, boundary="layer")
        inputs = mac_vectors(number_format, 300, np.random.default_rng(0))
        expected = number_format.compute(**inputs)
        shown = []
        for change in (-1, 1):
            bias = np.clip(inputs["bias"] + change, number_format.bias.minimum, number_format.bias.maximum)
            shown.append(number_format.compute(**{**inputs, "bias": bias}) != expected)
        # a step of z is dozens of units of the sum wide: of random sums, one in dozens
        assert shown[0].mean() > 0.2 and shown[1].mean() > 0.2
        assert {0, number_format.z.maximum} <= set(expected.tolist())

    @pytest.mark.parametrize("combine", ["linear", "logarithmic"])
    def test_every_table_entry_and_every_winner(self, combine):
        number_format = BmFormat(inputs=5, bits=5, layout="signed", boundary="layer", combine=combine)
        inputs = vectors(number_format)
        negative = np.zeros(inputs["c"].shape, dtype=bool)
        first, second = number_format.maxima(inputs["c"], negative, k=inputs["k"], sign=inputs["sign"])
        sums = np.where(inputs["sign"] == 0, inputs["c"] + inputs["k"], -1)
        assert set(sums.argmax(axis=1)[(sums == first[:, np.newaxis]).sum(axis=1) == 1]) == set(range(5))
        if combine == "linear":
            assert set(first) | set(second) == set(range(number_format.full_scale + 1))
            terms = [number_format.exp2_unit.compute(m) for m in (first, second)]
            y = terms[0] - terms[1] + inputs["bias"]
            # the entries of the end's table: a mantissa each, of results from a half to full scale
            assert set(range(128, 256)) <= set(y.tolist())
        else:
            first, second = np.maximum(first, inputs["bias1"]), np.maximum(second, inputs["bias2"])
            nothing_taken = int(np.flatnonzero(number_format.log_subtract.phi)[-1]) + 1
            assert set(range(nothing_taken + 1)) <= set((first - second).tolist())

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("sums", SUMS)
    def test_every_group_is_exercised_as_a_neuron_is(self, layout, sums):
        """Its inputs win each of its maxima, its exp2 reads every entry, and the sum of all reaches every octave."""
        fmt = BmFormat(inputs=12, bits=4, groups=3, layout=layout, sums=sums, boundary="layer", offset=-7)
        inputs = vectors(fmt)
        maxima, candidates = maxima_of(fmt, inputs), candidates_of(fmt, inputs)
        sizes = [range(4)] * 4 if layout != "wired" else [range(2), range(2, 4)]
        for branch, (maximum, size) in enumerate(zip(maxima, sizes, strict=False)):
            sums_of = np.where(candidates[branch].enter, candidates[branch].sums, -1)
            alone = (sums_of == maximum[..., np.newaxis]).sum(axis=2) == 1
            for group in range(3):
                assert set(sums_of[alone[:, group], group].argmax(axis=1)) == set(size)
        for group in range(3):
            # with full sums of two codes above 0 there is no 1
            expected = set(range(fmt.full_scale + 1)) - ({1} if sums == "full" else set())
            assert set(np.concatenate([maximum[:, group] for maximum in maxima])) == expected
        y = dataclasses.replace(fmt, result="linear").compute(**inputs)
        assert {0, 1, 2} <= set((y[y > 0] >> fmt.out_fraction).tolist())
        # codes on both sides of each rounding, above 1 too
        roundings = roundings_of(fmt)
        assert len(roundings) == 15 and (roundings > 1 << fmt.out_fraction).any()
        assert {*roundings.tolist(), *(roundings - 1).tolist()} <= set(y.tolist())

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_zeros_would_win_if_they_were_steps(self, layout):
        """Most inputs are kept from winning over others by the 0 of their activation, and by that of their weight."""
        fmt = BmFormat(inputs=32, bits=4, groups=2, layout=layout, boundary="layer")
        inputs = vectors(fmt)
        for branch, candidates in enumerate(candidates_of(fmt, inputs)):
            left_out = np.where(candidates.left_out, candidates.sums, -1)
            maxima = maxima_of(fmt, inputs)[branch][..., np.newaxis]
            winners = ((maxima > 0) & (left_out > maxima)).reshape(-1, 32)
            port = [port for port in inputs if port in ("k", "k1", "k2")][branch % (1 if "k" in inputs else 2)]
            possible = np.arange(32) % 16 // 8 == branch if layout == "wired" else np.ones(32, dtype=bool)
            for zero in (inputs["c"] == 0, inputs[port] == 0):
                found = (winners & zero).any(axis=0)
                assert not (found & ~possible).any() and found.sum() > 0.75 * possible.sum(), (branch, found)

    @pytest.mark.parametrize("fmt", [BmFormat(inputs=4, bits=4, groups=2, boundary="layer", residual_bits=9),
                                     MacFormat(inputs=4, bits=4, boundary="layer", residual_bits=9)], ids=["bm", "mac"])
    def test_each_bit_of_a_residual_shows(self, fmt):
        inputs = vectors(fmt)
        expected = fmt.compute(**inputs)
        for bit in range(9):
            flipped = inputs["r"] ^ (1 << bit if bit < 8 else -256)
            shown = fmt.compute(**inputs | {"r": flipped}) != expected
            assert shown[inputs["r"] > flipped].any() and shown[inputs["r"] < flipped].any()

    def test_more_vectors_for_larger_tables_and_more_inputs(self):
        narrow = needed_vectors(BmFormat(inputs=5, bits=4))
        assert needed_vectors(BmFormat(inputs=5, bits=8, boundary="layer")) > 2048 > narrow
        assert needed_vectors(BmFormat(inputs=100, bits=4)) > 600 > narrow

    def test_no_more_for_very_many_inputs_than_icarus_takes_in_seconds(self):
        assert 100 * needed_vectors(BmFormat(inputs=100, bits=8)) <= 1 << 16
        assert needed_vectors(BmFormat(inputs=576, bits=8)) == 320
        assert needed_vectors(MacFormat(inputs=200, bits=8)) == needed_vectors(MacFormat(inputs=2, bits=2))
