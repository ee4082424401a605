# SPDX-License-Identifier: Apache-2.0
"""Bipolar morphological networks: training in PyTorch, and trained networks as integers in NumPy.

``load("digits")`` gives an :class:`IntegerNetwork`; neither that nor its vectors need PyTorch.
"""

from bmhw.models.files.store import list_models, load
from bmhw.models.integer.layer import IntegerLayer, NeuronVectors
from bmhw.models.integer.network import IntegerNetwork

from .errors import ModelError

__all__ = ["IntegerLayer", "IntegerNetwork", "ModelError", "NeuronVectors", "list_models", "load"]
