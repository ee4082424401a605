# SPDX-License-Identifier: Apache-2.0
"""Plans of networks on a chip as tables."""

from rich import box
from rich.table import Table

from bmhw.chip.plan import Memory, Plan

__all__ = ["plan_table"]


def plan_table(plan: Plan) -> Table:
    """A row for each layer; the FIFOs of shortcuts below."""
    kbit = plan.weight_bits / 1000
    fifos = "".join(f"\nFIFO {name.removesuffix('_shortcut_fifo')}: {_memory(memory)}"
                    for name, memory in plan.fifos.items())
    table = Table(title=f"{plan.name}: {plan.elements} elements, {plan.cycles:,} cycles an image, {kbit:,.0f} kbit of "
                        "weights", box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left",
                  pad_edge=False, padding=(0, 1, 0, 0),
                  caption=f"P: elements, outputs at a time; memories: words x bits{fifos}")
    for column in ("layer", "inputs", "outputs", "groups", "P", "cycles", "weights", "window"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for layer in plan.layers:
        shape = layer.shape
        table.add_row(layer.name, str(shape.fan_in), str(shape.outputs), str(shape.groups), str(shape.parallel),
                      f"{shape.cycles:,}", _memory(layer.weights), _memory(layer.window))
    return table


def _memory(memory: Memory) -> str:
    return f"{memory.words:,} x {memory.bits}"
