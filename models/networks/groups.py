# SPDX-License-Identifier: Apache-2.0
"""Into how many groups of input channels the layers of a network are split: as one number for all of them, or by the
inputs that each group has. Needs no PyTorch."""

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["MEANING", "GroupInputs", "Groups", "from_json", "groups_of", "has_groups", "to_json"]

MEANING = 'an integer of 1 or more, or {"inputs": such an integer}'
"""What stands for the groups of a network in JSON."""


@dataclass(frozen=True)
class GroupInputs:
    """As many groups in each layer as leave every one at least so many ``inputs``, channels times taps of the kernel.

    Its field is what JSON calls it, so that ``dataclasses.asdict`` of what holds it gives :func:`to_json`. ValueError
    for less than 1.
    """

    inputs: int

    def __post_init__(self):
        _check("Inputs of a group", self.inputs)

    def __str__(self) -> str:
        """What follows the word groups, as a number of them does."""
        return f"of {self.inputs} inputs or more"


Groups = int | GroupInputs
"""Of a network: the most that a layer may have, or the least inputs of each."""


def groups_of(channels: int, groups: Groups, taps: int) -> int:
    """The groups of a layer with so many input channels, seen at ``taps`` places of its kernel (1 of a dense layer),
    where a network has ``groups``: the largest divisor of ``channels`` that isn't above a number of groups (3 for an
    RGB image at 4), or that leaves each group the inputs (4 of 64 channels, 32 of a kernel of 9 taps, at 16 inputs); 1
    where all are fewer. ValueError where one of these is below 1."""
    _check("Channels", channels)
    _check("Taps", taps)
    if isinstance(groups, GroupInputs):
        most = channels * taps // groups.inputs
    else:
        _check("Groups", groups)
        most = groups
    return next(count for count in range(max(1, min(channels, most)), 0, -1) if channels % count == 0)


def has_groups(groups: Groups) -> bool:
    """Whether a network with such groups is one with several: its layers hand on codes through linear ends, its code 0
    is 0, and it is trained with smaller norms, even where every single layer happens to have one."""
    return groups != 1


def to_json(groups: Groups) -> int | dict[str, int]:
    """As settings, cards and the metadata of floating-point weights say it: a number as itself."""
    return dataclasses.asdict(groups) if isinstance(groups, GroupInputs) else groups


def from_json(value: Any) -> Groups:
    """The groups that :func:`to_json` says like that; ValueError for anything else."""
    try:
        if isinstance(value, dict):
            return GroupInputs(**value)
        _check("Groups", value)
    except (TypeError, ValueError):
        raise ValueError(f"Groups must be {MEANING}, not {value!r}") from None
    return value


def _check(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be an integer of 1 or more, not {value!r}")
