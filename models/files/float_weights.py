# SPDX-License-Identifier: Apache-2.0
"""The floating-point networks behind an integer one, classical and BM, in half precision; a tensor with weights that
have none stays in single.

Both lie in ``NAME-float.safetensors``; beyond ``LARGEST_FILE``, the BM one in as many files as it takes,
``NAME-float.safetensors``, ``NAME-2-float.safetensors``, ..., and the classical one in
``NAME-classical-float.safetensors``. They are what the accuracies in floating point are measured on; the
constants of the normalisations stay float32. The files' metadata hold the BM network's layouts, which its tensors'
shapes don't always tell, the ``groups`` of its layers where there are several, and the pixels that the image is padded
with (``border`` of a Node) where these aren't zeros. So does the card.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.choices import LAYOUTS as BM_LAYOUTS
from bmhw.models.errors import ModelError
from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.groups import MEANING, Groups, from_json, has_groups, to_json
from bmhw.models.networks.network import Network

from .card_fields import reading
from .store import card_path, read_card, read_checked
from .writing import sha256, write_atomically

__all__ = [
    "border_of", "float_files", "groups_of_file", "half_precision", "layouts_of", "load_float", "parts", "save_float",
]  # fmt: skip

NETWORKS = ("classical", "bm")
SUFFIX = "-float.safetensors"
BORDER = "border"
"""Key of the metadata: the pixels, one a channel, as JSON."""
LAYOUTS = "layouts"
"""The same: layer -> layout, as JSON."""
GROUPS = "groups"
"""The same: ``Network.groups`` of the BM network, as JSON (``networks.groups.to_json``); none: 1."""

LARGEST_FILE = 1_500_000
"""Bytes; what is larger is split, so that a repository holds no large file."""


def _kept(value: torch.Tensor) -> torch.Tensor:
    """A tensor as the file holds it: constants, and weights beyond half precision (above 65504, or so small that they
    would become 0), in single precision, other weights in half."""
    half = value.half()
    beyond = ~half.isfinite() | ((half == 0) & (value != 0))
    return half if value.ndim > 1 and not beyond.any() else value


def half_precision(network: Network) -> Network:
    """The network with its weights rounded to what the file holds: figures are measured on that."""
    copy = Network(network.architecture, network.layouts, network.groups)
    copy.load_state_dict(
        {
            key: _kept(value).float() if value.is_floating_point() else value
            for key, value in network.state_dict().items()
        }
    )
    return copy.eval()


def save_float(
    name: str, folder: Path, networks: dict[str, Network], known: Path | None = None
) -> dict[str, Any]:
    """Write the networks' files into a folder; returns their entry for the card.

    If ``known`` is the ``-float.safetensors`` file of the very same networks, its name and content are kept, so that
    networks of several code widths share their files.
    """
    files = _serialised(name, networks)
    if known is not None:
        same = _serialised(known.name.removesuffix(SUFFIX), networks)
        groups = networks["bm"].groups
        if all(_holds(known.with_name(file), data, groups) for file, data in same.items()):
            files = {file: known.with_name(file).read_bytes() for file in same}
    for file, data in files.items():
        write_atomically(folder / file, lambda path, data=data: path.write_bytes(data))
    entries = [{"file": file, "bytes": len(data), "sha256": sha256(data)} for file, data in files.items()]
    entry = {"files": entries, "layouts": networks["bm"].layouts}
    groups = networks["bm"].groups
    return entry | {GROUPS: to_json(groups)} if has_groups(groups) else entry


def _holds(path: Path, data: bytes, groups: Groups) -> bool:
    """Whether a file holds the same tensors, in the same groups; older ones have no other metadata."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    try:
        there, here = load(path.read_bytes()), load(data)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, KeyError, ValueError):
        return False
    return metadata.get(GROUPS, "1") == json.dumps(to_json(groups)) and there.keys() == here.keys() and all(
        there[key].dtype == value.dtype and np.array_equal(there[key], value) for key, value in here.items()
    )


def _serialised(name: str, networks: dict[str, Network]) -> dict[str, bytes]:
    """File name -> content."""
    from safetensors.numpy import save as serialise

    tensors: dict[str, dict[str, np.ndarray]] = {}
    for kind in NETWORKS:
        tensors[kind] = {}
        for key, value in networks[kind].state_dict().items():
            if value.is_floating_point():
                tensors[kind][f"{kind}.{key}"] = _kept(value).cpu().numpy()
    network = networks["bm"]
    metadata = {LAYOUTS: json.dumps(network.layouts)}
    if has_groups(network.groups):
        metadata[GROUPS] = json.dumps(to_json(network.groups))
    if network.architecture.border:
        metadata[BORDER] = json.dumps(network.architecture.border)
    files = _packed(tensors["classical"] | tensors["bm"], metadata)
    if len(files) > 1:
        files = [*_packed(tensors["bm"], metadata), tensors["classical"]]
    return {
        path.name: serialise(part, metadata) for path, part in zip(_names(name, len(files)), files, strict=True)
    }


def border_of(path: Path, metadata: Mapping[str, str]) -> tuple[float, ...]:
    """The border that a file's metadata tell, none in most files; ModelError for what is none."""
    border = _parsed(metadata, BORDER, "[]")
    if not isinstance(border, list) or not all(isinstance(pixel, (int, float)) for pixel in border):
        raise ModelError(f"Metadata {BORDER} of {path} must be a list of pixels, not {metadata[BORDER]!r}")
    return tuple(border)


def layouts_of(path: Path, metadata: Mapping[str, str]) -> dict[str, str] | None:
    """The layouts of a file's BM network, by its metadata or, in an older one, by the card beside it; None where
    neither says."""
    layouts = _parsed(metadata, LAYOUTS, "null")
    card = Path(f"{str(path).removesuffix(SUFFIX)}.json")
    if layouts is None and card.is_file():
        try:
            layouts = read_card(card)["float_weights"]["layouts"]
        except (ModelError, KeyError, TypeError):
            return None  # the card of something else
    return layouts if isinstance(layouts, dict) else None


def groups_of_file(path: Path, metadata: Mapping[str, str]) -> Groups:
    """The groups that a file's metadata tell; ModelError for what is none."""
    return _checked_groups(f"Metadata {GROUPS} of {path}", _parsed(metadata, GROUPS, "1"))


def _checked_groups(what: str, groups: Any) -> Groups:
    try:
        return from_json(groups)
    except ValueError:
        raise ModelError(f"{what} must be {MEANING}, not {groups!r}") from None


def _parsed(metadata: Mapping[str, str], key: str, default: str) -> Any:
    try:
        return json.loads(metadata.get(key, default))
    except ValueError:
        return None


def _packed(tensors: dict[str, np.ndarray], metadata: Mapping[str, str]) -> list[dict[str, np.ndarray]]:
    """The tensors, in their order, in as few files of ``LARGEST_FILE`` as that allows."""
    from safetensors.numpy import save as serialise

    files: list[dict[str, np.ndarray]] = [{}]
    for key, value in tensors.items():
        if files[-1] and len(serialise(files[-1] | {key: value}, metadata)) > LARGEST_FILE:
            files.append({})
        files[-1][key] = value
    return files


def _names(name: str | Path, count: int) -> list[Path]:
    """Of ``count`` files of a name."""
    middle = ["", *(f"-{number}" for number in range(2, count)), *["-classical"] * (count > 1)]
    return [Path(f"{name}{part}{SUFFIX}") for part in middle]


def parts(first: Path) -> list[Path]:
    """The files beside ``NAME-float.safetensors`` that hold the rest of its networks, in order."""
    name = str(first).removesuffix(SUFFIX)
    numbers = itertools.takewhile(Path.is_file, (Path(f"{name}-{n}{SUFFIX}") for n in itertools.count(2)))
    return [*numbers, Path(f"{name}-classical{SUFFIX}")]


def float_files(name: str | Path) -> list[Path]:
    """The files that hold a model's floating-point networks, whether they are there or not."""
    path = card_path(name)
    with reading(path):
        return [path.parent / Path(part["file"]).name for part in read_card(path)["float_weights"]["files"]]


def load_float(name: str | Path) -> dict[str, Network]:
    """The networks ``classical`` and ``bm`` of a model, for evaluation; errors as of ``store.load``."""
    path = card_path(name)
    card = read_card(path)
    with reading(path):
        entry, nodes = card["float_weights"], card["architecture"]
        files = {path.parent / Path(part["file"]).name: part["sha256"] for part in entry["files"]}
        layouts = entry["layouts"]
    groups = _checked_groups(f"Groups in {path.name}", entry.get(GROUPS, 1))
    architecture, tensors = Architecture.from_list(nodes), {}
    _check_layouts(path, architecture, layouts)
    for file, checksum in files.items():
        tensors |= read_checked(file, checksum)
    names = ", ".join(file.name for file in files)
    networks = {}
    for kind in NETWORKS:
        chosen, count = (layouts, groups) if kind == "bm" else (architecture.layouts("mac"), 1)
        state = {
            key.removeprefix(f"{kind}."): value for key, value in tensors.items() if key.startswith(f"{kind}.")
        }
        with torch.device("meta"):  # shapes alone: a broken card may ask for any amount of memory
            state_there = Network(architecture, chosen, count).state_dict()
        expected = {key: tuple(value.shape) for key, value in state_there.items() if value.is_floating_point()}
        for key, shape in expected.items():
            if key not in state or state[key].shape != shape:
                found = f"of shape {state[key].shape}" if key in state else "missing"
                raise ModelError(f"Weights in {names} don't fit the architecture: {kind}.{key} must be of shape "
                                 f"{shape}, but is {found}")
        unknown = min(state.keys() - expected.keys(), default=None)
        if unknown is not None:
            raise ModelError(f"Weights in {names} don't fit the architecture: it has no {kind}.{unknown}")
        network = Network(architecture, chosen, count)
        floats = {key: torch.tensor(value, dtype=torch.float32) for key, value in state.items()}
        network.load_state_dict(network.state_dict() | floats)
        networks[kind] = network.eval()
    return networks


def _check_layouts(path: Path, architecture: Architecture, layouts: Mapping[str, str]) -> None:
    for node in architecture.layers:
        if layouts.get(node.name) not in (*BM_LAYOUTS, "mac"):
            raise ModelError(not_one_of(f"Layout of layer {node.name} in {path.name}", (*BM_LAYOUTS, "mac"),
                                        layouts.get(node.name)))
