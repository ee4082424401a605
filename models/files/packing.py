# SPDX-License-Identifier: Apache-2.0
"""Integers in as few bytes of a safetensors file as they take. Needs no PyTorch.

A tensor of k-bit codes takes k bits a code, a sign one: the codes above their smallest one, one behind the other in C
order, low bits first, in whole bytes at the end. Weights' codes are far from equally frequent, so a second coding
takes less: the same codes in one, two, four or eight bytes each, little-endian, as a raw deflate stream (RFC 1951),
mostly its Huffman codes alone. Each tensor has what is shortest, and stays as it is where both are longer.

The file's metadata say under ``packed`` which tensors are packed, as JSON: name -> ``shape``, ``bits``, ``coding``,
and ``minimum`` where the smallest code isn't 0. A tensor that isn't named there, and so each of an older file, is as
it is.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.checks import check_choice, check_range
from bmhw.models.errors import ModelError

__all__ = ["PACKED", "packed", "unpacked"]

PACKED = "packed"
"""Key of a file's metadata."""

MOST_BITS, LARGEST_MINIMUM, MOST_AXES = 62, 1 << 62, 8
"""What is wider, or starts further from 0, stays as it is; so 64 bits hold every code."""

RAW_DEFLATE, MOST_MEMORY = -15, 9  # zlib's names for a stream without header, and for blocks as long as can be


def packed(tensors: Mapping[str, NDArray]) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Tensors and metadata of a file that :func:`unpacked` reads as these integers."""
    stored, entries = {}, {}
    for name, values in tensors.items():
        plain = _narrowest(values)
        coded = _shortest(values)
        if coded is not None:
            data, entry = coded
            if len(data) + len(json.dumps({name: entry})) < plain.nbytes:
                stored[name], entries[name] = np.frombuffer(data, dtype=np.uint8), entry
                continue
        stored[name] = plain
    return stored, {PACKED: json.dumps(entries)} if entries else {}


def unpacked(file: str, tensors: Mapping[str, NDArray], metadata: Mapping[str, str]) -> dict[str, NDArray]:
    """The integers (int64 where they were packed) of a file's tensors; ModelError in one line for a packing that isn't
    one. ``file``: what it is called there."""
    try:
        entries = json.loads(metadata.get(PACKED, "{}"))
    except ValueError:
        entries = None
    if not isinstance(entries, dict):
        raise ModelError(f"Metadata {PACKED} of {file} must say how each packed tensor is packed, as a JSON object")
    result = dict(tensors)
    for name, entry in entries.items():
        if name not in tensors:
            raise ModelError(f"Weights file {file} lacks the packed tensor {name}")
        result[name] = _unpacked(f"packed tensor {name} in {file}", tensors[name], entry)
    return result


def _narrowest(values: NDArray) -> NDArray:
    """The same integers in the smallest type that holds them."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    for dtype in (np.uint8, np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.ascontiguousarray(values, dtype=dtype)
    return np.ascontiguousarray(values, dtype=np.int64)


def _shortest(values: NDArray) -> tuple[bytes, dict[str, Any]] | None:
    """Integers by the coding that takes fewest bytes, with its entry; None where there are none or too wide ones."""
    if not values.size:
        return None
    minimum = int(values.min())
    bits = max(1, (int(values.max()) - minimum).bit_length())
    if bits > MOST_BITS or abs(minimum) > LARGEST_MINIMUM:
        return None
    codes = values.astype(np.int64).ravel() - minimum
    coding, data = min(((name, encode(codes, bits)) for name, (encode, _) in CODINGS.items()),
                       key=lambda pair: len(pair[1]))
    entry = {"shape": list(values.shape), "bits": bits, "coding": coding}
    return data, entry | ({"minimum": minimum} if minimum else {})


def _unpacked(what: str, stored: NDArray, entry: Any) -> NDArray[np.int64]:
    entry = entry if isinstance(entry, dict) else {}
    shape, bits, coding, minimum = (entry.get(key) for key in ("shape", "bits", "coding", "minimum"))
    try:
        if not isinstance(shape, list) or len(shape) > MOST_AXES:
            raise ValueError(f"Shape of {what} must be a list of at most {MOST_AXES} sizes, not {shape!r}")
        for size in shape:
            check_range(f"Shape of {what}: a size", size, 1, 1 << 62)
        check_range(f"Bits of {what}", bits, 1, MOST_BITS)
        minimum = check_range(f"Minimum of {what}", 0 if minimum is None else minimum, -LARGEST_MINIMUM,
                              LARGEST_MINIMUM)
        _, decode = CODINGS[check_choice(f"Coding of {what}", str(coding), CODINGS)]
    except ValueError as error:
        raise ModelError(str(error)) from None
    if stored.dtype != np.uint8 or stored.ndim != 1:
        raise ModelError(f"The {what} must be a row of bytes, not {stored.dtype} of shape {stored.shape}")
    count = math.prod(shape)
    codes = decode(stored, count, bits)
    if codes is None or (codes >> bits).any():
        raise ModelError(f"The {what} doesn't hold {count} codes of {bits} bits")
    return codes.reshape(shape) + minimum


def _to_bits(codes: NDArray[np.int64], bits: int) -> bytes:
    rows = (codes[:, None] >> np.arange(bits)) & 1
    return np.packbits(rows.astype(np.uint8), bitorder="little").tobytes()


def _from_bits(stored: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.int64] | None:
    if len(stored) != (count * bits + 7) // 8:
        return None
    rows = np.unpackbits(stored, count=count * bits, bitorder="little").reshape(count, bits)
    return rows @ (np.int64(1) << np.arange(bits))


def _whole_bytes(bits: int) -> np.dtype:
    return np.dtype(next(f"<u{size}" for size in (1, 2, 4, 8) if bits <= 8 * size))


def _deflated(codes: NDArray[np.int64], bits: int) -> bytes:
    data = codes.astype(_whole_bytes(bits)).tobytes()

    def by(strategy: int) -> bytes:
        deflate = zlib.compressobj(9, zlib.DEFLATED, RAW_DEFLATE, MOST_MEMORY, strategy)
        return deflate.compress(data) + deflate.flush()

    # Huffman's codes alone are shorter but for images and for codes that come in runs
    return min(by(zlib.Z_HUFFMAN_ONLY), by(zlib.Z_DEFAULT_STRATEGY), key=len)


def _inflated(stored: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.int64] | None:
    dtype, inflate = _whole_bytes(bits), zlib.decompressobj(RAW_DEFLATE)
    try:
        data = inflate.decompress(stored.tobytes(), count * dtype.itemsize + 1)  # no more memory than it may take
    except (zlib.error, OverflowError):
        return None
    whole = inflate.eof and not inflate.unused_data and len(data) == count * dtype.itemsize
    return np.frombuffer(data, dtype=dtype).astype(np.int64) if whole else None


CODINGS = {"bits": (_to_bits, _from_bits), "deflate": (_deflated, _inflated)}
"""Name -> how codes of a width become bytes, and how so many of them are read again (None: it isn't so many)."""
