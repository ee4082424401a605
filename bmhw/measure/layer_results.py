# SPDX-License-Identifier: Apache-2.0
"""Measured layers as one result: what was compared and how, the rows, the totals."""

import datetime
from collections.abc import Sequence
from typing import Any

from bmhw.flow.liberty import Library
from bmhw.flow.scripts import ABC_GATES, ABC_SIZING, GATES

from .layers import CLAIM, FLAT_INPUTS, SCRIPTS, LayerMeasurement, totals
from .networks import Network
from .neurons import tools
from .selection import MARGIN

__all__ = ["layers_result"]

_METHOD = {
    "boundary": "from activation code to the next layer's activation code (output code), or to the linear result "
                "that a residual sum, a pool or the choice of the class takes (output linear: no requantisation, no "
                "log2); what lies between a linear result and the next code is part of neither",
    "gates": f"mapped to NOT, {', '.join(GATES)}, each counted once; one output's, and those of a layer with all "
             "its outputs in parallel",
    "depth": "gates on the longest path; total: the paths of all layers one behind the other",
    "mapping": f"flat up to {FLAT_INPUTS} inputs, above block by block with the critical path across all blocks",
    "ratio": "MAC / BM for gates and area, BM / MAC for depth and delay",
}
_CHOICES = {
    "shipped": "the best one at the nearest shape in bmhw/measure/data/architectures.json; a MAC neuron of any other "
               f"shape is the best of all within {MARGIN:.0%} of that (of two above {FLAT_INPUTS} inputs), a BM neuron "
               "has one try; --explore tries all",
    "explored": f"MAC: the best of all at {FLAT_INPUTS} inputs or fewer, of the best there at the layer's own; BM: the "
                "best of several from bmhw/measure/data/architectures.json",
}


def layers_result(command: str, network: Network, measurement: LayerMeasurement,
                  rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON value of measured ``rows`` (:meth:`~bmhw.measure.layers.LayerMeasurement.measure`).

    ``method`` has in ``choice`` how the architectures were chosen, ``shipped`` or ``explored``, and in
    ``architectures`` the same in words.
    """
    neurons, library = measurement.neurons, measurement.library
    scripts = SCRIPTS[neurons.objective]
    choice = "explored" if measurement.explore else "shipped"
    cells = _cell_method(library, scripts) if library else {}
    total = totals(rows)
    result: dict[str, Any] = {
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "network": network.name, "formats": "options" if network.formats is None else "card",
        "mac_bits": neurons.mac_bits, "mac_weight_bits": neurons.mac_weight_bits,
        "bm_bits": neurons.bm_bits, "log_bits": neurons.log_bits, "log_fraction": neurons.log_fraction,
        "branches": neurons.branches, "objective": neurons.objective, "requantize": neurons.requantize,
        "sums": neurons.sums, "maximum_bits": neurons.maximum_bits,
        "linear_maximum_bits": neurons.linear_maximum_bits, "combine": neurons.combine, "groups": neurons.groups,
        "zero": neurons.zero,
        "layers": rows,
        "total": total and {**total, "by_output": {
            output: totals(row for row in rows if row["output"] == output) for output in ("code", "linear")}},
        "claim": CLAIM,
        "method": {**_METHOD, "choice": choice, "architectures": _CHOICES[choice],
                   "abc_scripts": {script: ABC_GATES[script] for script in scripts}, **cells},
        "tools": tools(measurement.mapper.engine, measurement.yosys),
    }
    if library:
        result["liberty"] = library.describe(whole_paths=False)
    return result


def _cell_method(library: Library, scripts: Sequence[str]) -> dict[str, Any]:
    """How a library's cells are chosen: by size only where it knows delays."""
    chosen = {"abc_liberty_scripts": {script: library.scripts[script] for script in scripts}}
    sizing = f"of cells, block by block too: once in the joined netlist, by {ABC_SIZING}"
    return {**chosen, "sizing": sizing} if library.timed else chosen
