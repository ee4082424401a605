# SPDX-License-Identifier: Apache-2.0
"""Plans of networks on a chip as tables."""

from rich.console import Console

from bmhw.chip.plan import Memory, Plan

from .tables import plain_table, print_whole

__all__ = ["print_plan"]


def print_plan(plan: Plan) -> None:
    """A row for each layer; the FIFOs of shortcuts below. Lines are as long as they have to be."""
    console = Console(highlight=False)
    console.print(f"{plan.name}: {plan.elements} elements, {plan.cycles:,} cycles an image, "
                  f"{plan.weight_bits / 1000:,.0f} kbit of weights", soft_wrap=True)
    table = plain_table()
    for column in ("layer", "inputs", "outputs", "groups", "P", "cycles", "weights", "window"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in plan.layers:
        shape = layer.shape
        table.add_row(layer.name, str(shape.fan_in), str(shape.outputs), str(shape.groups), str(shape.parallel),
                      f"{shape.cycles:,}", _memory(layer.weights), _memory(layer.window))
    print_whole(table)
    console.print("P: elements, outputs at a time; memories: words x bits")
    for name, memory in plan.fifos.items():
        console.print(f"FIFO of the shortcut of {name.removesuffix('_shortcut_fifo')}: {_memory(memory)}")


def _memory(memory: Memory) -> str:
    return f"{memory.words:,} x {memory.bits}"
