# SPDX-License-Identifier: Apache-2.0
"""Integer networks as files: ``NAME.safetensors`` (codes and constants, packed) and its card ``NAME.json``.

The card holds the architecture, each layer's format, the checksum of the weights, and how they were trained
and how well they do. It may lie without weights, for what it says. Needs no PyTorch.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import SCALARS
from bmhw.hdl.formats.codes import LogCode
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.integer.fixed_point import MULTIPLIER, FixedPoint
from bmhw.models.integer.layer import IntegerLayer
from bmhw.models.integer.limits import EXPONENT, FINE, SHIFT, THRESHOLD
from bmhw.models.integer.network import Encoder, IntegerNetwork, Threshold
from bmhw.models.networks.architecture import Architecture, Node

from .card_fields import check_fields
from .packing import packed, unpacked
from .writing import sha256, staged

__all__ = [
    "WEIGHTS", "card_path", "list_models", "list_widths", "load", "read_card", "read_checked", "read_formats", "repack",
    "save",
]  # fmt: skip

WEIGHTS = Path(__file__).parents[1] / "weights"
"""The folder of the networks that come with the package."""

CARD_VERSION = 1
FORMATS = {"bm": BmFormat, "mac": MacFormat}


def list_models(folder: Path = WEIGHTS) -> list[str]:
    """Names of the networks in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.json"))


def list_widths(name: str | Path) -> list[int]:
    """The widths B of the networks NAME-Bbit beside a network ``name``, a name of the package or a path, sorted;
    whether that one is there or not."""
    path = Path(name) if _is_path(name) else WEIGHTS / f"{name}.json"
    found = (re.fullmatch(re.escape(path.stem) + "-([0-9]+)bit", other) for other in list_models(path.parent))
    return sorted(int(match[1]) for match in found if match)


def card_path(name: str | Path) -> Path:
    """The card of a model of the package, or of a .json or .safetensors path; ModelError if absent, with the widths
    that a network of other names has."""
    path = Path(name).with_suffix(".json") if _is_path(name) else WEIGHTS / f"{name}.json"
    if path.is_file() if _is_path(name) else str(name) in list_models(WEIGHTS):
        return path
    widths = list_widths(name)
    if widths:
        raise ModelUsageError(f"Network {name} must be asked for in a width of its codes, --bits "
                              f"{' or '.join(map(str, widths))}; it is there as {path.stem}-{widths[0]}bit")
    if _is_path(name):
        raise ModelError(f"Model card {path} doesn't exist")
    raise ModelUsageError(not_one_of("Model, if not a path ending in .json,", list_models(WEIGHTS), str(name)))


def _is_path(name: str | Path) -> bool:
    return str(name).endswith((".json", ".safetensors"))


def read_card(path: Path) -> dict[str, Any]:
    """The card as plain values; ModelError if it is none of this version."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Model card {path.name} can't be read: {error}") from None
    if not isinstance(card, dict) or card.get("card_version") != CARD_VERSION:
        found = card.get("card_version") if isinstance(card, dict) else None
        raise ModelError(f"Model card {path.name} must have card_version {CARD_VERSION}, not {found!r}")
    check_fields(path.name, card)
    return card


def read_checked(path: Path, checksum: str) -> dict[str, NDArray]:
    """The tensors of a safetensors file, unpacked, whose SHA-256 must be ``checksum``."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load as parse
    except ImportError:
        raise ModelError("Weights files need safetensors: pip install 'bmhw[models]'") from None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"Weights file {path.name} isn't in {path.parent}, only its card is") from None
    except OSError as error:
        raise ModelError(f"Weights file {path.name} can't be read: {error.strerror}") from None
    try:
        tensors = parse(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"Weights file {path.name} is no whole safetensors file: {error}") from None
    if sha256(data) != checksum:
        raise ModelError(
            f"Weights file {path.name} has SHA-256 {sha256(data)[:16]}..., its card says "
            f"{str(checksum)[:16]}...: it was altered or belongs to another card"
        )
    return unpacked(path.name, tensors, _metadata(data))


def _metadata(data: bytes) -> dict[str, str]:
    """What a whole safetensors file says beside its tensors: in the header, whose length its first 8 bytes are."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})


def read_formats(name: str | Path) -> tuple[Path, Architecture, dict[str, BmFormat | MacFormat]]:
    """What the card of :func:`load`'s ``name`` says of the hardware, without any weights: the card's path, the
    architecture, and the format of each layer with neurons. ModelError as there."""
    path = card_path(name)
    card = read_card(path)
    try:
        nodes, entries = card["architecture"], card["layers"]
    except KeyError as error:
        raise ModelError(f"Model card {path.name} lacks {error}") from None
    architecture = Architecture.from_list(nodes)
    formats = {}
    for node in architecture.layers:
        fmt = formats[node.name] = _format(path.name, node.name, entries)
        if fmt.inputs != architecture.fan_in(node):
            raise ModelError(
                f"Format of layer {node.name} must have {architecture.fan_in(node)} inputs, not {fmt.inputs}"
            )
    return path, architecture, formats


def load(name: str | Path) -> IntegerNetwork:
    """The network ``name`` that comes with the package, or the one at a path to its .json or .safetensors
    file.

    Raises ModelError, in one line, for an unknown name and for files that are truncated, altered or foreign.
    """
    path, architecture, formats = read_formats(name)
    card = read_card(path)
    try:
        weights = card["weights"]
        file, checksum = path.parent / Path(weights["file"]).name, weights["sha256"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"Model card {path.name} lacks {error}") from None
    tensors = _Tensors(file.name, read_checked(file, checksum))
    layers = {node.name: _layer(tensors, architecture, node, formats[node.name]) for node in architecture.layers}
    encoders = {
        name: Encoder(end, *(tensors.take(f"{name}.{part}", (architecture[name].channels,), *limit)
                             for part, limit in (("code_shift", SHIFT), ("code_fine", FINE))))
        for name, end in _encoders(path.name, architecture, card).items()
    }
    thresholds = {}
    for node in architecture.nodes:
        if node.is_layer:
            _check_codes(path.name, node, architecture, layers, encoders)
        if node.operation == "norm" and not _gives_codes(node.inputs[0], layers):
            threshold = tensors.take(f"{node.name}.threshold", (node.channels,), *THRESHOLD)
            negative = tensors.take(f"{node.name}.negative", (node.channels,), 0, 1)
            thresholds[node.name] = Threshold(threshold, negative.astype(bool))
    samples = tensors.take("samples", (None, *architecture.image.shape), 0, 255).astype(np.uint8)
    tensors.check_all_taken()
    return IntegerNetwork(
        name=path.stem,
        architecture=architecture,
        layers=layers,
        thresholds=thresholds,
        samples=samples,
        card=card,
        encoders=encoders,
    )


def _gives_codes(name: str, layers: Mapping[str, IntegerLayer]) -> bool:
    return name in layers and layers[name].gives_codes


def _check_codes(
    card_name: str, node: Node, architecture: Architecture, layers: Mapping[str, IntegerLayer],
    encoders: Mapping[str, Encoder],
) -> None:  # fmt: skip
    """ModelError unless what a layer reads, codes of a layer behind its normalisation, encoded ones or numbers, is what
    its format takes."""
    source, layer = architecture[node.inputs[0]], layers[node.name]
    before = layers.get(source.inputs[0]) if source.operation == "norm" else None
    if before is not None and before.gives_codes and isinstance(before.format, MacFormat):
        if before.format.z != layer.format.x or isinstance(layer.format, BmFormat):
            raise ModelError(f"Format of layer {node.name} in {card_name} doesn't fit that of layer {before.name}, "
                             f"whose results are linear codes of {before.format.z.bits} bits")
        return
    log_codes = before.gives_codes if before is not None else False
    log_codes = log_codes or (isinstance(layer.format, BmFormat) and source.name in encoders)
    if layer.takes_codes != log_codes:
        raise ModelError(
            f"Format of layer {node.name} in {card_name} doesn't fit that of the layer before it: one of "
            "the two is about log codes, the other isn't"
        )


def _encoders(card_name: str, architecture: Architecture, card: Mapping[str, Any]) -> dict[str, LinearEnd]:
    """What encodes the linear integers of nodes, by name; older cards and those of networks without groups have none.
    """
    names = {node.name for node in architecture.nodes}
    ends = {}
    for name, entry in card.get("encoders", {}).items():
        if name not in names:
            raise ModelError(f"Model card {card_name} has an encoder of the unknown node {name!r}")
        try:
            ends[name] = LinearEnd(**{**entry, "log": LogCode(**entry["log"])})
        except (KeyError, TypeError) as error:
            raise ModelError(f"Model card {card_name} has no usable encoder of node {name}: {error}") from None
        except ValueError as error:
            raise ModelError(f"Encoder of node {name} in {card_name}: {error}") from None
    return ends


class _Tensors:
    """The tensors of a file, taken one by one with their shapes and ranges checked."""

    def __init__(self, file: str, tensors: dict[str, NDArray]):
        self.file, self.tensors = file, tensors

    def take(self, name: str, shape: tuple[int | None, ...], low: int, high: int) -> NDArray[np.int64]:
        if name not in self.tensors:
            raise ModelError(f"Weights file {self.file} lacks the tensor {name}")
        tensor = self.tensors.pop(name)
        if (
            tensor.dtype.kind not in "iub"
            or tensor.ndim != len(shape)
            or any(expected not in (None, found) for expected, found in zip(shape, tensor.shape, strict=True))
        ):
            raise ModelError(
                f"Tensor {name} in {self.file} must hold integers of shape {shape}, "
                f"not {tensor.dtype} of shape {tensor.shape}"
            )
        values = tensor.astype(np.int64)
        outside = (values < low) | (values > high)
        if outside.any():
            raise ModelError(
                f"Tensor {name} in {self.file} must be from {low} to {high}, not {values[outside].flat[0]}"
            )
        return values

    def check_all_taken(self) -> None:
        if self.tensors:
            raise ModelError(f"Weights file {self.file} holds the unknown tensor {min(self.tensors)}")


def _format(card_name: str, layer: str, formats: Mapping[str, Any]) -> BmFormat | MacFormat:
    try:
        entry = dict(formats[layer])
        return FORMATS[entry.pop("neuron")](**entry)
    except (KeyError, TypeError) as error:
        raise ModelError(f"Model card {card_name} has no usable format of layer {layer}: {error}") from None
    except ValueError as error:
        raise ModelError(f"Format of layer {layer} in {card_name}: {error}") from None


def _layer(tensors: _Tensors, architecture: Architecture, node, fmt: BmFormat | MacFormat) -> IntegerLayer:
    weights = {}
    for port, (code, _elements) in fmt.inputs_of.items():
        if port not in ("x", "c", "negative", *SCALARS):
            weights[port] = tensors.take(
                f"{node.name}.{port}", (node.channels, fmt.inputs), code.minimum, code.maximum
            )
    if isinstance(fmt, BmFormat) and fmt.layout == "wired":
        sign = tensors.take(f"{node.name}.sign", (node.channels, fmt.inputs), 0, 1)
        negative, wanted = sign.reshape(len(sign), fmt.groups, -1).sum(axis=2), fmt.candidates[1]
        if (negative != wanted).any():
            of = "an output" if fmt.groups == 1 else "an output and group"
            raise ModelError(
                f"Tensor {node.name}.sign in {tensors.file} must have {wanted} ones {of}, "
                f"not {negative[negative != wanted][0]}"
            )
        weights["sign"] = sign
    biases = {}
    for port in (port for port in SCALARS if port in fmt.inputs_of and port != "scale"):
        code = fmt.inputs_of[port][0]
        most = code.maximum if port == "bias" else fmt.full_scale
        biases[port] = tensors.take(f"{node.name}.{port}", (node.channels,), code.minimum, most)
    in_channels = architecture[node.inputs[0]].channels
    shift = tensors.take(f"{node.name}.shift", (in_channels,), *SHIFT)
    scale = FixedPoint.of_shift(shift)
    if f"{node.name}.multiplier" in tensors.tensors:
        scale = FixedPoint(tensors.take(f"{node.name}.multiplier", (in_channels,), 0, MULTIPLIER.maximum), shift)
    exponent = tensors.take(f"{node.name}.exponent", (node.channels,), *EXPONENT)
    fine = None
    if isinstance(fmt, BmFormat) and fmt.result == "code" and fmt.combine == "linear":
        fine = tensors.take(f"{node.name}.fine", (node.channels,), *FINE)
    rescale, gives_codes = None, isinstance(fmt, MacFormat) and fmt.result == "code"
    if isinstance(fmt, MacFormat) and (gives_codes or f"{node.name}.out_multiplier" in tensors.tensors):
        shifts = (1, fmt.y.bits + fmt.scale_bits) if gives_codes else SHIFT
        rescale = FixedPoint(tensors.take(f"{node.name}.out_multiplier", (node.channels,), 0, fmt.scale.maximum),
                             tensors.take(f"{node.name}.out_shift", (node.channels,), *shifts))
    layer = IntegerLayer(
        node=node, format=fmt, weights=weights, biases=biases, scale=scale, exponent=exponent, fine=fine,
        rescale=rescale,
    )
    for channel in () if fine is None else (int(fine.argmin()), int(fine.argmax())):
        try:
            layer.neuron(channel)
        except ValueError as error:
            raise ModelError(f"Tensor {node.name}.fine in {tensors.file}: {error}") from None
    return layer


def save(network: IntegerNetwork, folder: Path, card: Mapping[str, Any]) -> Path:
    """Write ``folder/NAME.safetensors`` and its card; returns the card's path.

    Both are read again, with :func:`load`, before they stand there: ModelError for what can't be, and nothing written.
    ``card``: the entries on data, training and accuracy; architecture, formats and checksum are added.
    """
    from safetensors.numpy import save as serialise

    tensors: dict[str, NDArray] = {"samples": network.samples}
    for name, layer in network.layers.items():
        for part, values in (
            *layer.weights.items(),
            *layer.biases.items(),
            *_scale_tensors("", layer.scale),
            ("exponent", layer.exponent),
            *((("fine", layer.fine),) if layer.fine is not None else ()),
            *(() if layer.rescale is None else _scale_tensors("out_", layer.rescale, always=True)),
        ):
            tensors[f"{name}.{part}"] = values
    for name, threshold in network.thresholds.items():
        tensors[f"{name}.threshold"] = threshold.threshold
        tensors[f"{name}.negative"] = threshold.negative.astype(np.uint8)
    for name, encoder in network.encoders.items():
        tensors[f"{name}.code_shift"] = encoder.shift
        tensors[f"{name}.code_fine"] = encoder.fine
    data = serialise(*packed(tensors))
    layers = {
        name: {
            "neuron": "bm" if isinstance(layer.format, BmFormat) else "mac",
            **dataclasses.asdict(layer.format),
        }
        for name, layer in network.layers.items()
    }
    file = f"{network.name}.safetensors"
    whole = {
        "card_version": CARD_VERSION,
        "name": network.name,
        **card,
        "weights": {"file": file, "bytes": len(data), "sha256": sha256(data)},
        "layers": layers,
        "architecture": network.architecture.to_list(),
    }
    if network.encoders:
        whole["encoders"] = {name: dataclasses.asdict(encoder.end) for name, encoder in network.encoders.items()}
    if network.architecture.border:  # the layers that pad the image pad it with these pixels, not with zeros
        whole["border_codes"] = next(node.border_codes for node in network.architecture.nodes if node.border)
    card_file = f"{network.name}.json"
    with staged(folder) as stage:
        (stage / file).write_bytes(data)
        (stage / card_file).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        load(stage / card_file)
    return folder / card_file


def repack(path: Path) -> Path:
    """Write a network's files anew where they are: the same integers in as few bytes as :func:`save` takes for them,
    and its card with their checksum; returns the card's path. ModelError as of :func:`load`."""
    network = load(path)
    return save(network, path.parent, network.card)


def _scale_tensors(prefix: str, scale: FixedPoint, always: bool = False) -> tuple[tuple[str, NDArray], ...]:
    """The multiplier is left out where it is 1, unless it is to be there ``always``."""
    multiplier = ((f"{prefix}multiplier", scale.multiplier),) if always or not scale.is_shift else ()
    return (*multiplier, (f"{prefix}shift", scale.shift))
