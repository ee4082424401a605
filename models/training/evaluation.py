# SPDX-License-Identifier: Apache-2.0
"""The accuracy of a trained network on its whole held-out part, in floating point and in integers."""

import time
from pathlib import Path
from typing import Any

import torch

from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.files.card_fields import reading
from bmhw.models.files.float_weights import float_files, load_float
from bmhw.models.files.store import card_path, load, save
from bmhw.models.files.widths import at_width
from bmhw.models.integer.layer_errors import layer_errors

from .datasets import load_dataset
from .trainer import accuracy

__all__ = ["WIDTHS", "evaluate", "widths"]

WIDTHS = ("log_bits", "maximum_bits", "out_fraction")
"""What of a network's formats can be changed after training."""


def evaluate(
    model: str,
    bits: int | None = None,
    *,
    rounded: bool = False,
    maximum_bits: int | None = None,
    out_fraction: int | None = None,
    data_folder: Path | None = None,
    threads: int = 1,
    trace_images: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """All figures as plain values: accuracies in per cent, units in the key names.

    ``bits``: width of the log codes; the network that was trained in such codes is taken as it is, edges included, if
    there is one and ``rounded`` doesn't ask for others (``at_width``).
    ``maximum_bits``: high bits of the sums that the maxima see, ``out_fraction``: fraction bits of linear results,
    instead of those it was trained with.
    ``float_measured``: whether the floating-point networks were there; their accuracies are the card's otherwise.
    ``trace_images``: adds ``trace``, the errors of each layer on so many held-out images (``layer_errors``).
    ``out``: a folder for the network as it was measured; its card has its accuracy, and under ``rounded`` what was
    changed after training and the SHA-256 of the weights before.
    """
    torch.set_num_threads(threads)
    chosen, other_width = at_width(model, bits, rounded)
    network = load(chosen)
    if out is not None and (out / f"{network.name}.json").exists():
        raise ModelUsageError(f"Folder {out} holds a network {network.name} already, which is not overwritten: name "
                              "another one with --out")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # what can't be one is told now, not behind the measurement
    trained = {f"trained_{field}": widths(network, field) for field in WIDTHS}
    if other_width:
        if not trained["trained_log_bits"]:
            raise ModelUsageError(f"Network {network.name} must have log codes to be rounded to {bits} bits; it is "
                                  "multiply-accumulate in every layer")
        network = network.with_log_bits(bits)
    if maximum_bits is not None:
        network = network.with_maximum_bits(maximum_bits)
    if out_fraction is not None:
        network = network.with_out_fraction(out_fraction)
    measured = all(file.is_file() for file in float_files(chosen))
    with reading(card_path(chosen)):
        data = load_dataset(network.card["data"]["name"], data_folder)
        stated = {} if measured else {
            key: network.card["accuracy"][f"{key}_accuracy"] for key in ("classical", "bm_float")
        }
    if trace_images is not None and not measured:
        missing = ", ".join(file.name for file in float_files(chosen) if not file.is_file())
        raise ModelError(f"--trace needs the floating-point networks, but {missing} isn't in "
                         f"{card_path(chosen).parent}: not every network comes with its own; bmhw.train writes them")
    floats = load_float(chosen) if measured else {}
    started = time.monotonic()
    right = network.classify(data.test_images, threads=threads) == data.test_labels
    seconds = time.monotonic() - started
    figures = {
        "model": network.name,
        "dataset": data.name,
        "test_images": len(data.test_images),
        **{field: widths(network, field) for field in WIDTHS},
        **trained,
        "log_fraction": widths(network, "log_fraction"),
        "groups": widths(network, "groups"),
        "sums": widths(network, "sums"),
        "float_measured": measured,
        **{
            f"{key}_accuracy": accuracy(floats[kind], data.test_images, data.test_labels)
            if measured
            else stated[key]
            for kind, key in (("classical", "classical"), ("bm", "bm_float"))
        },
        "bm_integer_accuracy": 100 * int(right.sum()) / len(right),
        "integer_seconds": round(seconds, 3),
    }
    if out is not None:
        changes = {"log_bits": bits if other_width else None, "maximum_bits": maximum_bits,
                   "out_fraction": out_fraction}
        card = {**network.card, "accuracy": {key: figures[key] for key in network.card["accuracy"]}, "rounded": {
            "weights": network.card["weights"]["sha256"],
            **{name: value for name, value in changes.items() if value is not None}}}
        figures["written"] = str(save(network, out, card))
    if trace_images is not None:
        figures["trace"] = layer_errors(network, floats["bm"], data.test_images[:trace_images])
    return figures


def widths(network, field: str) -> list[Any]:
    """The values that a field of the BM layers' formats has, sorted; of the fraction of linear results only theirs."""
    formats = [layer.format for layer in network.layers.values()
               if field != "out_fraction" or layer.format.result == "linear"]
    return sorted({getattr(fmt, field) for fmt in formats if hasattr(fmt, field)})
