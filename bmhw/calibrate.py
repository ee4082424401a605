# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.calibrate``: what parts of networks on a chip take, counted, for the estimates of plans."""

import json
from collections.abc import Sequence
from pathlib import Path

from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import ENGINES, Engine
from bmhw.flow.files import check_writable, write_atomically
from bmhw.show.progress import steps

from .command_line import Parser, RunError, run
from .options import time_limit_from

__all__ = ["main", "parser"]

_TIME_LIMIT = 3600.0


def parser() -> Parser:
    result = Parser(description="Map whole networks to the cells of FPGAs and write the coefficients with which plans\n"
                                "estimate logic cells. Half an hour from nothing; goes on where it was stopped.")
    result.add_argument("--out", type=Path, metavar="FILE", help="the table (default: the package's own)")
    result.add_argument("--engine", choices=ENGINES, default="auto", help="which Yosys (default: auto)")
    result.add_argument("--time-limit", metavar="SECONDS", default=_TIME_LIMIT,
                        help=f"for each run of Yosys (default: {_TIME_LIMIT:g})")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    engine = Engine(args.engine, time_limit_from(args.time_limit))
    try:
        from bmhw.chip.calibration import calibrate
        from bmhw.chip.estimate import COEFFICIENTS
        from bmhw.show.network import print_calibration
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    out = args.out or COEFFICIENTS
    check_writable(out)
    with steps("mapping networks") as progress, engine.stopping():
        table = calibrate(engine, Cache(cache_folder()), progress=progress)
    write_atomically(out, json.dumps({"command": "python -m bmhw.calibrate", **table}, indent=1) + "\n")
    print_calibration(table)
    return 0


if __name__ == "__main__":
    run(main)
