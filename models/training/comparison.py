# SPDX-License-Identifier: Apache-2.0
"""Trained networks beside each other: which MAC network is as accurate as which BM one, means over seeds."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmhw.models.errors import ModelError
from bmhw.models.files.card_fields import reading
from bmhw.models.files.cards import HISTORY, card_paths, entry
from bmhw.models.files.store import load, read_card

from .datasets import load_dataset
from .recipes import RECIPES

__all__ = ["collect", "command", "equals", "measure", "repeats"]

# Option of bmhw.train -> where a card's training settings hold its value; those that recipes set are left out.
OPTIONS = {
    "--dataset": ("dataset",),
    "--architecture": ("architecture",),
    "--layout": ("layout",),
    "--neurons": ("neurons",),
    "--method": ("method",),
    "--classical-epochs": ("epochs", 0),
    "--bm-epochs": ("epochs", 1),
    "--quantised-epochs": ("epochs", 2),
    "--epoch-images": ("epoch_images",),
    "--batch": ("batch",),
    "--bm-rate": ("rates", 1),
    "--quantised-rate": ("rates", 2),
    "--bits": ("quantisation", "bits"),
    "--mac-weight-bits": ("quantisation", "mac_weight_bits"),
    "--log-bits": ("quantisation", "log_bits"),
    "--log-fraction": ("quantisation", "log_fraction"),
    "--sums": ("quantisation", "sums"),
    "--maximum-bits": ("quantisation", "maximum_bits"),
    "--linear-maximum-bits": ("quantisation", "linear_maximum_bits"),
    "--combine": ("quantisation", "combine"),
    "--groups": ("quantisation", "groups"),
    "--group-inputs": ("quantisation", "groups", "inputs"),
    "--zero": ("quantisation", "zero"),
    "--edge-bits": ("quantisation", "edge_bits"),
    "--out-fraction": ("quantisation", "out_fraction"),
    "--norm": ("norm",),
    "--seed": ("seed",),
    "--norm-epsilon": ("conventions", "norm_epsilon"),
    "--mean": ("conventions", "mean"),
    "--std": ("conventions", "std"),
    "--pixel-scale": ("conventions", "pixel_scale"),
}
BM_ONLY = ("--method", "--bm-rate", "--log-bits", "--log-fraction", "--sums", "--maximum-bits", "--linear-maximum-bits",
           "--combine", "--groups", "--group-inputs", "--zero", "--out-fraction", "--norm")
# What cards have that don't say it, where a new run would take something else.
BEFORE = {"--groups": 1}


def command(name: str, training: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The command that trains a network again. ``files``: SHA-256 -> name of a file to start from."""
    words = ["python -m bmhw.train", f"--name {name}", "--data DIR"]
    for option, path in OPTIONS.items():
        value: Any = training
        for key in path:
            value = value[key] if isinstance(key, int) else value.get(key) if isinstance(value, Mapping) else None
        value = BEFORE.get(option) if value is None else value
        value = None if isinstance(value, Mapping) else value  # what another option says
        value = ",".join(map(str, value)) or None if isinstance(value, list) else value
        if value is not None and not (training["layout"] == "mac" and option in BM_ONLY):
            words.append(f"{option} {value}")
    usual = {settings.validation for (dataset, _), settings in RECIPES.items() if dataset == training["dataset"]}
    if training["validation"] not in usual:
        words.append(f"--validation-images {training['validation']}")
    for option, source in (("--init-from", training["initial"]), ("--teacher", training.get("teacher"))):
        if source is not None:
            words.append(f"{option} {files.get(source, f'SHA256-{source[:16]}')}")
    return " ".join(words)


def rounding(card: Mapping[str, Any]) -> str:
    """The command behind that one which rounded the network after its training (``evaluation.evaluate``), if any."""
    options = {"--bits": "log_bits", "--maximum-bits": "maximum_bits", "--out-fraction": "out_fraction"}
    rounded = card.get("rounded", {})
    words = [f"{option} {rounded[name]}" for option, name in options.items() if name in rounded]
    return " ".join((f" && python -m bmhw.evaluate --model {card['name']} --data DIR", *words)) if words else ""


def collect(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a network, sorted: what ``models.cards.entry`` gives, and neuron, method, command and the epochs'
    losses and validation accuracies."""
    cards = {path: read_card(path) for path in card_paths(folders)}
    files: dict[str, str] = {}
    # SHA-256 -> the network whose floating-point training ended in that file; what else a card lists is of before
    trained: dict[str, str] = {}
    for path, card in cards.items():
        with reading(path):
            parts = card.get("float_weights", {}).get("files", [])
            files |= {part["sha256"]: part["file"] for part in parts}
            training = card["training"]
            trained |= {part["sha256"]: card["name"] for part in parts[:1]
                        if any(training["epochs"][:2]) and training["initial"] != part["sha256"]}
    rows = []
    for path, card in cards.items():
        with reading(path):
            rows.append(_row(path, card, files, trained))
    return sorted(
        rows, key=lambda row: (row["data"], row["architecture"], row["neuron"], *(-b for b in row["bits"]))
    )


def _row(path: Path, card: Mapping[str, Any], files: Mapping[str, str], trained: Mapping[str, str]) -> dict[str, Any]:
    """``files``: SHA-256 -> file, ``trained``: the same -> network."""
    row, training = entry(path), card["training"]
    row["neuron"] = "mac" if row["layouts"] == ["mac"] else "bm"
    row["integer_accuracy"] = row.pop("bm_integer_accuracy")
    if row["neuron"] == "bm":
        row["method"] = training.get("method", "at-once")
    row["test_images"] = card["data"]["test_images"]
    row["command"] = command(card["name"], training, files) + rounding(card)
    if training["initial"] in trained:
        row["continues"] = trained[training["initial"]]
    if "notes" in training:
        row["notes"] = training["notes"]
    row["history"] = [{key: event[key] for key in HISTORY} for event in training.get("history", ())]
    row["torch_version"], row["bmhw_version"] = training["torch_version"], training["bmhw_version"]
    return row


def equals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each BM network, the narrowest MAC network of its architecture that is at least as accurate.

    ``mac`` is None where no MAC network in the rows is.
    """
    result = []
    for row in rows:
        if row["neuron"] != "bm":
            continue
        rivals = [
            other
            for other in rows
            if other["neuron"] == "mac"
            and (other["data"], other["architecture"]) == (row["data"], row["architecture"])
        ]
        if not rivals:
            continue
        enough = [other for other in rivals if other["integer_accuracy"] >= row["integer_accuracy"]]
        best = min(enough, key=_width, default=None)
        result.append(
            {
                "bm": row["name"],
                "bm_bits": row["bits"],
                "bm_maximum_bits": row["maximum_bits"],
                "bm_accuracy": row["integer_accuracy"],
                "mac": best and best["name"],
                "mac_bits": best and best["bits"],
                "mac_weight_bits": best and best["mac_weight_bits"],
                "mac_accuracy": best and best["integer_accuracy"],
                "narrowest_mac": min(rivals, key=_width)["name"],
            }
        )
    return result


def _width(row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    return row["bits"], row["mac_weight_bits"]


def repeats(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Networks that differ in nothing but the seed, two or more, or were trained on from such ones: the mean of each
    accuracy and its sample standard deviation. The most accurate first."""
    by_name = {row["name"]: row for row in rows}

    def settings(row: Mapping[str, Any]) -> tuple[str, ...]:
        own = re.sub(r"--(name|seed) \S+ ?", "", row["command"])
        before = by_name.get(row.get("continues", ""))
        return (own,) if before is None else (re.sub(r"--init-from \S+", "", own), *settings(before))

    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(settings(row), []).append(row)
    result = []
    for same in alike.values():
        if len({row["seed"] for row in same}) < 2:
            continue
        entry = {"networks": [row["name"] for row in same], "seeds": [row["seed"] for row in same],
                 "method": same[0].get("method")}
        for key in ("bm_float_accuracy", "integer_accuracy"):
            if key in same[0]:
                values = [row[key] for row in same]
                entry[key] = {"mean": statistics.fmean(values), "standard_deviation": statistics.stdev(values)}
        result.append(entry)
    return sorted(result, key=lambda entry: -entry["integer_accuracy"]["mean"])


def measure(rows: Sequence[dict[str, Any]], folders: Sequence[Path], data: Path | None, threads: int) -> None:
    """Classify the held-out part with every network whose weights are there; RunError where a card is wrong.

    Sets ``measured``: whether the weights were there.
    """
    datasets: dict[str, Any] = {}
    for row in rows:
        path = next(f / f"{row['name']}.json" for f in folders if (f / f"{row['name']}.json").is_file())
        row["measured"] = path.with_suffix(".safetensors").is_file()
        if not row["measured"]:
            continue
        name = row["data"]
        held_out = datasets.setdefault(name, load_dataset(name, data) if name != "digits" else load_dataset(name))
        right = load(path).classify(held_out.test_images, threads=threads) == held_out.test_labels
        found = 100 * int(right.sum()) / len(right)
        if abs(found - row["integer_accuracy"]) > 1e-9:
            said = row["integer_accuracy"]
            raise ModelError(f"Network {row['name']} gets {found:.2f} % right, its card says {said:.2f} %")
