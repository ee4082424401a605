# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.accuracy``: accuracy against width, and at which widths BM and MAC networks are equals."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bmhw import __version__
from bmhw.flow.files import check_writable, deliver_json, write_atomically
from bmhw.show.accuracy_tables import drawn, page, tables
from bmhw.show.plots import accuracy_width
from bmhw.show.tables import print_whole

from .command_line import Parser, RunError, UsageError, run

__all__ = ["main", "parser"]

_DESCRIPTION = """\
Accuracy against width, and at which widths BM and MAC networks are equals.

Collects the cards that bmhw.train wrote, in the folders given; with --measure it classifies the whole
held-out part with each integer network again and refuses a card that says otherwise."""


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="folders with cards (default: the package's)"
    )
    result.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    result.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables and learning curves as Markdown"
    )
    result.add_argument("--plot", type=Path, metavar="FILE.svg",
                        help="plot error against width and learning curves; with --markdown, shown there too")
    result.add_argument(
        "--measure", action="store_true", help="classify the held-out part again (minutes a network)"
    )
    result.add_argument("--data", type=Path, metavar="DIR", help="folder of the mnist or cifar10 files")
    result.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not 1 <= args.threads <= 1024:
        raise UsageError(f"--threads must be an integer from 1 to 1024, not {args.threads}")
    if args.plot is not None and args.plot.suffix != ".svg":
        raise UsageError(f"--plot must name a file that ends in .svg, not {args.plot}")
    for file in (args.json, args.markdown, args.plot):
        if file is not None:
            check_writable(str(file))
    try:
        from bmhw.models.files.store import WEIGHTS
        from bmhw.models.training.comparison import collect, equals, measure, repeats

        folders = args.folders or [WEIGHTS]
        rows = collect(folders)
        if args.measure:
            measure(rows, folders, args.data, args.threads)
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    figures = {
        "bmhw_version": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "networks": rows,
        "equal_accuracy": equals(rows),
        "repeats": repeats(rows),
    }
    if args.plot is not None:
        write_atomically(args.plot, accuracy_width(rows))
    if args.markdown is not None:
        at = None if args.plot is None else os.path.relpath(args.plot, args.markdown.parent).replace(os.sep, "/")
        write_atomically(args.markdown, page(figures, at))
    if deliver_json(figures, args.json):
        return 0
    console = Console()
    for title, (headings, cells) in tables(figures).items():
        console.print(title, style="bold")
        print_whole(drawn(headings, cells))
    cards = sum(not row.get("measured", True) for row in rows)
    if cards:
        console.print(f"Not measured: {cards} of {len(rows)} networks, of which only the cards are here.")
    return 0


if __name__ == "__main__":
    run(main)
