# SPDX-License-Identifier: Apache-2.0
"""Chips whose weights can be written: their images, and which other networks fit them.

A chip is that of its first network: shapes, widths and exponents are this one's (:func:`opened`). Another network fits
if it has the same architecture and formats and every constant has room (:func:`with_network`): its assembly is the same
hardware with other words in its memories, which are its image (:func:`image_of`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from bmhw.errors import UsageError
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.network.encoder import Encoder
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.layer import Folded
from bmhw.hdl.network.loading import LoadLayout, Section
from bmhw.hdl.network.tables import OutOfSpanError, Table
from bmhw.models.integer.fixed_point import FixedPoint
from bmhw.models.integer.network import IntegerNetwork

from .assembly import Assembly
from .parts import assemble

__all__ = ["complemented", "description", "image_of", "layout_of", "loads_of", "opened", "structure_of", "turned",
           "with_network"]

Parameters = dict[str, Any]
"""Of a block."""


def opened(assembly: Assembly) -> Assembly:
    """The same network in a chip whose weights can be written."""
    blocks = {}
    for name, (kind, parameters) in assembly.blocks.items():
        if kind is FoldedLayer:
            folded = parameters["folded"]
            parameters = {**parameters, "folded": dataclasses.replace(folded, form=folded.open_form())}
        elif hasattr(kind, "open_form"):
            parameters = {**parameters, "form": kind(**parameters).open_form()}
        blocks[name] = kind, parameters
    return dataclasses.replace(assembly, blocks=blocks, writable=True)


def loads_of(assembly: Assembly) -> dict[str, Table]:
    """What the memories hold that can be written, ``PART.NAME`` of each, in the order of an image."""
    return {f"{part}.{name}": table for (part, name), table in assembly.loads.items()}


def layout_of(assembly: Assembly) -> LoadLayout:
    """What is where in the chip's images. Their header is a digest of all that a chip for them is but its words."""
    memories = tuple((name, table.memory) for name, table in loads_of(assembly).items())
    text = json.dumps([structure_of(assembly), [(name, of.words, of.bits) for name, of in memories]], default=str)
    return LoadLayout(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16), memories)


def image_of(assembly: Assembly) -> tuple[int, ...]:
    """The words of 32 bits of the image with the assembly's network."""
    return layout_of(assembly).image(loads_of(assembly))


def complemented(assembly: Assembly) -> dict[str, Table]:
    """The same tables with every bit of every word turned over."""
    return {name: Table(table.width, tuple(~word & ((1 << table.width) - 1) for word in table.words))
            for name, table in loads_of(assembly).items()}


def turned(network: IntegerNetwork) -> IntegerNetwork:
    """A network that fits the same chip and has each class where another one was: the neurons of its last layer in
    turn, among those of one exponent, so that benches see which weights are there."""
    node = network.architecture.nodes[-1]
    if not node.is_layer:
        return network
    layer = network.layers[node.name]
    order = np.arange(layer.channels)
    for exponent in np.unique(layer.exponent):
        same = np.flatnonzero(layer.exponent == exponent)
        order[same] = np.roll(same, 1)
    scale, fine = layer.rescale, layer.fine
    changed = dataclasses.replace(
        layer, weights={port: codes[order] for port, codes in layer.weights.items()},
        biases={port: values[order] for port, values in layer.biases.items()},
        rescale=scale and FixedPoint(scale.multiplier[order], scale.shift[order]),
        fine=None if fine is None else fine[order])
    return dataclasses.replace(network, layers={**network.layers, node.name: changed})


def description(assembly: Assembly) -> dict[str, Any]:
    """Of the chip's images, as JSON values."""
    layout = layout_of(assembly)
    return {
        "chip": f"{layout.chip:08x}", "length_words": layout.length, "word_bits": 32, "byte_order": "little",
        "checksum": "CRC-32/ISO-HDLC (zlib.crc32) of the bytes of all words before it, in the last word",
        "sections": [_section(section) for section in layout.sections], "structure": structure_of(assembly),
    }


def _section(section: Section) -> dict[str, Any]:
    return {"memory": section.name, "first_word": section.first, "words": section.memory.words,
            "bits": section.memory.bits, "image_words_each": section.parts}


# -- what can't be written


def structure_of(assembly: Assembly) -> dict[str, Any]:
    """All of a chip but the words of its memories, by part, as JSON values."""
    return {name: {"kind": kind.__name__, **dict(_told(kind, parameters))}
            for name, (kind, parameters) in sorted(assembly.blocks.items())}


def _told(kind: type[Block], parameters: Parameters) -> Iterator[tuple[str, Any]]:
    """What a part's hardware is made from, but for its constants: names and values."""
    form = parameters.get("form")
    if kind is FoldedLayer:
        folded: Folded = parameters["folded"]
        form = folded.form
        yield "shape", dataclasses.asdict(folded.shape)
        yield "format", dataclasses.asdict(folded.format)
        yield "border", folded.border
        yield "results", folded.results
        yield "rows", folded.rows
        yield "code", str(folded.requantized and (folded.requantized.code, folded.requantized.relu,
                                                  folded.requantized.saturates))
    for name, value in parameters.items():
        if name not in ("folded", "form", "technology", "to") and (name, type(value)) != ("channels", tuple):
            yield name, value if isinstance(value, (int, str, tuple)) else str(value)
        elif name == "to":
            yield "code", str((value.code, value.relu, value.saturates))
    if form is not None:
        yield "form", {name: [span.low, span.high] for name, span in form.spans}


# -- another network


def with_network(chip: Assembly, other: IntegerNetwork) -> Assembly:
    """The same chip with another network in its memories; UsageError with what is different about that or has no room.
    """
    first = chip.network
    _check_network(first, other)
    found = assemble(other, chip.folding, like=chip)
    refusal = _Refusal(first.name, other.name, "network")
    refusal.unless_equal("parts", sorted(chip.blocks), sorted(found.blocks))
    blocks = {name: (kind, _filled(kind, parameters, found.blocks[name][1], refusal.of(name)))
              for name, (kind, parameters) in chip.blocks.items()}
    result = dataclasses.replace(chip, network=other, blocks=blocks, shown=found.shown)
    for name, (kind, parameters) in blocks.items():
        try:
            kind(**parameters)
        except OutOfSpanError as error:
            refusal.of(name)(f"{error.name} of channel {error.index}", error.value, str(error.span))
    return result


class _Refusal:
    """Raises UsageErrors of a network that doesn't fit a chip."""

    def __init__(self, first: str, other: str, part: str = ""):
        self.first, self.other, self.part = first, other, part

    def of(self, part: str) -> "_Refusal":
        return _Refusal(self.first, self.other, part)

    def __call__(self, what: str, found: Any, valid: Any) -> None:
        raise UsageError(f"Network {self.other} does not fit the chip of {self.first}: {self.part}: {what} must be "
                         f"{valid}, not {found}")

    def unless_equal(self, what: str, first: Any, found: Any) -> None:
        if first != found:
            self(what, found, first)

    def unless_room(self, what: str, first: int, found: int) -> None:
        if found > first:
            self(what, found, f"at most {first}")


def _check_network(first: IntegerNetwork, other: IntegerNetwork) -> None:
    """That the two have the same architecture and formats."""
    refusal = _Refusal(first.name, other.name, "architecture")
    ours, theirs = first.architecture, other.architecture
    refusal.unless_equal("nodes", [node.name for node in ours.nodes], [node.name for node in theirs.nodes])
    for node, found in zip(ours.nodes, theirs.nodes, strict=True):
        for field in dataclasses.fields(node):
            if field.name not in ("border", "bias"):  # constants, compared as such
                refusal.of(node.name).unless_equal(field.name, getattr(node, field.name), getattr(found, field.name))
    for name, layer in first.layers.items():
        of, fmt, found = refusal.of(name), layer.format, other.layers[name].format
        of.unless_equal("neuron", type(fmt).__name__, type(found).__name__)
        for field in dataclasses.fields(fmt):
            # compared as widths of the hardware, and as constants of each channel
            if field.name not in ("bias_bits", "requantize_shift", "offset"):
                of.unless_equal(field.name, getattr(fmt, field.name), getattr(found, field.name))
    refusal = refusal.of("encoders")
    refusal.unless_equal("nodes", sorted(first.encoders), sorted(other.encoders))


_WIDTHS = ("width", "out_width", "bits", "out_bits")
"""Parameters of blocks that may be larger than a network needs; of :class:`Add`, ``widths`` are two of them."""


def _filled(kind: type[Block], parameters: Parameters, other: Parameters, refuse: _Refusal) -> Parameters:
    """The parameters of a part with another network's constants."""
    result = dict(parameters)
    if "folded" in parameters:
        return {**result, "folded": _filled_layer(parameters["folded"], other["folded"], refuse)}
    for name, value in parameters.items():
        if name == "to":
            _check_requantization(value, other[name], refuse)
            result[name] = dataclasses.replace(value, channels=other[name].channels)
        elif name == "channels" and isinstance(value, tuple):
            if kind is Encoder:
                ends = [{(c.end.log, c.end.method) for c in channels} for channels in (value, other[name])]
                refuse.unless_equal("log code", *ends)
            result[name] = other[name]
        elif name in ("form", "technology"):
            continue
        elif name == "widths":
            for number, (room, found) in enumerate(zip(value, other[name], strict=True)):
                refuse.unless_room(f"bits of input {number}", room, found)
        elif name in _WIDTHS:
            refuse.unless_room(_WORDS.get(name, name), value, other[name])
        else:
            refuse.unless_equal(_WORDS.get(name, name), value, other[name])
    return result


_WORDS = {"width": "bits of a number", "bits": "bits of a number", "out_width": "bits of a result",
          "out_bits": "bits of a result", "shifts": "exponents, as shifts of each channel,"}
"""What parameters are called in a refusal."""


def _filled_layer(folded: Folded, other: Folded, refuse: _Refusal) -> Folded:
    refuse.unless_equal("shape", folded.shape, other.shape)
    refuse.unless_equal("border codes", folded.border, other.border)
    refuse.unless_room("bits of a sum", folded.format.y.bits, other.format.y.bits)
    if isinstance(folded.format, MacFormat):
        refuse.unless_room("bits of an accumulator", folded.element.format.y.bits, other.element.format.y.bits)
    if isinstance(folded.format, BmFormat):
        same = dataclasses.replace(other.format, bias_bits=folded.format.bias_bits)
        refuse.unless_equal("format", folded.format, same)
    requantized = folded.requantized
    refuse.unless_equal("whether sums are scaled", requantized is None, other.requantized is None)
    if requantized is not None:
        _check_requantization(requantized, other.requantized, refuse)
        requantized = dataclasses.replace(requantized, channels=other.requantized.channels)
    return dataclasses.replace(folded, weights=other.weights, biases=other.biases, codes=other.codes,
                               requantized=requantized)


def _check_requantization(first: Any, other: Any, refuse: _Refusal) -> None:
    refuse.unless_equal("whether numbers are rectified", first.relu, other.relu)
    refuse.unless_equal("whether numbers saturate", first.saturates, other.saturates)
    if first.saturates:
        refuse.unless_equal("code", first.code, other.code)
    refuse.unless_room("bits of a result", first.code.bits, other.code.bits)
