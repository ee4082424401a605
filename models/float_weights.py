# SPDX-License-Identifier: Apache-2.0
"""The floating-point networks behind an integer one, ``NAME-float.safetensors``: classical and BM, in half
precision.

They are what the accuracies in floating point are measured on; the constants of the normalisations stay
float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .architecture import Architecture
from .errors import ModelError
from .files import sha256, write_atomically
from .network import Network
from .store import card_path, read_card, read_checked

__all__ = ["half_precision", "load_float", "save_float"]

NETWORKS = ("classical", "bm")


def half_precision(network: Network) -> Network:
    """The network with its weights rounded to what the file holds: figures are measured on that."""
    copy = Network(network.architecture, network.layouts)
    copy.load_state_dict(
        {
            key: value.half().float() if value.ndim > 1 else value
            for key, value in network.state_dict().items()
        }
    )
    return copy.eval()


def save_float(
    name: str, folder: Path, networks: dict[str, Network], known: Path | None = None
) -> dict[str, Any]:
    """Write ``folder/NAME-float.safetensors``; returns its entry for the card.

    If ``known`` is a file of the very same networks, its name is kept, so that networks of several code
    widths share one file.
    """
    from safetensors.numpy import save as serialise

    tensors = {}
    for kind in NETWORKS:
        for key, value in networks[kind].state_dict().items():
            if value.is_floating_point():
                array = value.cpu().numpy()
                tensors[f"{kind}.{key}"] = array.astype(np.float16) if array.ndim > 1 else array
    data = serialise(tensors)
    same = known is not None and sha256(known.read_bytes()) == sha256(data)
    file = known.name if known is not None and same else f"{name}-float.safetensors"
    write_atomically(folder / file, lambda path: path.write_bytes(data))
    layouts = networks["bm"].layouts
    return {"file": file, "bytes": len(data), "sha256": sha256(data), "layouts": layouts}


def load_float(name: str | Path) -> dict[str, Network]:
    """The networks ``classical`` and ``bm`` of a model, for evaluation; errors as of ``store.load``."""
    path = card_path(name)
    card = read_card(path)
    try:
        entry, nodes = card["float_weights"], card["architecture"]
        file, checksum, layouts = path.parent / Path(entry["file"]).name, entry["sha256"], entry["layouts"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"Model card {path.name} lacks {error}") from None
    architecture, tensors = Architecture.from_list(nodes), read_checked(file, checksum)
    networks = {}
    for kind in NETWORKS:
        network = Network(architecture, layouts if kind == "bm" else architecture.layouts("mac"))
        state = {
            key.removeprefix(f"{kind}."): torch.tensor(value, dtype=torch.float32)
            for key, value in tensors.items()
            if key.startswith(f"{kind}.")
        }
        counters = {
            key: value for key, value in network.state_dict().items() if not value.is_floating_point()
        }
        try:
            network.load_state_dict(state | counters)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"Weights file {file.name} doesn't fit its architecture: {reason}") from None
        networks[kind] = network.eval()
    return networks
