# SPDX-License-Identifier: Apache-2.0
"""The best known architecture for a neuron, from measurements that ship with the package.

The table ``data/architectures.json`` is written by ``python -m bmhw.explore``; nothing here knows an architecture by
name.
"""

import json
import math
from functools import cache
from importlib import resources
from typing import Any

from .hdl.log_ends import LOG_ENDS
from .hdl.neuron_formats import BmFormat, MacFormat

__all__ = ["AUTO", "SCRIPT_OF", "choose", "cost", "rows", "shape"]

AUTO = "auto"
# objective -> the objective whose mapping script gives its figures
SCRIPT_OF = {"area": "area", "balanced": "area", "delay": "delay"}


def cost(objective: str, row: dict[str, Any]) -> tuple[float, float]:
    """What an objective minimises, and what decides between equals: smaller is better."""
    gates, depth = row["gates"], row["depth"]
    return {"area": (gates, depth), "delay": (depth, gates), "balanced": (gates * depth, gates)}[objective]


def shape(fmt: MacFormat | BmFormat) -> dict[str, Any]:
    """What of a format decides which architecture is best."""
    if isinstance(fmt, MacFormat):
        return {"neuron": "mac", "layout": None, "bits": fmt.bits, "inputs": fmt.inputs}
    # the bipolar layout has the relu layout's maxima, twice
    return {"neuron": "bm", "layout": "signed" if fmt.layout == "signed" else "relu",
            "bits": fmt.maximum_bits, "inputs": fmt.inputs}


@cache
def rows() -> tuple[dict[str, Any], ...]:
    """The measurements: one row for each shape, architecture and script."""
    return tuple(json.loads(resources.files("bmhw").joinpath("data/architectures.json").read_text())["rows"])


def choose(fmt: MacFormat | BmFormat, objective: str, given: dict[str, str] | None = None) -> dict[str, str]:
    """The architecture that was best at the nearest measured shape: ``adder`` and ``maximum``, ``log_end`` or
    ``multiplier``.

    ``given``: what the user chose already; the best of those with it, or nothing if none was measured with it.
    """
    given, wanted = given or {}, shape(fmt)
    fitting = [row for row in rows()
               if row["neuron"] == wanted["neuron"] and row["layout"] == wanted["layout"]
               and row["script"] == SCRIPT_OF[objective]
               and all(row["architecture"].get(name, value) == value for name, value in given.items())
               and _suits(row["architecture"], wanted["bits"])]
    if not fitting:
        return given

    def distance(row: dict[str, Any]) -> float:
        return sum(abs(math.log2(row[key] / wanted[key])) for key in ("bits", "inputs"))

    nearest = min(map(distance, fitting))
    best = min((row for row in fitting if distance(row) == nearest), key=lambda row: cost(objective, row))
    return {**best["architecture"], **given}


def _suits(architecture: dict[str, str], bits: int) -> bool:
    """Whether maxima of so many bits can have this logarithmic end."""
    return "log_end" not in architecture or bits <= LOG_ENDS[architecture["log_end"]].most_bits
