# SPDX-License-Identifier: Apache-2.0
"""What a neuron costs in hardware, against what its trained network classifies right."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bmhw.errors import RunError, TimeLimitError, UsageError
from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import in_parallel
from bmhw.models.files.cards import card_paths, entry
from bmhw.models.files.store import read_card

from .frontier import unbeaten
from .layers import LayerMeasurement, Neurons
from .networks import Layer

__all__ = ["FIGURES", "OUTPUTS", "measure", "networks", "neurons_of", "on_frontier"]

OUTPUTS = ("code", "linear")
FIGURES = ("gates", "depth")


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
        groups=chosen.get("groups", 1), zero=chosen.get("zero"))


def on_frontier(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether no other row is at least as good in accuracy, gates and depth and better in one of them."""
    return unbeaten([(-row["accuracy"], *(row["code"][name] for name in FIGURES)) for row in rows])


def networks(
    folders: Sequence[Path], dataset: str, architecture: str
) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """(what ``cards.entry`` says, training settings) of each network of that kind; UsageError where there is none."""
    found = [(entry(path), read_card(path)["training"]) for path in card_paths(folders)]
    kinds = sorted({(row["data"], row["architecture"]) for row, _ in found})
    if (dataset, architecture) not in kinds:
        raise UsageError(f"--dataset and --architecture must be one of {', '.join(map(' '.join, kinds))}, "
                         f"not {dataset} {architecture}")
    return [pair for pair in found if (pair[0]["data"], pair[0]["architecture"]) == (dataset, architecture)]


def measure(
    found: Sequence[tuple[dict[str, Any], Mapping[str, Any]]], inputs: int, objective: str, requantize: str,
    engine: Engine, cache: Cache, jobs: int, report: Callable[[float], None] = lambda share: None,
) -> tuple[list[dict[str, Any]], str]:
    """A row for each network of :func:`networks`, the most accurate first, and Yosys's version.

    One neuron of ``inputs`` inputs a network, for each of :data:`OUTPUTS`; ``report`` hears of each share of the work
    that is done. RunError where a neuron takes longer than the engine's time limit.
    """
    mapper = BlockMapper(engine, cache)
    time_limit = engine.time_limit
    layers = [Layer(name=output, kernel=1, inputs=inputs, outputs=1, stride=1, nonnegative=True, output=output)
              for output in OUTPUTS]
    kinds = [(neurons_of(training, objective, requantize), _neuron(training)) for _, training in found]
    measurements = {kind: LayerMeasurement(kind[0], mapper, cache, None, time_limit) for kind in kinds}

    def one(kind: tuple[Neurons, str], layer: Layer) -> dict[str, Any]:
        try:
            return measurements[kind].neuron(layer, kind[1])
        except TimeLimitError:
            names = [network["name"] for (network, _), other in zip(found, kinds, strict=True) if other == kind]
            raise RunError(f"The neuron of {names[0]} was not synthesised within {time_limit:g} s; --time-limit gives "
                           "it longer") from None
        finally:
            report(1 / len(work))

    work = list(itertools.product(measurements, layers))
    done = in_parallel(engine, [partial(one, *item) for item in work], jobs)
    figures = {(kind, layer.name): result for (kind, layer), result in zip(work, done, strict=True)}
    version = next(measurement.yosys for measurement in measurements.values())
    rows = [_row(network, training, {output: figures[kind, output] for output in OUTPUTS})
            for (network, training), kind in zip(found, kinds, strict=True)]
    rows.sort(key=lambda row: (-row["accuracy"], row["code"]["gates"]))
    for row, best in zip(rows, on_frontier(rows), strict=True):
        row["on_frontier"] = best
    return rows, version


def _neuron(training: Mapping[str, Any]) -> str:
    return "mac" if training["layout"] == "mac" else "bm"


def _row(
    network: Mapping[str, Any], training: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    layout = None if training["layout"] == "mac" else measured["code"]["design"]["layout"]
    return {"name": network["name"], "accuracy": network["bm_integer_accuracy"], "neuron": _neuron(training),
            "layout": layout,
            **{key: network[key]
               for key in ("bits", "log_fraction", "mac_weight_bits", "maximum_bits", "sums", "ends")},
            **{output: {key: figures[key] for key in (*FIGURES, "architecture", "script")}
               for output, figures in measured.items()}}
