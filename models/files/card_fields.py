# SPDX-License-Identifier: Apache-2.0
"""The fields of cards: what each holds where it is there, and one line for one that is missing. Needs no PyTorch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bmhw.models.errors import ModelError
from bmhw.models.networks.groups import MEANING, from_json

__all__ = ["check_fields", "reading"]


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types) and not (isinstance(value, bool) and bool not in types)



def _is_groups(value: Any) -> bool:
    try:
        from_json(value)
    except ValueError:
        return False
    return True


TEXT, COUNT, NUMBER = ("text", _is(str)), ("an integer", _is(int)), ("a number", _is(int, float))
OBJECT, LIST = ("an object", _is(dict)), ("a list", _is(list))
NAMES = "text or null", _is(str, type(None))
COUNT_OR_NONE = "an integer or null", _is(int, type(None))
GROUPS = MEANING, _is_groups


def _three(kind: tuple[str, Callable[[Any], bool]]) -> tuple[str, Callable[[Any], bool]]:
    holds = kind[1]
    return f"a list of 3, each {kind[0]}", lambda value: _is(list)(value) and len(value) == 3 and all(map(holds, value))


FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": TEXT,
    "accuracy": OBJECT, "accuracy.*": NUMBER,
    "data": OBJECT, "data.name": TEXT, "data.description": TEXT, "data.test_images": COUNT,
    "training": OBJECT,
    **{f"training.{key}": TEXT for key in ("dataset", "architecture", "layout", "method", "bmhw_version",
                                           "torch_version")},
    **{f"training.{key}": NAMES for key in ("commit", "initial")},
    **{f"training.{key}": COUNT for key in ("seed", "batch", "validation")},
    "training.epoch_images": COUNT_OR_NONE,
    "training.epochs": _three(COUNT), "training.rates": _three(NUMBER),
    "training.quantisation": OBJECT, "training.quantisation.log_fraction": COUNT_OR_NONE,
    "training.quantisation.edge_bits": COUNT_OR_NONE, "training.quantisation.groups": GROUPS,
    "training.history": LIST, "training.history.*": OBJECT,
    "weights": OBJECT, "weights.file": TEXT, "weights.sha256": TEXT, "weights.bytes": COUNT,
    "float_weights": OBJECT, "float_weights.files": LIST, "float_weights.files.*": OBJECT,
    "float_weights.files.*.file": TEXT, "float_weights.files.*.sha256": TEXT,
    "float_weights.groups": GROUPS,
    "float_weights.layouts": OBJECT, "float_weights.layouts.*": TEXT,
    "architecture": LIST, "architecture.*": OBJECT,
    "layers": OBJECT, "layers.*": OBJECT,
    **{f"layers.*.{key}": COUNT for key in ("inputs", "bits", "log_bits", "weight_bits", "maximum_bits", "groups",
                                            "offset", "residual_bits")},
    **{f"layers.*.{key}": TEXT for key in ("neuron", "layout", "sums", "combine", "zero")},
    "encoders": OBJECT, "encoders.*": OBJECT, "encoders.*.log": OBJECT, "encoders.*.method": TEXT,
    **{f"encoders.*.{key}": COUNT for key in ("out_fraction", "offset", "reach", "log.bits", "log.fraction")},
}  # fmt: skip
"""Field, ``*`` for every one of a list or object, -> what it must be."""


def check_fields(file: str, card: Mapping[str, Any]) -> None:
    """ModelError for the first field of a card that holds something else than it must; missing ones are not looked
    for."""
    for pattern, (what, holds) in FIELDS.items():
        for name, value in _found(card, pattern.split("."), ""):
            if not holds(value):
                shown = repr(value)
                raise ModelError(f"Field {name} of model card {file} must be {what}, not "
                                 f"{shown if len(shown) <= 60 else shown[:57] + '...'}")


def _found(value: Any, keys: list[str], name: str) -> Iterator[tuple[str, Any]]:
    if not keys:
        yield name.removeprefix("."), value
        return
    if isinstance(value, dict):
        items = value.items() if keys[0] == "*" else [(keys[0], value[keys[0]])] if keys[0] in value else ()
    else:
        items = enumerate(value) if isinstance(value, list) and keys[0] == "*" else ()
    for key, inner in items:
        yield from _found(inner, keys[1:], f"{name}.{key}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within it, a field that a card lacks is a ModelError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"Model card {path.name} lacks {error}") from None
