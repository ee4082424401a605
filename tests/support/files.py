# SPDX-License-Identifier: Apache-2.0
"""Weights files that a test spoils, or writes as an older version did."""

import json

import numpy as np
from safetensors.numpy import save as serialise

from bmhw.models.files.store import read_checked
from bmhw.models.files.writing import sha256


def rewrite_unpacked(path, change=lambda tensors: None):
    """Write the weights beside a card anew, none packed, after a change of the tensors, and let the card's checksum
    follow, so that only the checks of the values are left."""
    weights, card = path.with_suffix(".safetensors"), json.loads(path.read_text())
    tensors = {name: np.array(values)
               for name, values in read_checked(weights, card["weights"]["sha256"]).items()}
    change(tensors)
    data = serialise(tensors)
    weights.write_bytes(data)
    card["weights"] |= {"bytes": len(data), "sha256": sha256(data)}
    path.write_text(json.dumps(card))
