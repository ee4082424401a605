# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.evaluate``: the accuracy of a trained network on its whole held-out part."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bmhw.flow.files import check_writable, deliver_json
from bmhw.show.evaluation import accuracy_table, trace_table

from .command_line import Parser, RunError, UsageError, run
from .options import number

__all__ = ["main", "parser"]

_DESCRIPTION = """\
The accuracy of a trained network on its whole held-out part.

Measures the classical network, the BM network in floating point and the BM network in integers, which is
what the hardware computes. --bits B takes the network whose codes were trained at that width, NAME
or NAME-Bbit, as it is; where there is none, or with --rounded, it rounds the weight codes and says so.
Where no floating-point weights lie beside a network, its card tells their accuracies."""

_EXAMPLES = """
examples:
  python -m bmhw.evaluate --model digits --trace
      the network that needs no data, and the error of each of its layers
  python -m bmhw.evaluate --model mnist-lenet --bits 5 --data DIR
      MNIST with codes of 5 bits: those of mnist-lenet-5bit if that is there, else rounded ones
  python -m bmhw.evaluate --model cifar10-resnet20-signed-4bit --out-fraction 10 --out runs/narrow --data DIR
      what fewer bits behind the point of linear numbers cost, and that network for a chip
"""


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION, epilog=_EXAMPLES)
    result.add_argument(
        "--model",
        default="digits",
        help="name of a network (python -m bmhw.models list) or a path to its .json (default: digits)",
    )
    result.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the mnist or cifar10 files (IDX, binary or npz)"
    )
    result.add_argument(
        "--bits", type=number, metavar="B", help="width of the log codes, but for those of the first and last layer "
        "where these have others (default: as trained)"
    )
    result.add_argument(
        "--rounded", action="store_true", help="round to --bits even if a network was trained at that width"
    )
    result.add_argument(
        "--maximum-bits", type=number, metavar="M", help="high bits of the sums that the maxima see"
    )
    result.add_argument(
        "--out-fraction", type=number, metavar="F", help="fraction bits of the linear results (default: as trained)"
    )
    result.add_argument("--out", type=Path, metavar="DIR",
                        help="write the network as it is measured, rounded or not, and its card into this folder")
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
    try:
        from bmhw.models.training.evaluation import evaluate
    except ImportError as error:
        raise RunError(f"evaluation needs {error.name}: pip install 'bmhw[models]'") from None
    figures = evaluate(
        args.model,
        args.bits,
        rounded=args.rounded,
        maximum_bits=args.maximum_bits,
        out_fraction=args.out_fraction,
        data_folder=args.data,
        threads=args.threads,
        trace_images=args.trace,
        out=args.out,
    )
    if deliver_json(figures, args.json):
        return 0
    console = Console()
    console.print(f"{figures['model']} on {figures['test_images']} held-out images of {figures['dataset']}")
    console.print(accuracy_table(figures))
    if "written" in figures:
        console.print(f"Written: {figures['written']}", markup=False, soft_wrap=True)
    if "trace" in figures:
        console.print(trace_table(figures["trace"]))
    return 0


if __name__ == "__main__":
    run(main)
