# SPDX-License-Identifier: Apache-2.0
"""Networks that were trained in codes of several widths, NAME and each NAME-Bbit: which one a width asks for. Needs no
PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmhw.models.errors import ModelError, ModelUsageError

from .card_fields import reading
from .store import card_path, list_widths, read_card

__all__ = ["at_width", "inner_bits", "inner_formats", "trained_at"]


def inner_formats(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Formats of a card's layers, but for the first and the last one where these have ``edge_bits`` of their own."""
    formats = list(card["layers"].values())
    edge_bits = card.get("training", {}).get("quantisation", {}).get("edge_bits")
    return formats[1:-1] if edge_bits is not None and len(formats) > 2 else formats


def inner_bits(card: Mapping[str, Any]) -> list[int]:
    """Widths of the log codes of :func:`inner_formats` (of the inputs, where all layers are multiply-accumulate),
    sorted."""
    inner = inner_formats(card)
    return sorted({fmt["log_bits"] for fmt in inner if fmt["neuron"] == "bm"} or {fmt["bits"] for fmt in inner})


def at_width(name: str | Path, bits: int | None, rounded: bool = False) -> tuple[str, bool]:
    """What ``store.load`` is to load for codes of ``bits`` bits (None: as trained) of the network ``name``, a name or
    path as there; and whether its codes are of another width, to be rounded.

    A network that was trained in codes of that width is taken as it is, with whatever its first and last layers have:
    ``name`` itself or else NAME-Bbit; unless ``rounded`` asks for others. What is rounded is ``name``, or the widest
    NAME-Bbit where that has no files of its own. ModelUsageError for a network that isn't there.
    """
    widths = list_widths(name)
    if bits is None or not widths:
        path = card_path(name)  # names the widths that there are
    else:
        try:
            path = card_path(name)
        except ModelError:
            path = None
    if bits is None:
        return str(name), False
    if not rounded:
        if path is not None and _trained(path) == [bits]:
            return str(name), False
        if bits in widths:
            return _named(name, bits), False
    return (str(name) if path is not None else _named(name, max(widths))), True


def trained_at(name: str | Path, bits: Any) -> str:
    """:func:`at_width` for those who take only codes that were trained; ModelUsageError for other widths."""
    found, rounded = at_width(name, bits)
    if rounded:
        own = [] if found != str(name) else _trained(card_path(name))
        widths = sorted({*own, *list_widths(name)})
        raise ModelUsageError(f"Width of the codes of {name} must be one that it was trained in, "
                              f"{' or '.join(map(str, widths))} bits, not {bits!r}")
    return found


def _trained(path: Path) -> list[int]:
    with reading(path):
        return inner_bits(read_card(path))


def _named(name: str | Path, bits: int) -> str:
    """NAME-Bbit, as a name or as a path, as ``name`` is."""
    text = str(name)
    if text.endswith((".json", ".safetensors")):
        return str(Path(text).with_name(f"{Path(text).stem}-{bits}bit.json"))
    return f"{text}-{bits}bit"
