# SPDX-License-Identifier: Apache-2.0
"""Whole networks that were placed (``bmhw.fpga --model NAME --json FILE``), side by side: figures and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmhw.chip.kinds import KINDS
from bmhw.flow.files import reading
from bmhw.flow.fpga import DEVICES
from bmhw.models.files.cards import entry
from bmhw.models.files.store import card_path

from .accuracy_tables import markdown as table
from .tables import widths

__all__ = ["FOLDER", "LARGE", "figures", "page", "read_chips"]

FOLDER = "chips"
"""Of the files, in that of the results."""

LARGE = ("elements", "unloading", "ends")
"""Kinds of cells that are an element with its ends."""

_KEPT = ("command", "elements", "folding", "planned_cycles", "cycles_per_image", "luts", "flip_flops", "block_rams",
         "dsps", "fmax_mhz", "fmax_lowest_mhz", "fmax_highest_mhz", "frames_per_second", "verilog_sha256", "tools")


def read_chips(folder: Path) -> list[dict[str, Any]]:
    """A row for each file of the folder :data:`FOLDER` in ``folder``: data sets and architectures one after the other,
    on each device BM networks before MAC ones."""
    rows = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        with reading(path, "result of bmhw.fpga --model"):
            chip = json.loads(path.read_text())
            network, device = entry(card_path(chip["name"])), DEVICES[chip["device"]["name"]]
            mac = network["layouts"] == ["mac"]
            rows.append({
                "file": f"{FOLDER}/{path.name}", "network": chip["name"], "data": network["data"],
                "architecture": network["architecture"], "neuron": "mac" if mac else "bm",
                "widths": widths({**network, "neuron": "mac" if mac else "bm"}),
                "accuracy": chip["accuracy"]["bm_integer_accuracy"], "device": chip["device"]["name"],
                "dsps_allowed": chip["device"]["dsps_allowed"], **{key: chip[key] for key in _KEPT},
                "placed_cells": chip["placed"][device.logic]["used"], "available_cells": device.luts,
                "available_block_rams": device.block_rams,
                "seeds": [run["seed"] for run in chip["seeds"]],
                "luts_by_kind": {kind: chip["kinds"][kind]["luts"] for kind in KINDS},
            })
    return sorted(rows, key=lambda row: (*_same(row), row["neuron"] == "mac", row["network"]))


def _same(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What rows must have in common to be compared."""
    return row["data"], row["architecture"], row["device"], row["planned_cycles"]


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``networks.json`` holds: the rows, and each BM network with each MAC network that computes the same in the
    same cycles on the same device; ratios MAC / BM, of MHz and frames BM / MAC: above 1 BM is better."""
    pairs = []
    for bm in (row for row in rows if row["neuron"] == "bm"):
        for mac in (row for row in rows if row["neuron"] == "mac" and _same(row) == _same(bm)):
            large = [sum(row["luts_by_kind"][kind] for kind in LARGE) for row in (mac, bm)]
            pairs.append({
                "bm": bm["network"], "mac": mac["network"], "device": bm["device"],
                "dsps_allowed": mac["dsps_allowed"], "elements_with_ends": large[0] / large[1],
                **{key: mac[key] / bm[key] for key in ("placed_cells", "block_rams")},
                **{key: bm[key] / mac[key] for key in ("fmax_mhz", "frames_per_second")}})
    return {"networks": list(rows), "pairs": pairs}


def page(found: Mapping[str, Any], mark: str, plot: str) -> str:
    """``networks.md``; ``mark``: how it says which command wrote it."""
    headings = ("network", "bits", "%", "device", "elements", "cycles", "LUTs", "of the device", "flip-flops",
                "block RAMs", "DSPs", "MHz", "images/s", "seeds")
    cells = [[f"[`{row['network']}`]({row['file']})", row["widths"], f"{row['accuracy']:.2f}",
              row["device"] + ("" if row["dsps_allowed"] else ", no DSPs"), f"{row['elements']:,}",
              f"{row['cycles_per_image']:,.0f}", f"{row['placed_cells']:,}",
              f"{row['placed_cells'] / row['available_cells']:.0%}", f"{row['flip_flops']:,}",
              f"{row['block_rams']} of {row['available_block_rams']}", str(row["dsps"]), _megahertz(row),
              f"{row['frames_per_second']:,.0f}", ", ".join(map(str, row["seeds"]))] for row in found["networks"]]
    parts = [f"# Whole networks, placed\n\n{mark}, from the files in `{FOLDER}`, each by the command that stands in it "
             "and below. LUTs, block RAMs and MHz are nextpnr's (logic cells; Fmax from register to register, the "
             "median of the seeds and their range), cycles those of an image in a simulation in which every number was "
             "compared.\n", table("Networks", headings, cells),
             f"![Look-up tables by what they are of]({plot})\n"]
    kinds = [[f"`{row['network']}`, {row['device']}", *(f"{row['luts_by_kind'][kind]:,}" for kind in KINDS),
              f"{row['luts']:,}"] for row in found["networks"]]
    parts.append(table("Look-up tables by what they are of, before packing (Yosys)", ("network", *KINDS, "all"), kinds))
    pairs = [[f"`{pair['bm']}`", f"`{pair['mac']}`", pair["device"] + ("" if pair["dsps_allowed"] else ", no DSPs"),
              *(f"{pair[key]:.2f}" for key in ("elements_with_ends", "placed_cells", "block_rams", "fmax_mhz",
                                               "frames_per_second"))] for pair in found["pairs"]]
    parts.append(table("BM beside MAC: above 1 BM is better", (
        "BM", "MAC", "device", "LUTs of elements with unloading and ends, MAC / BM", "all LUTs, MAC / BM",
        "block RAMs, MAC / BM", "MHz, BM / MAC", "images/s, BM / MAC"), pairs))
    made = [[f"`{row['network']}`", f"`{row['command']}`", ", ".join((
        f"bmhw {row['tools']['bmhw']}", row["tools"]["engine"], row["tools"]["yosys"], row["tools"]["nextpnr"])),
        f"`{row['verilog_sha256'][:16]}`"] for row in found["networks"]]
    parts.append(table("Commands and versions", ("network", "command", "versions", "SHA-256 of the Verilog"), made))
    return "\n".join(parts)


def _megahertz(row: Mapping[str, Any]) -> str:
    return f"{row['fmax_mhz']:.1f}" + (
        f" ({row['fmax_lowest_mhz']:.1f} to {row['fmax_highest_mhz']:.1f})" if len(row["seeds"]) > 1 else "")
