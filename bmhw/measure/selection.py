# SPDX-License-Identifier: Apache-2.0
"""The best known architecture for a neuron, from measurements that ship with the package.

The table ``data/architectures.json`` is written by ``python -m bmhw.explore``; nothing here knows an architecture by
name.
"""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.linear_ends import refusal

__all__ = ["AUTO", "MAC_MULTIPLIERS", "MARGIN", "ONE_GROUP", "SCRIPT_OF", "Contenders", "choose", "contenders", "cost",
           "ranking", "rows", "shape"]

AUTO = "auto"
# objective -> the objective whose mapping script gives its figures
SCRIPT_OF = {"area": "area", "balanced": "area", "delay": "delay"}

# Those of a MAC neuron that can win: a linear array is as deep as there are inputs.
MAC_MULTIPLIERS = tuple(name for name, (_, compression) in MULTIPLIERS.items() if compression != "linear")

MARGIN = 0.07
"""How far the cost of two MAC architectures moves against each other between a measured shape and another one: the
largest move in the layers of ResNet20v2 is 6.8 % (Booth with a Brent-Kung adder against Sklansky's, requantised by a
shift: 5.5 % behind at 64 inputs, 1.3 % ahead at 1,152), in ``docs/results/layers-*.json``."""

# A MAC neuron with another end is as far from a measured one as one of 1.4 times the inputs.
_OTHER_RESULT = 0.5

ONE_GROUP = {"groups": 1, "zero": "step"}
"""What a row of the table leaves out: groups and zero of the paper's neuron, and of MAC neurons."""


def cost(objective: str, row: dict[str, Any]) -> tuple[float, float]:
    """What an objective minimises, and what decides between equals: smaller is better."""
    gates, depth = row["gates"], row["depth"]
    return {"area": (gates, depth), "delay": (depth, gates), "balanced": (gates * depth, gates)}[objective]


def shape(fmt: MacFormat | BmFormat) -> dict[str, Any]:
    """What of a format decides which architecture is best: the codes' width, the maxima's, the fan-in, the groups, the
    end."""
    if isinstance(fmt, MacFormat):
        # a shift is no gates but the rounding: such a neuron is built like one that stops at the sum
        return {"neuron": "mac", "layout": None, "bits": fmt.bits, "maximum_bits": None, "inputs": fmt.inputs,
                "combine": None, "result": "code" if fmt.has_scale else "linear", **ONE_GROUP}
    # the bipolar layout has the relu layout's maxima, twice
    return {"neuron": "bm", "layout": "relu" if fmt.layout == "bipolar" else fmt.layout,
            "bits": fmt.log_bits, "maximum_bits": fmt.maximum_bits, "inputs": fmt.inputs, "combine": fmt.combine,
            "result": fmt.result, "groups": fmt.groups, "zero": fmt.zero}


@cache
def rows() -> tuple[dict[str, Any], ...]:
    """The measurements: one row for each shape, architecture and script."""
    table = json.loads(resources.files("bmhw.measure").joinpath("data/architectures.json").read_text())
    return tuple({**ONE_GROUP, **row} for row in table["rows"])


def ranking(fmt: MacFormat | BmFormat, objective: str, given: dict[str, str] | None = None,
            scripts: Collection[str] = (), form: str = "parallel") -> list[dict[str, str]]:
    """Architectures (``adder`` and ``multiplier``, or ``maximum`` and ``end``), the best at the nearest measured
    shape first; of BM neurons those with one group or several as asked for, and with the same end, linear or
    logarithmic, if there is one.

    ``given``: what the user chose already; only those with it. ``scripts``: whose figures count (default: the
    objective's own); an architecture stands where the best of them puts it. ``form``: of the neuron, as not every
    architecture has every one.
    """
    given = given or {}
    chosen = [row["architecture"] | given for row in _nearest(fmt, objective, given, scripts, form)]
    return list({tuple(architecture.items()): architecture for architecture in chosen}.values())


def _nearest(fmt: MacFormat | BmFormat, objective: str, given: dict[str, str],
             scripts: Collection[str], form: str = "parallel") -> list[dict[str, Any]]:
    """The rows of the measured shape that is nearest to a format's, the best for the objective first."""
    wanted = shape(fmt)
    fitting = [row for row in rows()
               if row["neuron"] == wanted["neuron"] and row["layout"] == wanted["layout"]
               and all(row["architecture"].get(name, value) == value for name, value in given.items())
               and (wanted["neuron"] == "mac"
                    or not refusal(fmt, *map(row["architecture"].get, ("maximum", "end")), form))]
    fitting = [row for row in fitting if (row["groups"] > 1) == (wanted["groups"] > 1)] or fitting
    # groups are measured with one script, whose figures count for the others too
    fitting = [row for row in fitting if row["script"] in (scripts or (SCRIPT_OF[objective],))] or fitting
    fitting = [row for row in fitting if row["combine"] == wanted["combine"]] or fitting
    if wanted["groups"] > 1:
        fitting = [row for row in fitting if row["result"] == wanted["result"]] or fitting
    measures = [name for name in ("bits", "maximum_bits", "inputs", "groups") if wanted[name] is not None]

    def distance(row: dict[str, Any]) -> float:
        octaves = sum(abs(math.log2(row[name] / wanted[name])) for name in measures)
        return octaves + (_OTHER_RESULT if wanted["neuron"] == "mac" and row["result"] != wanted["result"] else 0)

    nearest = min(map(distance, fitting), default=0.0)
    return sorted((row for row in fitting if distance(row) == nearest), key=lambda row: cost(objective, row))


@dataclass(frozen=True)
class Contenders:
    """The architectures among which the measurements leave the choice, the best one first; ``measured``: the shape of
    :func:`shape` at which they were compared, ``exact``: whether it is the neuron's own."""

    architectures: tuple[dict[str, str], ...]
    measured: dict[str, Any]
    exact: bool


def contenders(fmt: MacFormat | BmFormat, objective: str, scripts: Collection[str] = ()) -> Contenders:
    """What has to be tried for a neuron that is to be the best for an objective; ``scripts`` as in :func:`ranking`.

    The best architecture at the nearest measured shape; where that isn't a MAC neuron's own shape, every one within
    :data:`MARGIN` of it too. A BM neuron gets no second try: what its choice misses counts against it.
    """
    nearest = _nearest(fmt, objective, {}, scripts)
    best, wanted = nearest[0], shape(fmt)
    measured = {name: best[name] for name in wanted}
    exact = measured == wanted and fmt.weight_bits == wanted["bits"] and fmt.result == wanted["result"]
    within = 1 + MARGIN if isinstance(fmt, MacFormat) and not exact else 1
    most = within * cost(objective, best)[0]
    kept = [row["architecture"] for row in nearest if row is best or (within > 1 and cost(objective, row)[0] <= most)]
    return Contenders(tuple({tuple(one.items()): one for one in kept}.values()), measured, exact)


def choose(fmt: MacFormat | BmFormat, objective: str, given: dict[str, str] | None = None,
           form: str = "parallel") -> dict[str, str]:
    """The best of :func:`ranking`; what is given alone if nothing was measured with it."""
    return next(iter(ranking(fmt, objective, given, form=form)), given or {})
