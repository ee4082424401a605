# SPDX-License-Identifier: Apache-2.0
"""Every architecture of both neurons, measured: the table that ``auto`` chooses from."""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bmhw.errors import RunError, UsageError
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.files import reading
from bmhw.flow.synthesis import in_parallel, map_design
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LOG_SUBTRACT_FRACTION, SUMS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.linear_ends import refusal
from bmhw.hdl.neurons.log_ends import LOG_ENDS

from .generation import generate
from .selection import MAC_MULTIPLIERS, ONE_GROUP, SCRIPT_OF, shape

__all__ = ["FAMILIES", "SHAPES", "TABLE", "designs", "explore", "merged", "table_in", "table_text"]

# BM layouts; the bipolar one has the maxima of relu, twice.
LAYOUTS = ("relu", "signed", "wired")
# MAC neurons, BM neurons by layout, and those whose linear end makes a code, of one group or several.
FAMILIES = ("mac", *LAYOUTS, "groups")
TABLE = Path(__file__).parent / "data" / "architectures.json"
# Widths by fan-in: between them `ranking` takes the nearest.
SHAPES = {9: (4, 5, 6, 8, 12, 16), 64: (3, 4, 5, 8)}
# (width, inputs) at which the family groups is measured -> the numbers of groups.
GROUPS = {(3, 64): (4,), (4, 64): (1, 4), (5, 64): (1, 4)}
# (width, inputs) at which no other family is.
ONLY_GROUPS = ((4, 64),)
# What the maxima see of clamped sums where it isn't three of four bits: trained networks show what that costs
# (docs/results/training.md).
MAXIMUM_BITS = {8: 5}
# The same in front of a linear result, where it isn't as many.
LINEAR_MAXIMUM_BITS = {8: 4}
# (width, inputs) that the script for delay measures too, from code to code: it takes several times as long as the one
# for area.
BOTH_SCRIPTS = ((5, 9), (8, 9))
# (width, inputs) at which those of layout wired are measured, with clamped sums.
WIRED = ((5, 9), (8, 9), (5, 64), (8, 64))
# (width, inputs) at which neurons with a linear result are measured as well -> the BM neurons' sums.
LINEAR = {(5, 64): ("clamped",), (8, 64): ("clamped",), (8, 9): SUMS}


# Those that can win: an adder of a MAC neuron is long and alone, those of a BM neuron are short and many, and suit
# maxima that are as fast as they are. The first pair of a BM neuron is the textbook's.
MAC_ADDERS = ("ripple", "brent_kung", "sklansky")
BM_PAIRS = (
    ("tree", "ripple"), ("elimination", "ripple"), ("elimination", "lookahead"), ("online", "lookahead"),
    ("online", "sklansky"),
    *itertools.product(("digits", "digits3"), ("ripple", "lookahead_top", "lookahead", "sklansky_late", "sklansky")),
)
"""(maximum, adder)"""
# The end that waits for the maxima is for few gates: where the other one can be built, it is measured with small ones.
SMALL_PAIRS = [pair for pair in BM_PAIRS if pair[0] != "online" and pair[1] == "ripple"]
# Of the family groups: of few bits the maxima of 16 inputs need no digits.
GROUP_PAIRS = (
    ("elimination", "ripple"), ("elimination", "sklansky_late"), ("digits", "ripple"), ("digits", "sklansky_late"),
    ("digits3", "sklansky_late"), ("unary", "ripple"), ("unary", "sklansky_late"),
)
# A result -> ends that are measured with all of these; of several groups the first pair has the plain end as well.
GROUP_ENDS = {"code": ("anticipate", "select_anticipate"), "linear": ("select",)}


def family_of(row: dict[str, Any]) -> str:
    """One of :data:`FAMILIES`: that of a row, or of a shape."""
    of_groups = (row["bits"], row["inputs"]) in GROUPS and row["combine"] == "linear" and row["result"] == "code"
    return "groups" if of_groups or row.get("groups", 1) > 1 else row["layout"] or "mac"


def designs(width: int, inputs: int) -> Iterator[Design]:
    """Every architecture at a width and fan-in that is measured: of the neurons of one group, then of groups."""
    if (width, inputs) not in ONLY_GROUPS:
        yield from _plain(width, inputs)
    yield from _groups(width, inputs)


def _groups(width: int, inputs: int) -> Iterator[Design]:
    """Where :data:`GROUPS` has them: all bits of clamped sums, from code to code and, of several groups, to a linear
    result; from code to code of full sums as well."""
    for groups, layout, (sums, result) in itertools.product(
            GROUPS.get((width, inputs), ()), LAYOUTS, (("clamped", "code"), ("full", "code"), ("clamped", "linear"))):
        if groups == 1 and (sums, result) != ("clamped", "code"):
            continue
        fmt = BmFormat(inputs=inputs, bits=width, layout=layout, boundary="layer", sums=sums, result=result,
                       groups=groups)
        first = {"maximum": GROUP_PAIRS[0][0], "adder": GROUP_PAIRS[0][1]}
        if groups > 1:
            yield Design(format=fmt, **first, end="subtract")
        for (maximum, adder), end in itertools.product(GROUP_PAIRS, GROUP_ENDS[result]):
            if not refusal(fmt, maximum, end) and (maximum != "unary" or end == GROUP_ENDS[result][0]):
                yield Design(format=fmt, maximum=maximum, adder=adder, end=end)


def _plain(width: int, inputs: int) -> Iterator[Design]:
    """MAC neurons and BM neurons of one group, from activation code to activation code.

    BM neurons with full sums, and with clamped ones of which the maxima see three of four bits, or
    :data:`MAXIMUM_BITS`; with the logarithmic end where it can be built. Those of layout wired at :data:`WIRED` and
    with clamped sums only. At :data:`LINEAR` both neurons also from activation code to linear result.
    """
    results = ("code", "linear") if (width, inputs) in LINEAR else ("code",)
    for result, multiplier, adder in itertools.product(results, MAC_MULTIPLIERS, MAC_ADDERS):
        fmt = MacFormat(inputs=inputs, bits=width, boundary="layer", result=result)
        yield Design(format=fmt, multiplier=multiplier, adder=adder)
    for layout, sums in itertools.product(LAYOUTS, SUMS):
        if layout == "wired" and (sums == "full" or (width, inputs) not in WIRED):
            continue
        fmt = BmFormat(inputs=inputs, bits=width, layout=layout, boundary="layer", sums=sums)
        bits = MAXIMUM_BITS.get(width, math.ceil(0.75 * width))
        formats = [_seeing(fmt, bits)]
        if fmt.log_fraction <= LOG_SUBTRACT_FRACTION:
            formats[0] = dataclasses.replace(formats[0], combine="logarithmic")
        if sums in LINEAR.get((width, inputs), ()):
            formats.append(dataclasses.replace(_seeing(fmt, LINEAR_MAXIMUM_BITS.get(width, bits)), result="linear"))
        for fmt in formats:
            selects = fmt.maximum_bits <= LOG_ENDS["select"].most_bits
            built = {"select": BM_PAIRS, "subtract": SMALL_PAIRS} if selects else {"subtract": BM_PAIRS}
            for end, pairs in built.items():
                for maximum, adder in pairs:
                    yield Design(format=fmt, maximum=maximum, adder=adder, end=end)


def _seeing(fmt: BmFormat, bits: int) -> BmFormat:
    """The format with maxima that see so many bits of clamped sums, or all of full ones."""
    return fmt if fmt.sums == "full" else dataclasses.replace(fmt, maximum_bits=bits)


def explore(engine: Engine, cache: Cache, shapes: Sequence[tuple[int, int]], jobs: int,
            families: Collection[str] = FAMILIES, report: Callable[[float], None] = lambda share: None,
            ) -> dict[str, Any]:
    """Measure the families' designs of the shapes (width, inputs) with the script for area, and some with that for
    delay too. Interrupted and called again, it goes on from the cache. ``report`` hears of each share of the work."""
    todo = [(design, script) for width, n in shapes for design in designs(width, n)
            if family_of(shape(design.format)) in families
            for script in dict.fromkeys(SCRIPT_OF.values())
            if script == "area" or ((width, n) in BOTH_SCRIPTS and design.format.result == "code")]
    if not todo:
        raise UsageError(f"there is no design of {', '.join(families)} to measure at "
                         f"{', '.join(f'{width} bits and {n} inputs' for width, n in shapes)}")

    def row(design: Design, script: str) -> tuple[dict[str, Any], str]:
        generated = generate(design, cache)
        figures = map_design(generated.verilog, generated.name, by_parts=False, objective=script, engine=engine,
                             cache=cache, library=None)
        report(1 / len(todo))
        fmt = design.format
        told = {name: value for name, value in shape(fmt).items() if (name, value) not in ONE_GROUP.items()}
        return {**told, "sums": getattr(fmt, "sums", None), "architecture": design.architecture,
                "script": script, "gates": figures.gates, "depth": figures.depth}, figures.yosys

    rows = in_parallel(engine, [partial(row, *item) for item in todo], jobs)
    return {"engine": engine.version, "yosys": rows[0][1], "rows": [row for row, _ in rows]}


def merged(table: dict[str, Any], path: Path, shapes: Sequence[tuple[int, int]],
           families: Collection[str] = FAMILIES) -> dict[str, Any]:
    """The table with the rows that the one in ``path`` has of other shapes and families; RunError if other tools
    measured those."""
    old = table_in(path)
    if old is None:
        return table
    kept = [row for row in old["rows"]
            if (row["bits"], row["inputs"]) not in set(shapes) or family_of(row) not in families]
    for tool in ("engine", "yosys"):
        if kept and old[tool] != table[tool]:
            raise RunError(f"{path} was measured by {old[tool]}, not {table[tool]}: measure all shapes, or take --out")
    return {**table, "rows": kept + table["rows"]}


def table_in(path: Path) -> dict[str, Any] | None:
    """The table of an earlier run; None where there is no file, RunError for another one."""
    if not path.exists():
        return None
    with reading(path, "table of bmhw.explore"):
        table = json.loads(path.read_text())
        for row in table["rows"]:
            hash((row["bits"], row["inputs"], family_of(row)))
        (table["engine"], table["yosys"])
    return table


def table_text(table: dict[str, Any]) -> str:
    """The table as JSON, one row a line: differences between two runs can be read."""
    rows = ",\n".join(json.dumps(row) for row in table["rows"])
    head = json.dumps({key: value for key, value in table.items() if key != "rows"}, indent=1)[:-2]
    return f'{head},\n "rows": [\n{rows}\n]}}\n'
