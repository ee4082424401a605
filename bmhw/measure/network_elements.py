# SPDX-License-Identifier: Apache-2.0
"""What a folded chip needs for a trained network: lookup tables of its layers' elements, and bits of its weights.

A folded design gives each layer elements in proportion to its multiply-accumulates, so that all layers take as long: a
network's figure is the mean of its layers' elements, weighted by their work. Each element is the cheapest known one of
its layer's own format, with its share of the ends: every layer's results become activation codes once. What turns the
image into codes and what adds residual sums is part of neither kind of network's figures.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import in_parallel
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.files.store import read_formats

from .element_cells import CHIPS, SharedElement, count_block
from .generation import block_verilog

__all__ = [
    "COUNTED", "ElementLuts", "NetworkLayer", "elements_of", "layer_prices", "network_figures", "network_layers",
]

COUNTED = ("ice40-hx8k", "ecp5-25k")
"""The chips whose lookup tables are counted; neither DSP blocks nor block RAM are used."""

FLUSHES = (16, 32)
"""After how many products a MAC's accumulator may be added to its neuron's sum. Each halving saves a bit of the
accumulator and of its copy, two to four tables, and doubles the share of the sum, which is one to two at 16."""
MOST_PLAIN = 64
"""Fan-in up to which an accumulator of all products is tried as well: a longer sum is cheaper flushed, as each doubling
costs a bit of the accumulator and of its copy, and the shared sum less than one table an element."""

_ADDER, _MULTIPLIER = "operator", "booth"  # of the ends, with the fewest tables on both chips


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of a trained network: ``format`` as its card has it; ``work``: multiply-accumulates an image."""

    name: str
    format: MacFormat | BmFormat
    outputs: int
    work: int

    @property
    def neuron(self) -> str:
        return "mac" if isinstance(self.format, MacFormat) else "bm"

    @property
    def weights(self) -> int:
        return self.outputs * self.format.inputs


def network_layers(card: str | Path) -> tuple[NetworkLayer, ...]:
    """The layers on a card, in the order of the data; ModelError for one that can't be read."""
    _, architecture, formats = read_formats(card)
    return tuple(NetworkLayer(node.name, formats[node.name], node.channels, architecture.multiply_accumulates(node))
                 for node in architecture.layers)


def elements_of(fmt: MacFormat | BmFormat, requantize: str) -> tuple[SharedElement, ...]:
    """What may be built for a layer's neurons, from activation code to activation code: of a MAC also elements that are
    flushed. ``requantize``: of MACs, whatever the card's layer does."""
    whole = {"boundary": "layer", "result": "code", "residual_bits": 0}
    if isinstance(fmt, BmFormat):
        return (SharedElement(dataclasses.replace(fmt, **whole)),)
    shift = fmt.requantize_shift if fmt.requantize == requantize else None
    fmt = dataclasses.replace(fmt, **whole, requantize=requantize, requantize_shift=shift)
    flushes: list[int | None] = [flush for flush in FLUSHES if flush < fmt.inputs]
    return tuple(SharedElement(fmt, flush) for flush in flushes + [None] * (fmt.inputs <= MOST_PLAIN))


class ElementLuts:
    """Lookup tables of elements on the :data:`COUNTED` chips, from the cache where they are in it.

    :meth:`measure` first, then :meth:`best`. TimeLimitError where a synthesis takes too long.
    """

    def __init__(self, engine: Engine, cache: Cache):
        self.engine, self.cache = engine, cache
        self._found: dict[tuple, dict[str, int]] = {}
        self.yosys = ""
        """Version of the Yosys that mapped them, once something is measured."""

    def measure(self, elements: Iterable[SharedElement], jobs: int,
                report: Callable[[float], None] = lambda share: None) -> None:
        """Synthesise what the elements consist of, each distinct netlist once; ``report`` hears of each share of the
        work that is done, 1 together."""
        work = {(chip, block.key): block for element in dict.fromkeys(elements) for chip in COUNTED
                for block in (*self._cells(element, chip), *self._ends(element).values())}
        blocks = {key: block for (_, key), block in work.items()}

        def told(share: float, task: Callable[[], Any]) -> Any:
            try:
                return task()
            finally:
                report(share)

        generating = 0.25  # of the time
        made = in_parallel(self.engine, [
            partial(told, generating / len(blocks), partial(block_verilog, block, self.cache))
            for block in blocks.values()], jobs)
        verilog = dict(zip(blocks, made, strict=True))
        distinct = list(dict.fromkeys((chip, verilog[key]) for chip, key in work))
        counts = in_parallel(self.engine, [
            partial(told, (1 - generating) / len(distinct), partial(
                count_block, text, CHIPS[chip], self.engine, self.cache, block_ram=False))
            for chip, text in distinct], jobs)
        found = dict(zip(distinct, counts, strict=True))
        self._found |= {(chip, key): found[chip, verilog[key]].cells for chip, key in work}
        self.yosys = counts[0].yosys

    def best(self, candidates: Sequence[SharedElement], chip: str) -> dict[str, Any]:
        """The element with the fewest tables with its share of the ends: ``luts``, of them those ``of_ends``,
        ``flip_flops`` of the cell, ``architecture``, ``flush``."""
        found = []
        for element in candidates:
            share = element.share({name: self._found[chip, block.key]["luts"]
                                   for name, block in self._ends(element).items()})
            for architecture, cell in zip(CHIPS[chip].architectures[element.neuron], self._cells(element, chip),
                                          strict=True):
                count = self._found[chip, cell.key]
                found.append({"luts": count["luts"] + share, "of_ends": share, "flip_flops": count["flip_flops"],
                              "architecture": architecture, "flush": element.flush})
        return min(found, key=lambda one: (one["luts"], one["flip_flops"]))

    def _cells(self, element: SharedElement, chip: str) -> list[Block]:
        return [element.cell(architecture) for architecture in CHIPS[chip].architectures[element.neuron]]

    def _ends(self, element: SharedElement) -> dict[str, Block]:
        return element.ends(_ADDER, _MULTIPLIER)


def network_figures(layers: Sequence[NetworkLayer], luts: ElementLuts, requantize: str) -> dict[str, Any]:
    """``elements``: chip -> the mean element's ``luts``, of them those ``of_ends``, and ``flip_flops``;
    ``weight_kbit``, of 1,000 bits; ``layers``: the same of each layer."""
    whole = sum(layer.work for layer in layers)
    rows = []
    for layer in layers:
        candidates = elements_of(layer.format, requantize)
        bits = candidates[0].memory["weight_bits"]
        rows.append({
            "name": layer.name, "neuron": layer.neuron, "fan_in": layer.format.inputs,
            "groups": getattr(layer.format, "groups", 1), "share_of_work": layer.work / whole,
            "weight_bits": bits, "weight_kbit": layer.weights * bits / 1000,
            "elements": {chip: luts.best(candidates, chip) for chip in COUNTED}})
    return {
        "elements": {chip: {name: sum(row["share_of_work"] * row["elements"][chip][name] for row in rows)
                            for name in ("luts", "of_ends", "flip_flops")} for chip in COUNTED},
        "weight_kbit": sum(row["weight_kbit"] for row in rows), "layers": rows}


def as_mac(fmt: MacFormat | BmFormat, bits: int) -> MacFormat:
    """The multiply-accumulate layer in a layer's place, of codes and weights of so many bits."""
    return MacFormat(inputs=fmt.inputs, bits=bits, signed_inputs=fmt.signed_inputs, boundary="layer")


def layer_prices(layers: Sequence[NetworkLayer], luts: ElementLuts, requantize: str, bits: int) -> list[dict[str, Any]]:
    """Each layer as it is and as a MAC of ``bits``: ``price``, what the second adds to the network's mean element in
    ``luts`` on each chip, and in ``weight_kbit``. The least added on the first chip first."""
    own = network_figures(layers, luts, requantize)["layers"]
    others = [dataclasses.replace(layer, format=as_mac(layer.format, bits)) for layer in layers]
    rows = []
    for row, mac in zip(own, network_figures(others, luts, requantize)["layers"], strict=True):
        price = {chip: row["share_of_work"] * (mac["elements"][chip]["luts"] - row["elements"][chip]["luts"])
                 for chip in COUNTED}
        rows.append({**row, "as_mac": {key: mac[key] for key in ("elements", "weight_kbit")},
                     "price": {**price, "weight_kbit": mac["weight_kbit"] - row["weight_kbit"]}})
    return sorted(rows, key=lambda row: row["price"][COUNTED[0]])
