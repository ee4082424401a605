# SPDX-License-Identifier: Apache-2.0
"""What the cards of trained networks say, one row a network. Needs no PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bmhw.models.errors import ModelError

from .card_fields import reading
from .store import list_models, read_card
from .widths import inner_bits, inner_formats

__all__ = ["HISTORY", "card_paths", "entries", "entry"]

HISTORY = ("phase", "epoch", "loss", "validation_accuracy", "seconds")
"""What a card tells of an epoch."""


def entry(path: Path) -> dict[str, Any]:
    """What a card says in one row: accuracies in per cent on the held-out images; ``bits``: see ``inner_bits``;
    ``edge_bits``: of the first and the last layer, where they are given by themselves; ``groups`` of input channels as
    asked for, as the card says it (``networks.groups.to_json``); ``log_fraction``: bits behind their point, None for
    the usual number; ``mac_weight_bits``: of the weights of multiply-accumulate layers; ``maximum_bits``: of the sums
    that the maxima see; ``sums``: ``full`` or ``clamped``; ``ends``: ``log`` if layers that can hand on log codes do,
    else ``linear`` (see ``BmFormat``)."""
    card = read_card(path)
    with reading(path):
        formats, training = list(card["layers"].values()), card["training"]
        quantisation = training["quantisation"]
        bm = [fmt for fmt in formats if fmt["neuron"] == "bm"]
        figures: dict[str, Any] = {
            "name": card["name"],
            "data": card["data"]["name"],
            "architecture": training["architecture"],
            "layouts": sorted({fmt.get("layout", "mac") for fmt in formats}),
            "bits": inner_bits(card),
            "edge_bits": quantisation.get("edge_bits"),
            "groups": quantisation.get("groups", 1),
            "log_fraction": quantisation.get("log_fraction"),
            "mac_weight_bits": sorted({fmt["weight_bits"] for fmt in inner_formats(card) if fmt["neuron"] == "mac"}),
            "maximum_bits": sorted({fmt["maximum_bits"] for fmt in bm}),
            "sums": sorted({fmt.get("sums", "full") for fmt in bm}),
            "ends": ["log" if any(fmt["combine"] == "logarithmic" for fmt in bm) else "linear"] if bm else [],
            "seed": training["seed"],
            "epochs": training["epochs"],
            "commit": training["commit"],
            "weights_bytes": card["weights"]["bytes"],
        }
        kinds = ("classical", "bm_float", "bm_integer") if bm else ("classical", "bm_integer")
        figures |= {f"{kind}_accuracy": card["accuracy"][f"{kind}_accuracy"] for kind in kinds}
    return figures


def card_paths(folders: Sequence[Path]) -> list[Path]:
    """All cards in the folders, in the order of the folders and names; ModelError for a folder without any."""
    for folder in folders:
        if not list_models(folder):
            raise ModelError(f"Folder {folder} must hold cards of networks (NAME.json)")
    return [folder / f"{name}.json" for folder in folders for name in list_models(folder)]


def entries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of all cards in the folders."""
    return [entry(path) for path in card_paths(folders)]
