# SPDX-License-Identifier: Apache-2.0
"""What trained networks cost in hardware, against what they classify right: elements, parallel neurons, weights."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bmhw.errors import RunError, TimeLimitError, UsageError
from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import in_parallel
from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.bm import BmFormat
from bmhw.models.files.cards import card_paths, entry
from bmhw.models.files.store import WEIGHTS, read_card
from bmhw.models.networks.groups import from_json

from .frontier import unbeaten
from .layers import LayerMeasurement, Neurons
from .network_elements import (
    COUNTED,
    ElementLuts,
    NetworkLayer,
    as_mac,
    elements_of,
    layer_prices,
    network_figures,
    network_layers,
)
from .networks import Layer

__all__ = [
    "FIGURES", "FRONTIERS", "KEPT_BITS", "OUTPUTS", "Trained", "card_folders", "mark_frontiers", "measure",
    "measure_layers", "named", "networks", "neurons_of", "repeated",
]

OUTPUTS = ("code", "linear")
FIGURES = ("gates", "depth")
FRONTIERS: dict[str, Callable[[Mapping[str, Any]], tuple[float, ...]]] = {
    **{chip: lambda row, chip=chip: (row["elements"][chip]["luts"],) for chip in COUNTED},
    "neuron": lambda row: tuple(row["code"][name] for name in FIGURES),
    "weights": lambda row: (row["weight_kbit"],),
}
"""Name of a frontier -> what of a row is to be small, beside a large accuracy."""

KEPT_BITS = 4
"""Width of the multiply-accumulate layers that a layer's price is asked for."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A network on a card: ``entry`` as :func:`~bmhw.models.files.cards.entry` gives it, ``training`` its settings."""

    entry: Mapping[str, Any]
    training: Mapping[str, Any]
    layers: tuple[NetworkLayer, ...]

    @property
    def name(self) -> str:
        return self.entry["name"]

    @property
    def mac_layers(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers if layer.neuron == "mac")

    @property
    def neuron(self) -> str:
        """``mac``, ``bm``, or ``mixed``: layers of both."""
        return {0: "bm", len(self.layers): "mac"}.get(len(self.mac_layers), "mixed")

    def neurons(self, inputs: int, objective: str, requantize: str) -> dict[tuple[Neurons, str], float]:
        """Its neurons of so many inputs, each with ``mac`` or ``bm``, and their shares of the multiply-accumulates:
        one, or of a mixed network the BM layers' one and those of its MAC layers' widths. Where single layers are BM,
        that of the one with the most work."""
        own = neurons_of(self.training, objective, requantize)
        if self.neuron == "mac":
            return {(own, "mac"): 1.0}
        if self.training["layout"] == "mac":
            largest = max((layer for layer in self.layers if layer.neuron == "bm"), key=lambda layer: layer.work)
            own = _neurons_of_format(largest.format, objective, requantize)
        # a layer of as many inputs tells the groups better than what was asked for
        alike = [layer.format.groups for layer in self.layers
                 if isinstance(layer.format, BmFormat) and layer.format.inputs == inputs]
        if alike:
            own = dataclasses.replace(own, groups=max(alike))
        whole, shares = sum(layer.work for layer in self.layers), dict[tuple[Neurons, str], float]()
        for layer in self.layers:
            kind = (own, "bm") if layer.neuron == "bm" else (Neurons(
                mac_bits=layer.format.bits, mac_weight_bits=layer.format.weight_bits, objective=objective,
                requantize=requantize), "mac")
            shares[kind] = shares.get(kind, 0) + layer.work / whole
        return shares


def neurons_of(training: Mapping[str, Any], objective: str, requantize: str) -> Neurons:
    """The neurons of a network that was trained with these settings (``training`` of its card); what a card of an older
    version lacks has its default. RunError for formats that ``Neurons`` can't say."""
    chosen = training["quantisation"]
    for name in ("log2", "exp2"):
        if chosen.get(name) is not None:
            raise RunError(f"Only networks with the usual {name} can be measured, not with {chosen[name]!r}")
    if training["layout"] == "mac":
        return Neurons(mac_bits=chosen["bits"], mac_weight_bits=chosen.get("mac_weight_bits"), objective=objective,
                       requantize=requantize)
    return Neurons(
        bm_bits=chosen["bits"], log_bits=chosen["log_bits"], log_fraction=chosen.get("log_fraction"),
        branches="relu" if training["layout"] == "auto" else training["layout"], objective=objective,
        sums=chosen.get("sums", "full"), maximum_bits=chosen.get("maximum_bits"),
        linear_maximum_bits=chosen.get("linear_maximum_bits"), combine=chosen.get("combine", "linear"),
        groups=from_json(chosen.get("groups", 1)), zero=chosen.get("zero"))


def _neurons_of_format(fmt: BmFormat, objective: str, requantize: str) -> Neurons:
    return Neurons(
        bm_bits=fmt.bits, log_bits=fmt.log_bits, log_fraction=fmt.log_fraction, sums=fmt.sums, combine=fmt.combine,
        branches="relu" if fmt.layout == "bipolar" else fmt.layout, maximum_bits=fmt.maximum_bits, groups=fmt.groups,
        zero=fmt.zero, objective=objective, requantize=requantize)


def mark_frontiers(rows: Sequence[dict[str, Any]]) -> None:
    """Sets ``frontiers`` of each row: name -> whether no other row is at least as accurate with at most as much of what
    :data:`FRONTIERS` says, and better in one of them."""
    for name, costs in FRONTIERS.items():
        for row, best in zip(rows, unbeaten([(-row["accuracy"], *costs(row)) for row in rows]), strict=True):
            row.setdefault("frontiers", {})[name] = best


# -- which networks


def card_folders() -> list[Path]:
    """The package's folder of networks and, in a checkout, that of the cards without weights."""
    kept = WEIGHTS.parents[1] / "docs" / "results" / "cards"
    return [WEIGHTS, kept] if kept.is_dir() else [WEIGHTS]


def networks(folders: Sequence[Path], dataset: str, architecture: str) -> list[Trained]:
    """The networks of that kind, of two with one name the first; UsageError where there is none."""
    paths: dict[str, Path] = {}
    for path in card_paths(folders):
        paths.setdefault(path.name, path)
    entries = {path: entry(path) for path in paths.values()}
    kinds = sorted({(row["data"], row["architecture"]) for row in entries.values()})
    if (dataset, architecture) not in kinds:
        raise UsageError(f"--dataset and --architecture must be one of {', '.join(map(' '.join, kinds))}, "
                         f"not {dataset} {architecture}")
    return [Trained(row, read_card(path)["training"], network_layers(path)) for path, row in entries.items()
            if (row["data"], row["architecture"]) == (dataset, architecture)]


def named(found: Sequence[Trained], name: str) -> Trained:
    """The one of that name; UsageError where there is none."""
    by_name = {network.name: network for network in found}
    if name not in by_name:
        raise UsageError(not_one_of("Network", sorted(by_name), name))
    return by_name[name]


def repeated(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Network -> ``seeds``, ``mean`` and ``standard_deviation`` of the accuracies of those that differ in the seed
    alone; nothing where PyTorch is missing, which settings of trainings need."""
    try:
        from bmhw.models.training.comparison import collect, repeats
    except ImportError:
        return {}
    return {name: {"seeds": same["seeds"], **same["integer_accuracy"]}
            for same in repeats(collect(folders)) for name in same["networks"]}


# -- measured


def measure(
    found: Sequence[Trained], inputs: int, objective: str, requantize: str, engine: Engine, cache: Cache, jobs: int,
    report: Callable[[float], None] = lambda share: None,
) -> tuple[list[dict[str, Any]], str]:
    """A row for each network, the most accurate first, and Yosys's version.

    ``elements`` and ``weight_kbit``: see :func:`~bmhw.measure.network_elements.network_figures`. ``code`` and
    ``linear``: neurons of ``inputs`` inputs for each of :data:`OUTPUTS`; of a mixed network the mean gates, weighted by
    the multiply-accumulates, and the longest path. ``report`` hears of each share of the work that is done. RunError
    where a synthesis takes longer than the engine's time limit.
    """
    kinds = [network.neurons(inputs, objective, requantize) for network in found]
    distinct = {kind: None for shares in kinds for kind in shares}
    luts = ElementLuts(engine, cache)
    _measure_elements(luts, (layer.format for network in found for layer in network.layers), requantize, jobs,
                      lambda share: report(share / 2))
    neurons = _measure_neurons(list(distinct), inputs, engine, cache, jobs, lambda share: report(share / 2))
    rows = [_row(network, network_figures(network.layers, luts, requantize), {
                output: [(share, kind[1], neurons[kind, output]) for kind, share in shares.items()]
                for output in OUTPUTS})
            for network, shares in zip(found, kinds, strict=True)]
    rows.sort(key=lambda row: (-row["accuracy"], *FRONTIERS[COUNTED[0]](row)))
    mark_frontiers(rows)
    return rows, luts.yosys


def measure_layers(network: Trained, requantize: str, engine: Engine, cache: Cache, jobs: int,
                   report: Callable[[float], None] = lambda share: None) -> tuple[list[dict[str, Any]], str]:
    """What each layer of a network costs as it is and as a MAC of :data:`KEPT_BITS`, see
    :func:`~bmhw.measure.network_elements.layer_prices`, and Yosys's version."""
    luts = ElementLuts(engine, cache)
    formats = [layer.format for layer in network.layers]
    _measure_elements(luts, (*formats, *(as_mac(fmt, KEPT_BITS) for fmt in formats)), requantize, jobs, report)
    return layer_prices(network.layers, luts, requantize, KEPT_BITS), luts.yosys


def _measure_elements(luts: ElementLuts, formats: Iterable[Any], requantize: str, jobs: int,
                      report: Callable[[float], None]) -> None:
    try:
        luts.measure([element for fmt in dict.fromkeys(formats) for element in elements_of(fmt, requantize)], jobs,
                     report)
    except TimeLimitError:
        raise RunError(f"An element was not synthesised within {luts.engine.time_limit:g} s; --time-limit gives it "
                       "longer") from None


def _measure_neurons(
    kinds: Sequence[tuple[Neurons, str]], inputs: int, engine: Engine, cache: Cache, jobs: int,
    report: Callable[[float], None],
) -> dict[tuple[tuple[Neurons, str], str], dict[str, Any]]:
    """(kind, output) -> figures."""
    mapper, time_limit = BlockMapper(engine, cache), engine.time_limit
    layers = [Layer(name=output, kernel=1, inputs=inputs, outputs=1, stride=1, nonnegative=True, output=output)
              for output in OUTPUTS]
    measurements = {kind: LayerMeasurement(kind[0], mapper, cache, None, time_limit) for kind in kinds}

    def one(kind: tuple[Neurons, str], layer: Layer) -> dict[str, Any]:
        try:
            return measurements[kind].neuron(layer, kind[1])
        except TimeLimitError:
            raise RunError(f"A {kind[1].upper()} neuron of {inputs} inputs was not synthesised within {time_limit:g} s"
                           "; --time-limit gives it longer") from None
        finally:
            report(1 / len(work))

    work = list(itertools.product(measurements, layers))
    done = in_parallel(engine, [partial(one, *item) for item in work], jobs)
    return {(kind, layer.name): result for (kind, layer), result in zip(work, done, strict=True)}


def _row(network: Trained, figures: Mapping[str, Any],
         neurons: Mapping[str, Sequence[tuple[float, str, Mapping[str, Any]]]]) -> dict[str, Any]:
    chosen, layout = network.entry, network.training["layout"]

    def of(output: str) -> dict[str, Any]:
        built = [{"neuron": which, "share_of_work": share,
                  **{key: found[key] for key in (*FIGURES, "architecture", "script")}}
                 for share, which, found in neurons[output]]
        return {"gates": round(sum(one["share_of_work"] * one["gates"] for one in built)),
                "depth": max(one["depth"] for one in built), "neurons": built}

    return {"name": network.name, "accuracy": chosen["bm_integer_accuracy"], "seeds": [chosen["seed"]],
            "neuron": network.neuron,
            "layout": {"mac": None, "auto": "relu"}.get(layout, layout),
            **{key: chosen[key] for key in ("bits", "edge_bits", "groups", "log_fraction", "mac_weight_bits",
                                            "maximum_bits", "sums", "ends")},
            "mac_layers": [] if network.neuron == "mac" else list(network.mac_layers),
            **figures, **{output: of(output) for output in OUTPUTS}}
