# SPDX-License-Identifier: Apache-2.0
"""Vectors of a neuron: whole arrays of integers to the bits on its ports, and back.

A vector is one set of inputs. On a port with n elements of b bits, element 0 lies in the lowest b bits.
Everything works on all vectors at once, in NumPy.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import SCALARS

if TYPE_CHECKING:
    from bmhw.hdl.formats.codes import LinearCode
    from bmhw.hdl.formats.mac import MacFormat

__all__ = ["bit_strings", "broadcast_inputs", "integers", "joined", "pack", "port_values", "value_range"]

Bytes = NDArray[np.uint8]

# What `compute` takes for a port of one value that isn't given.
_DEFAULTS = dict.fromkeys(SCALARS, 0) | {"scale": 1}


def broadcast_inputs(
    number_format: "MacFormat | BmFormat",
    inputs: Mapping[str, ArrayLike],
) -> tuple[dict[str, NDArray[np.int64]], tuple[int, ...]]:
    """Every input port's values as ``int64`` of shape (vectors, elements), and the shape of the vectors.

    ``inputs`` holds for each port an array (..., n), for a port of one value (``bias``, ``scale``) an array
    (...); the leading axes broadcast, biases default to 0 and a scale to 1. ``ValueError`` for unknown or
    missing ports, wrong shapes and values that the port can't carry.
    """
    ports = number_format.inputs_of
    if unknown := set(inputs) - set(ports):
        raise ValueError(f"Inputs must be {', '.join(ports)}, not {sorted(unknown)[0]!r}")
    arrays, shapes = {}, []
    for name, (code, elements) in ports.items():
        if name not in inputs and name not in _DEFAULTS:
            raise ValueError(f"Inputs must hold {name!r}, an array of {elements} elements a vector")
        values = code.check(name, inputs[name] if name in inputs else _DEFAULTS[name])
        if name in SCALARS:
            values = values[..., np.newaxis]
        if values.shape[-1:] != (elements,):
            raise ValueError(f"{name} must have {elements} elements a vector, not shape {values.shape}")
        arrays[name] = values
        shapes.append(values.shape[:-1])
    shape = np.broadcast_shapes(*shapes)
    return {
        name: np.ascontiguousarray(np.broadcast_to(values, shape + values.shape[-1:])).reshape(
            -1, values.shape[-1]
        )
        for name, values in arrays.items()
    }, shape


def joined(number_format: "MacFormat | BmFormat", *parts: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.int64]]:
    """The vectors of all parts, one after the other."""
    arrays = [broadcast_inputs(number_format, part)[0] for part in parts]
    joined = {port: np.concatenate([array[port] for array in arrays]) for port in arrays[0]}
    return {port: values[:, 0] if port in SCALARS else values for port, values in joined.items()}


def value_range(number_format: "MacFormat | BmFormat", port: str) -> tuple[int, int]:
    """The smallest and the largest value of an element of an input port."""
    code, _ = number_format.inputs_of[port]
    if port in ("bias1", "bias2") and isinstance(number_format, BmFormat):
        # they are sums, which reach full scale but not the largest number of their width
        return 0, number_format.full_scale
    return code.minimum, code.maximum


def pack(values: NDArray[np.int64], bits: int) -> Bytes:
    """The port's bits of (vectors, elements) integers: little-endian bytes, shape (vectors, bytes)."""
    octets = -(-bits // 8)
    raw = np.ascontiguousarray(values, dtype="<i8").view(np.uint8)
    raw = raw.reshape(*values.shape, 8)[..., :octets]
    elements = np.unpackbits(raw, axis=-1, bitorder="little")[..., :bits]
    return np.packbits(elements.reshape(len(values), -1), axis=-1, bitorder="little")


def port_values(packed: Bytes) -> list[int]:
    """The packed bits of each vector as one integer."""
    width, data = packed.shape[1], packed.tobytes()
    return [int.from_bytes(data[start : start + width], "little") for start in range(0, len(data), width)]


def bit_strings(values: NDArray[np.int64], bits: int) -> NDArray[np.bytes_]:
    """Each integer as ``bits`` characters ``0`` and ``1``, highest bit first, as a simulator prints it."""
    raw = np.unpackbits(pack(values.reshape(-1, 1), bits), axis=-1, bitorder="little")[:, :bits]
    return np.ascontiguousarray(raw[:, ::-1] + np.uint8(ord("0"))).view(f"S{bits}").ravel()


def integers(strings: NDArray[np.bytes_], code: "LinearCode") -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The integers that bit strings stand for in ``code``, and which of them hold a bit that is not 0 or 1.

    Such an unknown bit (X, Z) counts as 0 in the integer.
    """
    characters = strings.astype(f"S{code.bits}").view(np.uint8).reshape(len(strings), code.bits)
    unknown = ~((characters == ord("0")) | (characters == ord("1"))).all(axis=1)
    bits = np.zeros((len(strings), 64), dtype=np.uint8)
    bits[:, : code.bits] = (characters == ord("1"))[:, ::-1]
    if code.signed:
        bits[:, code.bits :] = bits[:, code.bits - 1 : code.bits]
    return np.packbits(bits, axis=1, bitorder="little").view("<i8").ravel().astype(np.int64), unknown
