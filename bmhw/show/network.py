# SPDX-License-Identifier: Apache-2.0
"""Plans, estimates and checks of networks on a chip as tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bmhw.chip.plan import Memory, Plan

from .tables import plain_table, print_whole

if TYPE_CHECKING:  # a plan needs no simulators
    from bmhw.chip.bench import Bench
    from bmhw.chip.check import Result

__all__ = ["print_calibration", "print_check", "print_plan"]


def print_plan(plan: Plan) -> None:
    """A row for each layer; the FIFOs of shortcuts below. Lines are as long as they have to be."""
    console = Console(highlight=False)
    console.print(f"{plan.name}: {plan.elements} elements, {plan.cycles:,} cycles an image, "
                  f"{plan.weight_bits / 1000:,.0f} kbit of weights"
                  + (f" and {plan.table_bits / 1000:,.1f} of constants, writable" if plan.tables else ""),
                  soft_wrap=True)
    table = plain_table()
    columns = ("layer", "inputs", "outputs", "groups", "P", "cycles", "weights", "window")
    for column in (*columns, "cells") if plan.device else columns:
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in plan.layers:
        shape = layer.shape
        table.add_row(layer.name, str(shape.fan_in), str(shape.outputs), str(shape.groups), str(shape.parallel),
                      f"{shape.cycles:,}", *(_memory(layer.memories[name], plan.blocks.get((layer.name, name)))
                                             for name in ("weights", "window")),
                      *([f"{layer.cells:,}"] if plan.device else ()))
    print_whole(table)
    console.print("P: elements, outputs at a time; memories: words x bits" + (
        ": block RAMs (as many as these bits would fill); cells: logic cells, by estimate" if plan.device else ""),
        soft_wrap=True)
    if plan.device:
        console.print(plan.takes, soft_wrap=True)
    for name, memory in plan.fifos.items():
        console.print(f"FIFO of the shortcut of {name.removesuffix('_shortcut_fifo')}: "
                      f"{_memory(memory, plan.blocks.get((name, 'numbers')))}")


def print_check(result: "Result", bench: "Bench", seconds: float) -> None:
    """What a check found, in a sentence, and how full FIFOs were, a row for each."""
    console = Console(highlight=False)
    rate = result.cycles_per_image
    console.print(
        f"{result.images:,} images, every number of {len(bench.taps)} parts as in the integer network; "
        f"{100 * result.right / result.images:.2f} % right" + (f"; {rate:,.0f} cycles an image" if rate else "")
        + f"; {result.cycles:,} cycles, {seconds:.0f} s", soft_wrap=True)
    if not result.fifos:
        return
    table = plain_table()
    for column in ("FIFO of the shortcut of", "depth", "works with", "largest filling", "full, cycles"):
        table.add_column(column, justify="right" if table.columns else "left")
    for name, filling in result.fifos.items():
        table.add_row(name.removesuffix("_shortcut_fifo"), f"{bench.plan.fifos[name].words:,}",
                      f"{bench.assembly.fifos[name].working:,}", f"{filling.largest:,}", f"{filling.waited:,}")
    print_whole(table)


def print_calibration(table: Mapping[str, Any]) -> None:
    """Logic cells counted and estimated: of each chip from which the coefficients come, of all pieces of a name; the
    error of all and the mean one."""
    shown = plain_table()
    for column in ("logic cells", "counted", "estimated", "error", "of each piece"):
        shown.add_column(column, justify="right" if shown.columns else "left")
    for rows in (table["pieces"], table["chips"]):
        for name, row in rows.items():
            errors = (row["estimated"] - row["counted"], row["off"])
            shown.add_row(name, f"{row['counted']:,}", f"{row['estimated']:,.0f}", *(
                f"{error / row['counted']:{form}}" if row["counted"] else ""
                for error, form in zip(errors, ("+.1%", ".1%"), strict=True)))
        shown.add_section()
    print_whole(shown)


def _memory(memory: Memory, blocks: tuple[int, float] | None) -> str:
    size = f"{memory.words:,} x {memory.bits}"
    return size if blocks is None else f"{size}: {blocks[0]} ({blocks[1]:.1f})"
