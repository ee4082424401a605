# SPDX-License-Identifier: Apache-2.0
"""What single layers' neurons are, as text: ``NAME=KIND``."""

from collections.abc import Iterable
from typing import NamedTuple

from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.choices import LAYOUTS
from bmhw.models.errors import ModelUsageError

__all__ = ["NeuronKind", "neuron_kinds"]

MAC = "mac"
WIDTHS = range(2, 17)


class NeuronKind(NamedTuple):
    """``layout``: of a BM layer, or ``mac``; ``bits``: of a multiply-accumulate layer's inputs and weights, None: as
    those of its network."""

    layout: str
    bits: int | None = None


def neuron_kinds(entries: Iterable[str]) -> dict[str, NeuronKind]:
    """Layer name -> kind of entries such as ``dense=mac8`` or ``stem=signed``. ModelUsageError for what is none, and
    for a layer that is named twice; whether it exists is for the architecture to say."""
    kinds: dict[str, NeuronKind] = {}
    for entry in entries:
        name, equals, kind = entry.partition("=")
        if not (name and equals):
            raise ModelUsageError(f"Neurons of a layer must be NAME=KIND, not {entry!r}")
        if name in kinds:
            raise ModelUsageError(f"Neurons of layer {name} must be given once, not twice ({entry})")
        kinds[name] = _kind(name, kind)
    return kinds


def _kind(layer: str, text: str) -> NeuronKind:
    if text in LAYOUTS:
        return NeuronKind(text)
    width = text.removeprefix(MAC)
    if text.startswith(MAC) and not width:
        return NeuronKind(MAC)
    if text.startswith(MAC) and width.isascii() and width.isdigit():
        if int(width) not in WIDTHS:
            raise ModelUsageError(f"Width of layer {layer} must be from {WIDTHS[0]} to {WIDTHS[-1]} bits, not {width}")
        return NeuronKind(MAC, int(width))
    raise ModelUsageError(not_one_of(f"Neurons of layer {layer}", [*LAYOUTS, MAC, f"{MAC}BITS"], text))
