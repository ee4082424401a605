# SPDX-License-Identifier: Apache-2.0
"""Many values to one, as a balanced tree in the order given."""

from collections.abc import Iterable

from amaranth.hdl import Const, Value

__all__ = ["any_of"]


def any_of(values: Iterable[Value]) -> Value:
    """The bitwise OR of values; 0 of none. Neighbours meet first."""
    level = list(values)
    while len(level) > 1:
        level = [a | b for a, b in zip(level[::2], level[1::2], strict=False)] + level[len(level) & ~1:]
    return level[0] if level else Const(0)
