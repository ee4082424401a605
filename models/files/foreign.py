# SPDX-License-Identifier: Apache-2.0
"""Weights files of any origin as named tensors; what holds no tensors gets a line that says what to export instead."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmhw.models.errors import ModelError

__all__ = ["WeightsFile", "by_number", "read_weights"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "ema")
"""Keys under which training scripts usually put a state_dict, the most usual first."""

DEEPEST = 4
"""Dictionaries in dictionaries that are looked into."""

EXPORT = "export its state_dict: torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class WeightsFile:
    """``tensors``: name -> tensor, in the order of the file where it keeps one (``ordered``), else in that of the
    names, numbers by their value; ``metadata``: what a safetensors file says beside them."""

    path: Path
    tensors: dict[str, Tensor]
    ordered: bool
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> WeightsFile:
    """The tensors of a safetensors file or of a PyTorch file without code, told apart by their content.

    A PyTorch file holds a state_dict by itself or under one of the names in :data:`WRAPPERS`. ModelError in one line
    for everything else.
    """
    if not path.exists():
        raise ModelError(f"Weights file {path} doesn't exist")
    if not path.is_file():
        raise ModelError(f"Weights file {path} must be a file; it is a folder or a device")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise ModelError(f"Weights file {path} can't be read: {error.strerror}") from None
    kind = _other_kind(path, head)
    if kind is not None:
        raise ModelError(f"Weights file {path} {kind}")
    return _safetensors(path) if _is_safetensors(path, head) else _pytorch(path)


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """A sorting key by which layer2 comes before layer10."""
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"([0-9]+)", name)]


def _is_safetensors(path: Path, head: bytes) -> bool:
    """The length of the header in 8 bytes, then JSON."""
    return head[8:9] == b"{" or (path.suffix == ".safetensors" and head[:2] != b"PK")


def _other_kind(path: Path, head: bytes) -> str | None:
    """What a file is that holds no tensors by name, and what to do about it; None for one that may."""
    onnx = "is an ONNX model, which holds a graph; from the PyTorch network that it was made of, "
    by_suffix = {".onnx": onnx + EXPORT, ".pb": "is a TensorFlow graph; " + EXPORT + " of a PyTorch network"}
    by_head = {
        b"\x89HDF\r\n\x1a\n": "is an HDF5 file (Keras); copy its weights into a PyTorch network and " + EXPORT,
        b"\x93NUMPY": "is a single NumPy array; " + EXPORT,
        b"GGUF": "is a GGUF file; " + EXPORT,
        b"\x1f\x8b": "is compressed (gzip): unpack it first",
        b"7z\xbc\xaf": "is compressed (7z): unpack it first",
    }
    if not head:
        return "is empty"
    for start, kind in by_head.items():
        if head.startswith(start):
            return kind
    if head[4:8] == b"TFL3":
        return "is a TensorFlow Lite model, mostly of quantised weights; " + EXPORT + " of a PyTorch network"
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    # an ONNX model begins with its version, a small number, and the name of what wrote it
    if path.suffix in by_suffix or (head[0] == 0x08 and head[2:3] == b"\x12"):
        return by_suffix.get(path.suffix, by_suffix[".onnx"])
    if path.suffix == ".json":
        return "is a card or another JSON file; its network's weights lie in NAME-float.safetensors"
    return None


def _kind_of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return f"can't be read: {error}"
    parts = {name.partition("/")[2] for name in names}
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        return ("is a TorchScript archive, which holds code; export its tensors: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')")
    if "data.pkl" in parts:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "is an archive of NumPy arrays (npz); put them into a PyTorch network and " + EXPORT
    if "model.weights.h5" in names:
        return "is a Keras archive; copy its weights into a PyTorch network and " + EXPORT
    return "is a zip archive that isn't PyTorch's; " + EXPORT


def _safetensors(path: Path) -> WeightsFile:
    try:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys(), key=by_number)}
    except ImportError:
        raise ModelError("Weights files need safetensors: pip install 'bmhw[models]'") from None
    except Exception as error:  # safetensors raises many kinds for a broken or foreign file
        raise ModelError(f"Weights file {path} can't be read: {_first_line(error)}") from None
    if "samples" in tensors and any(name.endswith(".exponent") for name in tensors):
        raise ModelError(f"Weights file {path} holds the integer codes of a network; start from the floating-point "
                         f"weights beside it, {path.stem}-float.safetensors")
    return WeightsFile(path, tensors, ordered=False, metadata=metadata)


def _pytorch(path: Path) -> WeightsFile:
    try:
        with warnings.catch_warnings():  # about kinds of tensors of which a line is said below
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"Weights file {path} {_pickle_kind(path, str(error))}") from None
    except Exception as error:  # torch raises many kinds for a broken or foreign file
        raise ModelError(f"Weights file {path} can't be read: {_first_line(error)}") from None
    if isinstance(loaded, Mapping) and {"settings", "phase", "models"} <= set(loaded):
        raise ModelError(f"Weights file {path} is a checkpoint of this program: --resume goes on from it, and "
                         "what a run has written, NAME-float.safetensors, can be started from")
    return WeightsFile(path, _state_dict(path, loaded), ordered=True)


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The names and tensors in what a PyTorch file holds; numbers and words beside them are left out."""
    holder = loaded
    for _ in range(DEEPEST):
        inner = {} if not isinstance(holder, Mapping) else {
            key: value for key, value in holder.items() if isinstance(value, Mapping) and value
        }
        known = [key for key in WRAPPERS if key in inner]
        if known:
            holder = inner[known[0]]
            continue
        tensors = {} if not isinstance(holder, Mapping) else {
            key: value for key, value in holder.items() if isinstance(value, Tensor) and isinstance(key, str)
        }
        if tensors:
            return tensors
        others = [key for key, value in inner.items() if any(isinstance(entry, Tensor) for entry in value.values())]
        if len(others) > 1:
            raise ModelError(f"Weights file {path} holds several state_dicts, {', '.join(map(str, others))}: save the "
                             "one to start from by itself")
        if not others:
            break
        holder = inner[others[0]]
    what = "a single tensor" if isinstance(loaded, Tensor) else f"a {type(loaded).__name__}"
    if isinstance(loaded, Mapping):
        what = "a dictionary of other things" if loaded else "an empty one"
    raise ModelError(f"Weights file {path} must hold a state_dict, names and tensors, not {what}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _pickle_kind(path: Path, message: str) -> str:
    """What PyTorch's long text says of a file that isn't tensors alone; its advice to load it anyway is left out."""
    found = re.search(r"GLOBAL (\S+)", message)
    if found:
        return f"holds more than tensors, {found[1]}, whose code isn't run; {EXPORT}"
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"
    kind = "is a pickle that isn't PyTorch's" if pickled else "can't be read: it is no PyTorch file"
    return f"{kind}; {EXPORT}"
