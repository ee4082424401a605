# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.evaluate``: the accuracy of a trained network on its whole held-out part.

Measures the classical network, the BM network in floating point and the BM network in integers, which is
what the hardware computes. With another ``--bits`` than it was trained for, its weight codes are rounded.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .command_line import Parser, RunError, UsageError, check_writable, number, run, write_atomically


def evaluate(model: str, bits: int | None = None) -> dict[str, Any]:
    """All figures as plain values: accuracies in per cent, units in the key names."""
    try:
        from .models import load
        from .models.datasets import load_dataset
        from .models.float_weights import load_float
        from .models.training import accuracy
    except ImportError as error:
        raise RunError(f"evaluation needs {error.name}: pip install 'bmhw[models]'") from None
    network = load(model)
    trained_bits = sorted(
        {layer.format.log_bits for layer in network.layers.values() if hasattr(layer.format, "log_bits")}
    )
    if bits is not None:
        network = network.with_log_bits(bits)
    data = load_dataset(network.card["data"]["name"])
    floats = load_float(model)
    started = time.monotonic()
    right = network.classify(data.test_images) == data.test_labels
    seconds = time.monotonic() - started
    return {
        "model": network.name,
        "dataset": data.name,
        "test_images": len(data.test_images),
        "log_bits": [bits] if bits is not None else trained_bits,
        "trained_log_bits": trained_bits,
        "classical_accuracy": accuracy(floats["classical"], data.test_images, data.test_labels),
        "bm_float_accuracy": accuracy(floats["bm"], data.test_images, data.test_labels),
        "bm_integer_accuracy": 100 * int(right.sum()) / len(right),
        "integer_seconds": round(seconds, 3),
    }


def table(figures: dict[str, Any]) -> Table:
    result = Table("network")
    result.add_column("accuracy in %", justify="right")
    widths = ", ".join(map(str, figures["log_bits"]))
    rounded = "" if figures["log_bits"] == figures["trained_log_bits"] else ", rounded, not trained again"
    for row, key in (
        ("classical, floating point", "classical"),
        ("BM, floating point", "bm_float"),
        (f"BM, integer, log codes of {widths} bits{rounded}", "bm_integer"),
    ):
        result.add_row(row, f"{figures[f'{key}_accuracy']:.2f}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--model",
        default="digits",
        help="name of a network (python -m bmhw.models list) or a path to its .json (default: digits)",
    )
    parser.add_argument(
        "--bits", type=number, metavar="B", help="width of the log codes (default: as trained)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    args = parser.parse_args(argv)
    if args.bits is not None and (not isinstance(args.bits, int) or not 2 <= args.bits <= 16):
        raise UsageError(f"--bits must be an integer from 2 to 16, not {args.bits!r}")
    if args.json is not None:
        check_writable(args.json)
    figures = evaluate(args.model, args.bits)
    text = json.dumps(figures, indent=1) + "\n"
    if args.json == "-":
        print(text, end="")
        return 0
    if args.json is not None:
        write_atomically(Path(args.json), text)
    Console().print(f"{figures['model']} on {figures['test_images']} held-out images of {figures['dataset']}")
    Console().print(table(figures))
    return 0


if __name__ == "__main__":
    run(main)
