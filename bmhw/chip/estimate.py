# SPDX-License-Identifier: Apache-2.0
"""What a network takes of a device, before anything is built: logic cells, part by part, from the parts' parameters.

Each part consists of pieces, such as the elements of a layer or its window. What a piece takes is a sum over its
*features*, numbers that its logic grows with: bits of counters, of operands, of tables. How much each of them takes is
measured, by ``python -m bmhw.calibrate``, which maps whole networks and finds the coefficients by least squares; the
table in ``data/`` is what it wrote. Nothing here knows how a piece is built.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.network.encoder import ChannelCode, Encoder
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.layer import Folded
from bmhw.hdl.network.loading import WORD, checksum
from bmhw.hdl.network.pixels import Grid, LargestIndex, Pool, Rectifier
from bmhw.hdl.network.requantizer import ChannelScale, Requantizer
from bmhw.hdl.network.streams import Add, Fifo
from bmhw.hdl.network.tables import Form
from bmhw.hdl.neurons.element_ends import element_format
from bmhw.hdl.technology import ANY, TABLE, Memory, Technology

from .assembly import Assembly
from .kinds import EDGE

__all__ = ["COEFFICIENTS", "Estimate", "Piece", "cells_of", "coefficients", "estimate", "pieces"]

COEFFICIENTS = Path(__file__).parent / "data" / "logic_cells.json"
"""Family of devices -> name of a piece -> feature -> logic cells for each of it."""

NEURONS = ("elements", "unloading", "ends", "other")
"""Kinds of a layer's cells that are one piece: synthesis moves logic between registers of elements and queues."""


@dataclass(frozen=True)
class Piece:
    """Of the part ``part`` what is of some ``kinds`` (:data:`~bmhw.chip.kinds.KINDS`).

    ``name``: of pieces with the same coefficients; ``features``: name -> how much.
    """

    part: str
    kinds: tuple[str, ...]
    name: str
    features: Mapping[str, float]


Coefficients = Mapping[str, Mapping[str, float]]
"""Of one family."""


@cache
def coefficients() -> dict[str, Coefficients]:
    return json.loads(COEFFICIENTS.read_text())["coefficients"]


def cells_of(coefficients: Coefficients, piece: Piece) -> float:
    """Logic cells of a piece; of one that no network had from which the coefficients come, a cell for each."""
    each = coefficients.get(piece.name)
    return sum((1.0 if each is None else each[name]) * number for name, number in piece.features.items())


@dataclass(frozen=True)
class Estimate:
    """Logic cells: ``parts``: of each part of a chip; ``memories``: what is in no block RAM, of all of them."""

    parts: Mapping[str, float]
    memories: float


def estimate(family: str, assembly: Assembly) -> Estimate:
    parts: Counter[str] = Counter()
    memories = 0.0
    for piece in pieces(assembly):
        parts[piece.part] += cells_of(coefficients()[family], piece)
        stored = {name: number for name, number in piece.features.items() if name == "memories"}
        memories += cells_of(coefficients()[family], dataclasses.replace(piece, features=stored))
    return Estimate(parts, memories)


def pieces(assembly: Assembly) -> Iterator[Piece]:
    """Of all parts of a chip, its edge included."""
    for piece in _pieces(assembly):
        if assembly.writable and "constants" in piece.features:  # these are memories
            piece = dataclasses.replace(piece, features={**piece.features, "constants": 0})
        yield piece
    if assembly.writable:
        yield from _loading(assembly)


def _pieces(assembly: Assembly) -> Iterator[Piece]:
    channels, height, width = assembly.network.architecture.image.shape
    yield Piece(EDGE, ("other",), "edge", {"each": 1, "counters": _bits(height * width) + _bits(channels)})
    for part, (kind, parameters) in assembly.blocks.items():
        technology = assembly.technology(part)
        if kind is FoldedLayer:
            yield from _layer(part, parameters["folded"])
        elif kind is Encoder:
            yield Piece(part, ("codes",), *_log_codes(parameters["width"], parameters["channels"],
                                                   signed=not parameters["relu"], form=parameters.get("form")))
        elif kind is Requantizer:
            yield Piece(part, ("codes",), *_scaled_codes(parameters["width"], parameters["to"].channels,
                                                      parameters.get("form")))
        elif kind is Fifo:
            memory = Memory(parameters["depth"], parameters["width"])
            yield Piece(part, ("shortcuts",), "queue", _queue(technology, memory))
        elif kind is Add:
            bits = parameters["width"]
            yield Piece(part, ("shortcuts",), "sum", {"bits": bits, "choices": bits * sum(
                len(set(of)) - 1 for of in zip(*parameters["shifts"], strict=True))})
        else:
            yield Piece(part, ("other",), *_other(kind, parameters, technology))
    readers = Counter((wire.part, wire.port) for wire in assembly.sources.values())
    for (part, _), count in readers.items():
        if count > 1:
            yield Piece(f"{part or 'image'}_fork", ("shortcuts",), "fork", {"readers": count})


def _loading(assembly: Assembly) -> Iterator[Piece]:
    """What writes memories, which no network had from which coefficients come: a look-up table for each feature; and
    the tables of constants, which are memories then."""
    sections = [table.memory for table in assembly.loads.values()]
    technology = next((assembly.technology(part) for part, _ in assembly.loads), ANY)
    deepest, widest = max(memory.words for memory in sections), max(memory.bits for memory in sections)
    yield Piece("loader", ("other",), "loader", {
        "checksum": _checksum_tables(), "memories": 2 * len(sections),
        "counters": 3 * (_bits(len(sections)) + _bits(deepest)),
        "constants": (WORD + len(sections) * (_bits(deepest) + 1)) / TABLE,
        "registers": 0 if technology.lone_registers else WORD + widest + len(sections)})
    tables: Counter[str] = Counter()
    for (part, name), table in assembly.loads.items():
        if name != "weights":
            tables[part] += _memory(assembly.technology(part), table.memory)
    for part, luts in tables.items():
        yield Piece(part, (), "tables", {"memories": luts})


def _checksum_tables() -> int:
    """Look-up tables of four inputs of a word's step of the checksum: each bit is a sum of bits of the word and of as
    many of the checksum before it, which begin anew with an image."""
    of_each = [checksum([1 << bit]) ^ checksum([0]) for bit in range(WORD)]
    terms = [2 * sum(of >> bit & 1 for of in of_each) for bit in range(WORD)]
    return WORD + sum(-(-(count - 1) // 3) for count in terms)


def _layer(part: str, folded: Folded) -> Iterator[Piece]:
    shape, fmt, memories = folded.shape, folded.format, folded.memories
    technology, parallel = folded.technology, shape.parallel
    neurons = {"counters": _bits(shape.places) + _bits(shape.groups) + _bits(shape.outputs) + _bits(
        shape.folds) + 2 * _bits(folded.results), "constants": shape.outputs * fmt.bias_bits / TABLE,
        "memories": sum(_memory(technology, memory) for name, memory in memories.items()
                        if name.startswith("sums") or name == "gathered")}
    if isinstance(fmt, BmFormat):
        shown = len(element_format(fmt).shown)
        sums = 1 if fmt.layout in ONE_SUM else shown
        yield Piece(part, NEURONS, "BM neurons", {
            **neurons, "maxima": parallel * shown * fmt.maximum_bits,
            "comparisons": parallel * sums * fmt.log_bits * fmt.maximum_bits,
            "exponentials": shape.ends * (1 if shape.passes > 1 else shown) * fmt.y.bits * 2**fmt.maximum_bits / TABLE})
    else:
        accumulator = element_format(fmt, folded.flush).y.bits
        yield Piece(part, NEURONS, "MAC neurons", {
            **neurons, "products": parallel * fmt.bits * folded.weight_bits, "accumulators": parallel * accumulator})
    loops = (*(count for count, _ in shape.loops.values()), shape.pitch)
    window = memories["window"]
    yield Piece(part, ("windows",), "windows", {
        "each": 1, "addresses": _bits(window.words), "counters": sum(map(_bits, loops)),
        "wraps": _bits(window.words) * bool(window.words & (window.words - 1)),
        "outside": shape.padding * sum(shape.kernel), "memories": _memory(technology, window)})
    yield Piece(part, ("weights",), "weights", {
        "counters": _bits(memories["weights"].words), "memories": _memory(technology, memories["weights"])})
    yield Piece(part, ("results",), "queue", _queue(technology, memories["results"]))
    if folded.codes:
        yield Piece(part, ("codes",), *_log_codes(fmt.y.bits, folded.codes, signed=False, form=folded.form))
    elif folded.requantized is not None:
        yield Piece(part, ("codes",), *_scaled_codes(fmt.y.bits, folded.requantized.channels, folded.form))


def _log_codes(width: int, channels: Sequence[ChannelCode], *, signed: bool,
               form: Form | None) -> tuple[str, dict[str, float]]:
    steps = max(channel.end.log2.bits << channel.end.log.fraction for channel in channels)
    return "log codes", {**_shifted(width, channels, form), "steps": steps, "signs": width * signed}


def _scaled_codes(width: int, channels: Sequence[ChannelScale],
                  form: Form | None) -> tuple[str, dict[str, float]]:
    multipliers = {channel.multiplier for channel in channels}
    bits = max(multipliers).bit_length() if multipliers != {1} else 0
    found = _shifted(width, channels, form)
    return "scaled codes", {**found, "products": width * bits,
                            "constants": found["constants"] + bits * len(channels) / TABLE}


def _shifted(width: int, channels: Sequence[ChannelCode] | Sequence[ChannelScale],
             form: Form | None) -> dict[str, float]:
    """Numbers that each channel has its own threshold and shift for, in tables; of a form any shift in its range."""
    thresholds = {(channel.threshold, channel.negative) for channel in channels}
    shifts = len({channel.shift for channel in channels}) - 1
    if form is not None:
        shifts = sum(span.high - span.low for name, span in form.spans if name in ("shift", "seen"))
    table = (width * (len(thresholds) > 1) + shifts) * len(channels)
    return {"bits": width, "choices": width * shifts, "constants": table / TABLE}


def _other(kind: type, parameters: Mapping[str, Any], technology: Technology) -> tuple[str, dict[str, float]]:
    if kind is Pool:
        memory = Memory(parameters["width"] // parameters["kernel"][1] * parameters["channels"],
                        parameters["out_bits"])
        return "pool", {"bits": parameters["out_bits"], "counters": _bits(parameters["height"]) + _bits(
            parameters["width"]) + _bits(parameters["channels"]), "memories": _memory(technology, memory)}
    if kind is Grid:
        return "grid", {"bits": parameters["bits"], "counters": sum(
            _bits(parameters[name]) for name in ("height", "width", "channels"))}
    if kind is Rectifier:
        table = len(set(parameters["channels"])) > 1
        return "rectifier", {"bits": parameters["width"],
                             "constants": table * parameters["width"] * len(parameters["channels"]) / TABLE}
    if kind is LargestIndex:
        return "largest", {"bits": parameters["width"],
                           "choices": parameters["width"] * (len(set(parameters["shifts"])) - 1)}
    raise ValueError(f"No estimate for {kind.__name__}")


def _queue(technology: Technology, memory: Memory) -> dict[str, float]:
    return {"counters": _bits(memory.words), "bits": memory.bits, "memories": _memory(technology, memory)}


def _memory(technology: Technology, memory: Memory | None) -> int:
    """Look-up tables of what is in no block RAM; of memories that aren't cut for a device yet nothing."""
    return 0 if memory is None or not technology.shapes else technology.luts(memory)


def _bits(count: int) -> int:
    """Of a counter of 0..count - 1."""
    return (count - 1).bit_length()
