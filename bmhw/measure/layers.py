# SPDX-License-Identifier: Apache-2.0
"""Layers measured: the best MAC and the best BM neuron of each, from activation code to activation code.

The architectures are those that the shipped measurements choose (:func:`~bmhw.measure.selection.contenders`), or with
``explore`` the best ones of all that are tried. Layers whose neurons have the same parameters are measured once. A
layer's outputs stand beside each other: all its figures are one output's, times the number of outputs for its gates.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bmhw.errors import TimeLimitError
from bmhw.flow.blocks import BLOCK_LIMIT, FLAT, BlockMapper
from bmhw.flow.cache import Cache
from bmhw.flow.liberty import Library
from bmhw.flow.synthesis import Figures, in_parallel
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design

from .generation import generate
from .layer_formats import Neurons
from .networks import Layer
from .selection import MAC_MULTIPLIERS, Contenders, contenders, cost, ranking

__all__ = ["CLAIM", "FLAT_INPUTS", "SCRIPTS", "LayerMeasurement", "Neurons", "totals"]

FLAT_INPUTS = 64
"""Fan-in up to which a neuron is mapped as one netlist; above it block by block."""

CLAIM = {"source": "arXiv 2009.07190", "gates": [2.1, 2.9], "depth": [0.70, 0.85]}
"""What the paper estimates for most layers: MAC / BM gates, and BM / MAC latency."""

_CHOICE = {True: 0.4, False: 0.1}  # share of the work that is the choice at fewer inputs, by ``explore``

# The final adder's candidates: a ripple adder is the smallest and by far the longest.
_ADDERS = {"area": ("brent_kung", "ripple"), "balanced": ("sklansky", "brent_kung"),
           "delay": ("sklansky", "brent_kung")}
_MAC_ARCHITECTURES = 2  # the best ones at 64 inputs, or of those that are chosen, that are tried at a greater fan-in

_Kind = tuple[MacFormat, tuple[BmFormat, ...]]

SCRIPTS = {"area": ("area",), "balanced": ("area",), "delay": ("delay", "area")}
"""objective -> the scripts that a neuron is mapped with before the better result is taken: the one for delay gives some
neurons more gates on a longer path.

Blocks are mapped by the script for area alone: joined they are within 4 % of one netlist, while that for delay, which
gives up area only where one netlist is critical, is up to 15 % off (``tests/bmhw/test_layers.py`` holds 5 %)."""

_BM_ARCHITECTURES = 6  # the best ones of the table that are tried at the layer's own format and fan-in


@dataclass(frozen=True)
class _Candidate:
    """A neuron, the script that maps it, and its figures."""

    design: Design
    script: str
    figures: Figures


class LayerMeasurement:
    """Measures layers of a network, each kind of neuron once.

    Parameters: ``mapper`` and ``cache``; ``library`` adds gate equivalents and ns; ``time_limit`` in seconds for
    each kind of layer; ``explore``: try every MAC architecture and the best BM ones, instead of those that the shipped
    measurements choose.
    """

    def __init__(self, neurons: Neurons, mapper: BlockMapper, cache: Cache, library: Library | None = None,
                 time_limit: float = FLAT, explore: bool = True):
        self.neurons, self.mapper, self.cache, self.library = neurons, mapper, cache, library
        self.time_limit, self.explore = time_limit, explore
        self.yosys = ""
        """Version of the Yosys that mapped the layers, once one is mapped."""

    def measure(self, layers: Sequence[Layer], jobs: int,
                progress: Callable[[float], None] = lambda share: None) -> list[dict[str, Any]]:
        """One row of JSON values a layer; ``progress`` is told each finished share of all work, 1 together."""
        compared = [layer for layer in layers if self.neurons.bm(layer)]
        small = [_sample(layer) for layer in compared if self._needs_sample(layer)]
        choice = _CHOICE[self.explore] if small else 0
        samples = self._run(self._sampled, small, jobs, lambda share: progress(share * choice))

        def sampled(layer: Layer) -> list[_Candidate] | str:
            return samples[self._kind(_sample(layer))] if self._needs_sample(layer) else []

        pairs = self._run(lambda layer: self._pair(layer, sampled(layer)), compared, jobs,
                          lambda share: progress(share * (1 - choice)))
        return [self._row(layer, pairs.get(self._kind(layer), "multiply-accumulate in this network"))
                for layer in layers]

    def _kind(self, layer: Layer) -> _Kind:
        """What of a layer its figures depend on."""
        return self.neurons.mac(layer), tuple(self.neurons.bm(layer))

    def _run(self, task: Callable[[Layer], Any], given: Iterable[Layer], jobs: int,
             progress: Callable[[float], None]) -> dict[_Kind, Any]:
        """``task`` of each kind of layer, or in words why it took too long."""
        layers = {self._kind(layer): layer for layer in given}
        # generating and mapping take a time of their own, beside what grows with the fan-in
        work = {kind: layer.fan_in + 30 for kind, layer in layers.items()}

        def one(kind: _Kind) -> Any:
            try:
                return task(layers[kind])
            except TimeLimitError:
                return f"not synthesised within {self.time_limit:g} s"
            finally:
                progress(work[kind] / sum(work.values()))

        # the longest first: what is left for the end is short
        ordered = sorted(layers, key=lambda kind: -work[kind])
        results = in_parallel(self.mapper.engine, [partial(one, kind) for kind in ordered], jobs)
        return dict(zip(ordered, results, strict=True))

    def _needs_sample(self, layer: Layer) -> bool:
        """Whether something is tried at 64 inputs, or at a layer's own fewer ones, before the layer itself is mapped,
        since a larger fan-in is made of the same blocks: to explore, MAC architectures; else the two ends that a BM
        neuron may have, which the shipped measurements don't compare."""
        return self.explore or (layer.fan_in > FLAT_INPUTS and len(self.neurons.bm(layer)) > 1)

    def _sampled(self, layer: Layer) -> list[_Candidate]:
        deadline = self._deadline()
        if self.explore:
            return self._mac_candidates(layer, deadline)
        return self._candidates(self._bm_designs(self.neurons.bm(layer), self._scripts(layer.fan_in)), deadline)

    def _mac_candidates(self, layer: Layer, deadline: float) -> list[_Candidate]:
        """Every compression with one adder, then the best one with the other adders."""
        fmt = self.neurons.mac(layer)
        first, *others = _ADDERS[self.neurons.objective]
        found = self._candidates([Design(format=fmt, multiplier=name, adder=first) for name in MAC_MULTIPLIERS],
                                 deadline)
        best = self._best(found).design
        return found + self._candidates([dataclasses.replace(best, adder=name) for name in others], deadline)

    def neuron(self, layer: Layer, which: str) -> dict[str, Any]:
        """The best ``mac`` or ``bm`` neuron of a layer alone; TimeLimitError where it takes too long."""
        needed = self._needs_sample(layer) and self.explore == (which == "mac")
        sampled = self._sampled(_sample(layer)) if needed else []
        return (self._mac if which == "mac" else self._bm)(layer, sampled, self._deadline())

    def _pair(self, layer: Layer, sampled: list[_Candidate] | str) -> dict[str, Any] | str:
        """Both neurons of a layer, or why there are none."""
        if isinstance(sampled, str):
            return sampled
        deadline = self._deadline()
        return {"mac": self._mac(layer, sampled, deadline), "bm": self._bm(layer, sampled, deadline)}

    def _mac(self, layer: Layer, sampled: list[_Candidate], deadline: float) -> dict[str, Any]:
        scripts, fmt = self._scripts(layer.fan_in), self.neurons.mac(layer)
        if not self.explore:
            chosen = contenders(fmt, self.neurons.objective, scripts)
            tries = _MAC_ARCHITECTURES if layer.fan_in > FLAT_INPUTS else None
            tried = self._candidates([Design(format=fmt, **one) for one in chosen.architectures[:tries]], deadline)
            return self._neuron(self._best(tried), tried, deadline, chosen)
        macs, tried = sampled, [one for one in sampled if one.script in scripts]
        if tried[0].design.format != fmt:
            best = sorted(tried, key=self._cost)[:_MAC_ARCHITECTURES]
            macs = self._candidates([dataclasses.replace(one.design, format=fmt) for one in best], deadline)
            tried += macs
        return self._neuron(self._best(macs), tried, deadline)

    def _bm(self, layer: Layer, sampled: list[_Candidate], deadline: float) -> dict[str, Any]:
        scripts, formats = self._scripts(layer.fan_in), self.neurons.bm(layer)
        if self.explore:
            tried = self._candidates(self._bm_designs(formats, scripts), deadline)
            return self._neuron(self._best(tried), tried, deadline)
        smaller: list[_Candidate] = []
        if self._needs_sample(layer):
            smaller = [one for one in sampled if one.script in scripts]
            end = self._best(smaller).design.format.combine
            formats = [fmt for fmt in formats if fmt.combine == end]
        tried = self._candidates(self._bm_designs(formats, scripts), deadline)
        best = self._best(tried)
        return self._neuron(best, smaller + tried, deadline,
                            contenders(best.design.format, self.neurons.objective, scripts))

    def _bm_designs(self, formats: Iterable[BmFormat], scripts: Collection[str]) -> list[Design]:
        """The architectures that are tried of each format."""
        objective = self.neurons.objective
        return [Design(format=fmt, **architecture) for fmt in formats for architecture in (
            ranking(fmt, objective, scripts=scripts)[:_BM_ARCHITECTURES] if self.explore
            else contenders(fmt, objective, scripts).architectures)]

    def _scripts(self, inputs: int) -> tuple[str, ...]:
        scripts = SCRIPTS[self.neurons.objective]
        return scripts if inputs <= FLAT_INPUTS else tuple(script for script in scripts if script == "area")

    def _deadline(self) -> float:
        return time.monotonic() + self.time_limit

    def _candidates(self, designs: Sequence[Design], deadline: float) -> list[_Candidate]:
        """The designs, each mapped by every script that serves the objective."""
        return [_Candidate(design, script, self._map(design, script, deadline))
                for design in designs for script in self._scripts(design.format.inputs)]

    def _cost(self, candidate: _Candidate) -> tuple[float, float]:
        return cost(self.neurons.objective, {"gates": candidate.figures.gates, "depth": candidate.figures.depth})

    def _best(self, candidates: Sequence[_Candidate]) -> _Candidate:
        return min(candidates, key=self._cost)

    def _neuron(self, best: _Candidate, candidates: Sequence[_Candidate], deadline: float,
                chosen: Contenders | None = None) -> dict[str, Any]:
        """One output's figures, what was tried, and the measured shape that chose it, if one did."""
        design, script, figures = best.design, best.script, best.figures
        inputs = design.format.inputs
        values = {
            "gates": figures.gates, "gates_per_input": figures.gates / inputs, "depth": figures.depth,
            "architecture": _architecture(design), "mapping": "flat" if inputs <= FLAT_INPUTS else "blocks",
            "script": script, "design": design.to_dict(),
            "candidates": [{**_architecture(one.design), "script": one.script, "inputs": one.design.format.inputs,
                            "gates": one.figures.gates, "depth": one.figures.depth} for one in candidates],
            "chosen_from": None if chosen is None else {**chosen.measured, "exact": chosen.exact},
        }
        if self.library:
            cells = self._map(design, script, deadline, self.library)
            values["area_gate_equivalents"] = (cells.area or 0.0) / self.library.nand2_area
            if self.library.timed:
                values["delay_ns"] = cells.delay_ns
        return values

    def _map(self, design: Design, script: str, deadline: float, library: Library | None = None) -> Figures:
        generated = generate(design, self.cache)
        limit = FLAT if design.format.inputs <= FLAT_INPUTS else BLOCK_LIMIT
        figures = self.mapper.figures(generated.verilog, generated.name, objective=script, library=library,
                                      limit=limit, deadline=deadline)
        self.yosys = figures.yosys
        return figures

    def _row(self, layer: Layer, pair: dict[str, Any] | str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": layer.name, "fan_in": layer.fan_in, "kernel": layer.kernel, "inputs": layer.inputs,
            "outputs": layer.outputs, "stride": layer.stride, "layout": self.neurons.layout(layer),
            "groups": self.neurons.layer_groups(layer), "output": layer.output,
        }
        if isinstance(pair, str):
            return {**row, "mac": None, "bm": None, "ratio": None, "error": pair}
        mac, bm = (_whole_layer(pair[neuron], layer.outputs) for neuron in ("mac", "bm"))
        return {**row, "mac": mac, "bm": bm, "ratio": _ratios(mac, bm)}


def _sample(layer: Layer) -> Layer:
    """The layer, or one of 64 inputs that is like it."""
    return layer if layer.fan_in <= FLAT_INPUTS else dataclasses.replace(
        layer, kernel=1, inputs=FLAT_INPUTS, channels=FLAT_INPUTS)


def _architecture(design: Design) -> dict[str, str]:
    """What the table names: the end of a BM neuron too."""
    combine = {"combine": design.format.combine} if isinstance(design.format, BmFormat) else {}
    return {**design.architecture, **combine}


def _whole_layer(neuron: dict[str, Any], outputs: int) -> dict[str, Any]:
    """One output's figures, and those of the layer with all its outputs in parallel."""
    layer = {name: neuron[name] * outputs for name in ("gates", "area_gate_equivalents") if name in neuron}
    return {**neuron, "layer": layer}


def _ratios(mac: dict[str, Any], bm: dict[str, Any]) -> dict[str, float]:
    """MAC / BM for gates and area, BM / MAC for depth and delay."""
    ratio = {"gates": mac["gates"] / bm["gates"], "depth": bm["depth"] / mac["depth"]}
    if "area_gate_equivalents" in mac:
        ratio["area_gate_equivalents"] = mac["area_gate_equivalents"] / bm["area_gate_equivalents"]
    if "delay_ns" in mac:
        ratio["delay_ns"] = bm["delay_ns"] / mac["delay_ns"]
    return ratio


def totals(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """All measured layers together: every output of each built in parallel, their paths one behind the other."""
    measured = [row for row in rows if row["ratio"]]
    if not measured:
        return None
    total: dict[str, Any] = {"layers_measured": len(measured)}
    for neuron in ("mac", "bm"):
        total[neuron] = {name: sum(row[neuron]["layer"][name] for row in measured)
                         for name in measured[0][neuron]["layer"]}
        for name in ("depth", "delay_ns"):
            if name in measured[0][neuron]:
                total[neuron][name] = sum(row[neuron][name] for row in measured)
    return {**total, "ratio": _ratios(total["mac"], total["bm"])}
