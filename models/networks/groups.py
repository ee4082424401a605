# SPDX-License-Identifier: Apache-2.0
"""Into how many groups of input channels a layer's neurons are split."""

__all__ = ["groups_of"]


def groups_of(channels: int, groups: int) -> int:
    """The groups of a layer with so many input channels where a network has ``groups``: the largest divisor of
    ``channels`` that is not above it (3 for an RGB image at 4). ValueError where either is below 1."""
    for what, value in (("Channels", channels), ("Groups", groups)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{what} must be an integer of 1 or more, not {value!r}")
    return next(count for count in range(min(channels, groups), 0, -1) if channels % count == 0)
