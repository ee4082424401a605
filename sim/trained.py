# SPDX-License-Identifier: Apache-2.0
"""One neuron of a trained network, with the real activations that it meets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UsageError

if TYPE_CHECKING:
    from ..hdl.neuron_formats import BmFormat, MacFormat

__all__ = ["TrainedNeuron", "load_neuron"]


@dataclass(frozen=True, kw_only=True)
class TrainedNeuron:
    """A neuron's format, its inputs (ports as ``design.format.compute`` takes them), its outputs.

    ``expected`` are the integers of the integer network, ``real`` the outputs of the same neuron in floating
    point, in the same units; both have one value a vector.
    """

    model: str
    layer: str
    channel: int
    format: "MacFormat | BmFormat"
    inputs: dict[str, NDArray[np.int64]]
    expected: NDArray[np.int64]
    real: NDArray[np.float64]


def load_neuron(model: str, layer: str, channel: int, count: int, seed: int = 0) -> TrainedNeuron:
    """``count`` real activations of one neuron of the network called ``model``.

    :class:`UsageError` for an unknown layer or channel, :class:`RunError` for a network that can't be loaded;
    each names what is valid.
    """
    try:
        from .. import models
    except ImportError as error:
        raise RunError(f"trained networks need {error.name or 'more packages'}; "
                       "install them with: pip install \"bmhw[models]\"") from None
    network = models.load(model)
    try:
        vectors = network.neuron_vectors(layer, channel, count, seed)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return TrainedNeuron(model=model, layer=layer, channel=channel, format=vectors.format,
                         inputs=vectors.inputs, expected=vectors.expected, real=vectors.real)
