# SPDX-License-Identifier: Apache-2.0
"""The best known architecture for a neuron, from measurements that ship with the package.

The table ``data/architectures.json`` is written by ``python -m bmhw.explore``; nothing here knows an architecture by
name.
"""

import json
import math
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Any

from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.log_ends import LOG_ENDS

__all__ = ["AUTO", "MAC_MULTIPLIERS", "SCRIPT_OF", "choose", "cost", "ranking", "rows", "shape"]

AUTO = "auto"
# objective -> the objective whose mapping script gives its figures
SCRIPT_OF = {"area": "area", "balanced": "area", "delay": "delay"}

# Those of a MAC neuron that can win: a linear array is as deep as there are inputs.
MAC_MULTIPLIERS = tuple(name for name, (_, compression) in MULTIPLIERS.items() if compression != "linear")


def cost(objective: str, row: dict[str, Any]) -> tuple[float, float]:
    """What an objective minimises, and what decides between equals: smaller is better."""
    gates, depth = row["gates"], row["depth"]
    return {"area": (gates, depth), "delay": (depth, gates), "balanced": (gates * depth, gates)}[objective]


def shape(fmt: MacFormat | BmFormat) -> dict[str, Any]:
    """What of a format decides which architecture is best: the codes' width, the maxima's, the fan-in, the end."""
    if isinstance(fmt, MacFormat):
        return {"neuron": "mac", "layout": None, "bits": fmt.bits, "maximum_bits": None, "inputs": fmt.inputs,
                "combine": None}
    # the bipolar layout has the relu layout's maxima, twice
    return {"neuron": "bm", "layout": "relu" if fmt.layout == "bipolar" else fmt.layout,
            "bits": fmt.log_bits, "maximum_bits": fmt.maximum_bits, "inputs": fmt.inputs, "combine": fmt.combine}


@cache
def rows() -> tuple[dict[str, Any], ...]:
    """The measurements: one row for each shape, architecture and script."""
    return tuple(json.loads(resources.files("bmhw.measure").joinpath("data/architectures.json").read_text())["rows"])


def ranking(fmt: MacFormat | BmFormat, objective: str, given: dict[str, str] | None = None,
            scripts: Collection[str] = ()) -> list[dict[str, str]]:
    """Architectures (``adder`` and ``multiplier``, or ``maximum`` and ``end``), the best at the nearest measured
    shape first; of BM neurons with the same end, linear or logarithmic, if there is one.

    ``given``: what the user chose already; only those with it. ``scripts``: whose figures count (default: the
    objective's own); an architecture stands where the best of them puts it.
    """
    given, wanted = given or {}, shape(fmt)
    fitting = [row for row in rows()
               if row["neuron"] == wanted["neuron"] and row["layout"] == wanted["layout"]
               and row["script"] in (scripts or (SCRIPT_OF[objective],))
               and all(row["architecture"].get(name, value) == value for name, value in given.items())
               and ("end" not in row["architecture"]
                    or wanted["maximum_bits"] <= LOG_ENDS[row["architecture"]["end"]].most_bits)]
    fitting = [row for row in fitting if row["combine"] == wanted["combine"]] or fitting
    measures = [name for name in ("bits", "maximum_bits", "inputs") if wanted[name] is not None]

    def distance(row: dict[str, Any]) -> float:
        return sum(abs(math.log2(row[name] / wanted[name])) for name in measures)

    nearest = min(map(distance, fitting), default=0.0)
    ranked = sorted((row for row in fitting if distance(row) == nearest), key=lambda row: cost(objective, row))
    chosen = [row["architecture"] | given for row in ranked]
    return list({tuple(architecture.items()): architecture for architecture in chosen}.values())


def choose(fmt: MacFormat | BmFormat, objective: str, given: dict[str, str] | None = None) -> dict[str, str]:
    """The best of :func:`ranking`; what is given alone if nothing was measured with it."""
    return next(iter(ranking(fmt, objective, given)), given or {})
