# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.explore``: measure every architecture, for the table that ``auto`` chooses from."""

import itertools
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .command_line import Parser, number, program_name, run, write_atomically
from .flow.cache import Cache, cache_folder
from .flow.engine import ENGINES, Engine
from .flow.generation import generate
from .flow.synthesis import in_parallel, map_design, processors
from .hdl.design import Design
from .hdl.log_ends import LOG_ENDS
from .hdl.multipliers import MULTIPLIERS as ALL_MULTIPLIERS
from .hdl.neuron_formats import BmFormat, MacFormat
from .selection import SCRIPT_OF, shape

__all__ = ["designs", "explore", "main"]

TABLE = Path(__file__).parent / "data" / "architectures.json"
# From small to large in one step each; between them `choose` takes the nearest.
BITS, INPUTS = (5, 8, 12), (9, 64)


# Those that can win: a linear array of 64 inputs is hundreds of levels deep.
ADDERS = ("ripple", "lookahead", "brent_kung", "sklansky")
BM_ADDERS = ("ripple", "lookahead", "sklansky")
MAXIMA = ("elimination", "digits", "digits3", "online")
MULTIPLIERS = tuple(name for name, (_, compression) in ALL_MULTIPLIERS.items() if compression != "linear")


def designs(bits: Sequence[int], inputs: Sequence[int]) -> Iterator[Design]:
    """Every architecture at every width and fan-in.

    BM neurons from activation code to activation code: log2 of the inputs is the same for all architectures and
    would hide what they differ in.
    """
    for width, n in itertools.product(bits, inputs):
        for multiplier, adder in itertools.product(MULTIPLIERS, ADDERS):
            yield Design(format=MacFormat(inputs=n, bits=width), multiplier=multiplier, adder=adder)
        for layout in ("relu", "signed"):
            fmt = BmFormat(inputs=n, bits=width, layout=layout, boundary="layer", combine="logarithmic")
            ends = [name for name, end in LOG_ENDS.items() if fmt.maximum_bits <= end.most_bits]
            for maximum, adder, log_end in itertools.product(MAXIMA, BM_ADDERS, ends):
                yield Design(format=fmt, maximum=maximum, adder=adder, log_end=log_end)


def explore(engine: Engine, cache: Cache, bits: Sequence[int], inputs: Sequence[int], jobs: int) -> dict[str, Any]:
    """Measure all designs with each script. Interrupted and called again, it goes on from the cache."""
    scripts = tuple(dict.fromkeys(SCRIPT_OF.values()))
    todo = list(itertools.product(designs(bits, inputs), scripts))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=len(todo))

        def row(design: Design, script: str) -> tuple[dict[str, Any], str]:
            generated = generate(design, cache)
            figures = map_design(generated.verilog, generated.name, by_parts=False, objective=script, engine=engine,
                                 cache=cache, library=None)
            progress.advance(task)
            own = ("multiplier",) if design.neuron == "mac" else ("maximum", "log_end")
            return {**shape(design.format), "architecture": {name: getattr(design, name) for name in (*own, "adder")},
                    "script": script, "gates": figures.gates, "depth": figures.depth}, figures.yosys

        rows = in_parallel(engine, [partial(row, *item) for item in todo], jobs)
    shapes = " ".join(["--bits", *map(str, bits), "--inputs", *map(str, inputs)])
    return {"command": f"python -m bmhw.explore {shapes}", "engine": engine.version, "yosys": rows[0][1],
            "rows": [row for row, _ in rows]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(prog=program_name(), description="Measure every architecture of both neurons and write the table "
                    "that `auto` chooses from. Hours from nothing; goes on where it was stopped.")
    parser.add_argument("--bits", type=number, nargs="+", default=list(BITS), metavar="B",
                        help="widths to measure (default: %(default)s)")
    parser.add_argument("--inputs", type=number, nargs="+", default=list(INPUTS), metavar="N",
                        help="fan-ins to measure (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=TABLE, metavar="FILE",
                        help="the table (default: the package's own)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="which Yosys (default: auto)")
    parser.add_argument("--jobs", type=number, default=processors(), metavar="N",
                        help="runs at once (default: one a processor)")
    args = parser.parse_args(arguments)
    engine = Engine(args.engine)
    with engine.stopping():
        table = explore(engine, Cache(cache_folder()), args.bits, args.inputs, args.jobs)
    # one row a line: differences between two runs can be read
    rows = ",\n".join(json.dumps(row) for row in table.pop("rows"))
    head = json.dumps(table, indent=1)[:-2]
    write_atomically(args.out, f'{head},\n "rows": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    run(main)
