# SPDX-License-Identifier: Apache-2.0
"""A network's accuracies and each layer's errors as tables for people, from the figures that are written as JSON."""

from typing import Any

from rich.table import Table

__all__ = ["accuracy_table", "trace_table"]

TRACE_COLUMNS = {
    "layer": "layer",
    "layout": "layout",
    "groups": "groups",
    "own_error": "alone",
    "total_error": "so far",
    "saturated_inputs": "saturated",
    "clamped_activations": "x clamped",
    "clamped_weights": "w clamped",
}


def accuracy_table(figures: dict[str, Any]) -> Table:
    result = Table("network")
    result.add_column("accuracy in %", justify="right")
    log_bits, behind = (", ".join(map(str, figures[key])) for key in ("log_bits", "log_fraction"))
    seen = ", ".join(map(str, figures["maximum_bits"]))
    as_trained = all(figures[key] == figures[f"trained_{key}"] for key in ("log_bits", "maximum_bits", "out_fraction"))
    how = "trained at this width" if as_trained else "rounded, not trained again"
    fractions = figures["out_fraction"]
    results = (f"linear results of {', '.join(map(str, fractions))} fraction bits, "
               if fractions != figures["trained_out_fraction"] else "")
    groups = ", ".join(map(str, figures["groups"]))
    grouped = f"{groups} groups of input channels, " if figures["groups"] not in ([], [1]) else ""
    clamped = "clamped sums, " if "clamped" in figures["sums"] else ""
    source = "" if figures["float_measured"] else " (its card says so, the weights aren't here)"
    rows = [
        (f"classical, floating point{source}", "classical"),
        (f"BM, floating point{source}", "bm_float"),
        (f"BM, integer, log codes of {log_bits} bits, {behind} behind the point, {grouped}{clamped}maxima of {seen} "
         f"bits, {results}{how}", "bm_integer"),
    ]
    if not figures["log_bits"]:
        rows = [rows[0], ("classical, integer", "bm_integer")]
    for row, key in rows:
        result.add_row(row, f"{figures[f'{key}_accuracy']:.2f}")
    return result


def trace_table(trace: list[dict[str, Any]]) -> Table:
    result = Table(title="Each layer against floating point: errors alone and so far, shares, in %")
    grouped = any(entry["groups"] > 1 for entry in trace)
    columns = {key: heading for key, heading in TRACE_COLUMNS.items() if key != "groups" or grouped}
    for heading in columns.values():
        result.add_column(heading, justify="left" if heading in ("layer", "layout") else "right")
    for entry in trace:
        cells = (entry.get(key, "") for key in columns)
        result.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    return result
