# SPDX-License-Identifier: Apache-2.0
"""What no other point beats: the Pareto frontier of measured designs and networks."""

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["frontier", "unbeaten"]


def unbeaten(costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """For each point whether no other one is at most as costly in everything and less in something."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return [not any(beats(other, cost) for other in costs) for cost in costs]


def frontier(points: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that none of the others beats in gates and depth, from short to long; of equals the first."""
    first: dict[tuple[float, ...], dict[str, Any]] = {}
    for point in points:
        first.setdefault((point["depth"], point["gates"]), point)
    kept = [cost for cost, best in zip(first, unbeaten(list(first)), strict=True) if best]
    return [first[cost] for cost in sorted(kept)]
