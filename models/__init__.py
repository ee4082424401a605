# SPDX-License-Identifier: Apache-2.0
"""Bipolar morphological networks: training in PyTorch, and trained networks as integers in NumPy.

``load("digits")`` gives an :class:`IntegerNetwork`; neither that nor its vectors need PyTorch.
"""

from .errors import ModelError
from .integer import IntegerLayer, IntegerNetwork, NeuronVectors
from .store import list_models, load

__all__ = ["IntegerLayer", "IntegerNetwork", "ModelError", "NeuronVectors", "list_models", "load"]
