# SPDX-License-Identifier: Apache-2.0
"""Integers packed into their bits: what is read is what was written, in no more bytes than said, or one line."""

import json
import zlib

import numpy as np
import pytest

from bmhw.models import ModelError
from bmhw.models.files.packing import PACKED, packed, unpacked


def again(tensors):
    stored, metadata = packed(tensors)
    return unpacked("x.safetensors", stored, metadata)


def entry_of(values):
    stored, metadata = packed({"k": np.asarray(values)})
    return stored["k"], json.loads(metadata.get(PACKED, "{}")).get("k")


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 48, 61, 62])
@pytest.mark.parametrize("minimum", [0, -3, 1 << 20])
def test_every_width_comes_back(bits, minimum):
    rng = np.random.default_rng(bits)
    flat = rng.integers(0, 1 << bits, 1009, dtype=np.int64)  # a prime, so that the last byte isn't full
    flat[:2] = 0, (1 << bits) - 1
    skewed = np.where(np.arange(1009) % 10 < 2, flat, 0)
    tensors = {"flat": flat + minimum, "skewed": skewed.reshape(1009, 1) + minimum, "one": np.array([minimum])}
    found = again(tensors)
    for name, values in tensors.items():
        assert found[name].shape == values.shape and np.array_equal(found[name], values), name


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7])
def test_codes_that_are_all_as_frequent_take_their_bits(bits):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (100, 41))
    stored, entry = entry_of(values)
    assert len(stored) == (values.size * bits + 7) // 8
    assert entry == {"shape": [100, 41], "bits": bits, "coding": "bits"}


def test_the_bits_lie_low_ones_first():
    file = np.frombuffer(bytes([0b00_11_01_10, 0b01_01]), dtype=np.uint8)
    metadata = {PACKED: json.dumps({"k": {"shape": [2, 3], "bits": 2, "minimum": -1, "coding": "bits"}})}
    assert unpacked("x", {"k": file}, metadata)["k"].tolist() == [[1, 0, 2], [-1, 0, 0]]


def test_codes_of_few_frequent_values_take_less():
    """Half of them one code: an entropy of 0.5 + 0.5 * (1 + 8) = 5.0 bits of 8, which Huffman's codes come near."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(20000) < 0.5, 7, rng.integers(0, 256, 20000))
    stored, entry = entry_of(values)
    assert entry["coding"] == "deflate" and 0.99 * 5.0 < 8 * len(stored) / values.size < 1.03 * 5.0
    assert zlib.decompress(stored.tobytes(), -15) == values.astype(np.uint8).tobytes()


def test_what_packing_would_make_longer_stays_as_it_is():
    short, wide = np.array([3, -1, 200]), np.array([-(1 << 63), (1 << 63) - 1])
    stored, metadata = packed({"short": short, "wide": wide, "none": np.empty((0, 4), dtype=np.int64)})
    assert metadata == {} and (stored["short"].dtype, stored["wide"].dtype) == (np.int16, np.int64)
    assert {name: values.tolist() for name, values in again({"short": short, "wide": wide}).items()} == {
        "short": [3, -1, 200], "wide": wide.tolist()}
    assert stored["none"].shape == (0, 4)


def test_an_older_file_is_as_it_is():
    tensors = {"k": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    assert unpacked("x", tensors, {"layouts": "{}"}) == tensors


GOOD = {"shape": [1000], "bits": 3, "coding": "bits"}


@pytest.mark.parametrize(("entry", "message"), [
    ({"bits": 0}, "Bits of packed tensor k in x.safetensors must be an integer from 1 to 62, not 0"),
    ({"bits": 63}, "not 63"), ({"bits": True}, "not True"), ({"bits": None}, "not None"),
    ({"bits": 4}, "packed tensor k in x.safetensors doesn't hold 1000 codes of 4 bits"),
    ({"shape": [999, 2]}, "doesn't hold 1998 codes of 3 bits"),
    ({"shape": [1 << 40, 1 << 40]}, "doesn't hold"),
    ({"shape": [1 << 62, 1 << 62], "coding": "deflate"}, "doesn't hold"),
    ({"shape": [-1]}, "a size must be an integer from 1 to .*, not -1"),
    ({"shape": 1000}, "must be a list of at most 8 sizes, not 1000"),
    ({"shape": [1] * 9}, "at most 8 sizes"),
    ({"minimum": 1 << 63}, "Minimum of packed tensor k"), ({"minimum": "x"}, "not 'x'"),
    ({"coding": "bitz"}, "must be one of bits, deflate, not 'bitz' .did you mean bits"),
    ({"coding": "deflate"}, "doesn't hold 1000 codes"),
    ({"coding": ["bits"]}, "must be one of bits, deflate"),
])
def test_what_is_no_packing_is_one_line(entry, message):
    metadata = {PACKED: json.dumps({"k": {**GOOD, **entry}})}
    with pytest.raises(ModelError, match=message) as caught:
        unpacked("x.safetensors", {"k": np.zeros(375, dtype=np.uint8)}, metadata)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", ["[]", "{", "5", '{"k": 7}', '{"j": {}}'])
def test_metadata_that_say_nothing_of_use(said):
    with pytest.raises(ModelError, match="packed"):
        unpacked("x.safetensors", {"k": np.zeros(375, dtype=np.uint8)}, {PACKED: said})


@pytest.mark.parametrize("change", [
    lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"\xff" + data[1:], lambda data: b""])
def test_a_stream_that_is_not_whole(change):
    values = np.where(np.random.default_rng(0).random(5000) < 0.9, 1, 100)
    stored, metadata = packed({"k": values})
    assert '"deflate"' in metadata[PACKED]
    stored["k"] = np.frombuffer(change(stored["k"].tobytes()), dtype=np.uint8)
    with pytest.raises(ModelError, match="doesn't hold 5000 codes of 7 bits"):
        unpacked("x.safetensors", stored, metadata)


def test_a_code_wider_than_said():
    data = np.frombuffer(zlib.compress(bytes([1, 2, 8]), 9, -15), dtype=np.uint8)
    metadata = {PACKED: json.dumps({"k": {"shape": [3], "bits": 3, "coding": "deflate"}})}
    with pytest.raises(ModelError, match="doesn't hold 3 codes of 3 bits"):
        unpacked("x.safetensors", {"k": data}, metadata)


def test_a_tensor_that_is_no_row_of_bytes():
    for stored in (np.zeros((375, 1), dtype=np.uint8), np.zeros(375, dtype=np.int8)):
        with pytest.raises(ModelError, match="must be a row of bytes, not"):
            unpacked("x.safetensors", {"k": stored}, {PACKED: json.dumps({"k": GOOD})})
