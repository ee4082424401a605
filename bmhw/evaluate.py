# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.evaluate``: the accuracy of a trained network on its whole held-out part."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bmhw.flow.files import check_writable, deliver_json

from .command_line import Parser, RunError, UsageError, run
from .options import number

_DESCRIPTION = """\
The accuracy of a trained network on its whole held-out part.

Measures the classical network, the BM network in floating point and the BM network in integers, which is
what the hardware computes. --bits B takes the network whose codes were trained at that width,
NAME-Bbit, where there is one; otherwise, or with --rounded, it rounds the weight codes."""

WIDTHS = ("log_bits", "maximum_bits", "out_fraction")
"""What of a network's formats can be changed after training."""

TRACE_COLUMNS = {
    "layer": "layer",
    "layout": "layout",
    "own_error": "alone",
    "total_error": "so far",
    "saturated_inputs": "saturated",
    "clamped_activations": "x clamped",
    "clamped_weights": "w clamped",
}


def choose(model: str, bits: int | None, rounded: bool) -> str:
    """The name or path of the network to load: the one trained at this width, if there is one."""
    from bmhw.models import ModelError
    from bmhw.models.files.store import card_path

    if bits is None or rounded:
        return model
    path = card_path(model)
    try:
        return str(card_path(path.with_name(f"{path.stem}-{bits}bit.json")))
    except ModelError:
        return str(path)


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
) -> dict[str, Any]:
    """All figures as plain values: accuracies in per cent, units in the key names.

    ``maximum_bits``: high bits of the sums that the maxima see, ``out_fraction``: fraction bits of linear results,
    instead of those it was trained with.
    ``float_measured``: whether the floating-point networks were there; their accuracies are the card's otherwise.
    ``trace_images``: adds ``trace``, the errors of each layer on so many held-out images (``layer_errors``).
    """
    try:
        import torch

        from bmhw.models import load
        from bmhw.models.files.float_weights import float_files, load_float
        from bmhw.models.integer.layer_errors import layer_errors
        from bmhw.models.training.datasets import load_dataset
        from bmhw.models.training.trainer import accuracy
    except ImportError as error:
        raise RunError(f"evaluation needs {error.name}: pip install 'bmhw[models]'") from None
    torch.set_num_threads(threads)
    chosen = choose(model, bits, rounded)
    network = load(chosen)
    trained = {f"trained_{field}": widths(network, field) for field in WIDTHS}
    if bits is not None:
        network = network.with_log_bits(bits)
    if maximum_bits is not None:
        network = network.with_maximum_bits(maximum_bits)
    if out_fraction is not None:
        network = network.with_out_fraction(out_fraction)
    data = load_dataset(network.card["data"]["name"], data_folder)
    measured = all(file.is_file() for file in float_files(chosen))
    if trace_images is not None and not measured:
        raise RunError(f"--trace needs {', '.join(file.name for file in float_files(chosen))}")
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
        "sums": widths(network, "sums"),
        "float_measured": measured,
        **{
            f"{key}_accuracy": accuracy(floats[kind], data.test_images, data.test_labels)
            if measured
            else network.card["accuracy"][f"{key}_accuracy"]
            for kind, key in (("classical", "classical"), ("bm", "bm_float"))
        },
        "bm_integer_accuracy": 100 * int(right.sum()) / len(right),
        "integer_seconds": round(seconds, 3),
    }
    if trace_images is not None:
        figures["trace"] = layer_errors(network, floats["bm"], data.test_images[:trace_images])
    return figures


def widths(network, field: str) -> list[Any]:
    """The values that a field of the BM layers' formats has, sorted; of the fraction of linear results only theirs."""
    formats = [layer.format for layer in network.layers.values()
               if field != "out_fraction" or layer.format.result == "linear"]
    return sorted({getattr(fmt, field) for fmt in formats if hasattr(fmt, field)})


def table(figures: dict[str, Any]) -> Table:
    result = Table("network")
    result.add_column("accuracy in %", justify="right")
    log_bits, behind = (", ".join(map(str, figures[key])) for key in ("log_bits", "log_fraction"))
    seen = ", ".join(map(str, figures["maximum_bits"]))
    as_trained = all(figures[key] == figures[f"trained_{key}"] for key in WIDTHS)
    how = "trained at this width" if as_trained else "rounded, not trained again"
    fractions = figures["out_fraction"]
    results = (f"linear results of {', '.join(map(str, fractions))} fraction bits, "
               if fractions != figures["trained_out_fraction"] else "")
    clamped = "clamped sums, " if "clamped" in figures["sums"] else ""
    source = "" if figures["float_measured"] else " (its card says so, the weights aren't here)"
    rows = [
        (f"classical, floating point{source}", "classical"),
        (f"BM, floating point{source}", "bm_float"),
        (f"BM, integer, log codes of {log_bits} bits, {behind} behind the point, {clamped}maxima of {seen} bits, "
         f"{results}{how}", "bm_integer"),
    ]
    if not figures["log_bits"]:
        rows = [rows[0], ("classical, integer", "bm_integer")]
    for row, key in rows:
        result.add_row(row, f"{figures[f'{key}_accuracy']:.2f}")
    return result


def trace_table(trace: list[dict[str, Any]]) -> Table:
    result = Table(title="Each layer against floating point: errors alone and so far, shares, in %")
    for heading in TRACE_COLUMNS.values():
        result.add_column(heading, justify="left" if heading in ("layer", "layout") else "right")
    for entry in trace:
        cells = (entry.get(key, "") for key in TRACE_COLUMNS)
        result.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in cells))
    return result


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument(
        "--model",
        default="digits",
        help="name of a network (python -m bmhw.models list) or a path to its .json (default: digits)",
    )
    result.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the mnist or cifar10 files (IDX, binary or npz)"
    )
    result.add_argument(
        "--bits", type=number, metavar="B", help="width of the log codes (default: as trained)"
    )
    result.add_argument(
        "--rounded", action="store_true", help="round to --bits even if NAME-Bbit was trained at that width"
    )
    result.add_argument(
        "--maximum-bits", type=number, metavar="M", help="high bits of the sums that the maxima see"
    )
    result.add_argument(
        "--out-fraction", type=number, metavar="F", help="fraction bits of the linear results (default: as trained)"
    )
    result.add_argument(
        "--trace",
        type=number,
        nargs="?",
        const=200,
        metavar="N",
        help="error of each layer against floating point on N held-out images (default: 200)",
    )
    result.add_argument("--threads", type=number, default=1, metavar="N", help="CPU threads (default: 1)")
    result.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    for option, value, low, high in (
        ("--bits", args.bits, 2, 16),
        ("--maximum-bits", args.maximum_bits, 1, 17),
        ("--out-fraction", args.out_fraction, 0, 40),
        ("--threads", args.threads, 1, 1024),
        ("--trace", args.trace, 1, 10000),
    ):
        if value is not None and (not isinstance(value, int) or not low <= value <= high):
            raise UsageError(f"{option} must be an integer from {low} to {high}, not {value!r}")
    if args.json is not None:
        check_writable(args.json)
    figures = evaluate(
        args.model,
        args.bits,
        rounded=args.rounded,
        maximum_bits=args.maximum_bits,
        out_fraction=args.out_fraction,
        data_folder=args.data,
        threads=args.threads,
        trace_images=args.trace,
    )
    if deliver_json(figures, args.json):
        return 0
    console = Console()
    console.print(f"{figures['model']} on {figures['test_images']} held-out images of {figures['dataset']}")
    console.print(table(figures))
    if "trace" in figures:
        console.print(trace_table(figures["trace"]))
    return 0


if __name__ == "__main__":
    run(main)
