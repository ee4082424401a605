# SPDX-License-Identifier: Apache-2.0
"""Where an integer network loses accuracy: each layer against floating point, on real images."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.models.networks.layers import combine_layout
from bmhw.models.networks.network import Network

from .fixed_point import per_channel
from .layer import IntegerLayer
from .network import IntegerNetwork

__all__ = ["layer_errors"]


@torch.no_grad()
def layer_errors(network: IntegerNetwork, reference: Network, images: ArrayLike) -> list[dict[str, Any]]:
    """One entry a layer, its layout and its groups of input channels, and shares and errors in per cent:

    - ``own_error``: root mean square difference to the same layer in floating point (values of its weight
      codes, no logarithm, no rounding) on the same input integers, in per cent of the outputs' root mean
      square around their channels' means;
    - ``total_error``: the same measure of what all layers up to here add up to, against the BM network in
      floating point, ``reference`` (whose weights are those before the codes were trained)
      (none of these for a layer that gives codes);
    - ``saturated_inputs``: inputs beyond the range of ``bits``; where these are log codes, those of the largest one;
    - ``clamped_activations``: linear inputs above 0 (in magnitude) whose log code is 0 nevertheless;
    - ``clamped_weights``: weights whose code is 0, the smallest there is.

    images: uint8, as of ``IntegerNetwork.trace``.
    """
    pixels = torch.from_numpy(network.images(images)).float() / 256
    floats = reference.eval().trace(pixels)
    values: dict[str, NDArray] = {}
    result = []
    for node, value in network.trace(images):
        values[node.name] = value
        if not node.is_layer:
            continue
        layer = network.layers[node.name]
        came = values[node.inputs[0]]
        x = network.layer_inputs(layer, came)
        real = value * 2.0 ** per_channel(layer.exponent)
        entry = {
            "layer": node.name,
            "layout": layer.format.layout if isinstance(layer.format, BmFormat) else "mac",
            "groups": getattr(layer.format, "groups", 1),
            "saturated_inputs": _share(np.abs(x) == layer.format.activation.maximum if layer.takes_codes
                                       else layer.scale.compute(came) != x),
        }
        if not layer.gives_codes:
            entry["own_error"] = _error(value, _real(layer, x).numpy())
            entry["total_error"] = _error(real, floats[node.name].numpy())
        if isinstance(layer.format, BmFormat):
            codes = np.abs(x) if layer.takes_codes else layer.format.log2_unit.compute(np.abs(x))
            linear = came if node.inputs[0] in network.encoders else x
            weights = [layer.weights[port] for port in ("k", "k1", "k2") if port in layer.weights]
            entry |= {
                "clamped_activations": _share((codes == 0) & (linear != 0)),
                "clamped_weights": _share(np.stack(weights) == 0),
            }
        result.append(entry)
    return result


def _share(chosen: NDArray[np.bool_]) -> float:
    return 100 * float(chosen.mean())


def _error(found: NDArray, expected: NDArray) -> float:
    spread = expected - expected.mean(axis=(0, 2, 3), keepdims=True)
    size = float(np.sqrt((spread**2).mean()))
    return 100 * float(np.sqrt(((found - expected) ** 2).mean())) / size if size > 0 else float("nan")


def _real(layer: IntegerLayer, x: NDArray[np.int64]) -> Tensor:
    """The layer on input codes in floating point, in units of its output integers (see
    ``IntegerLayer.real``, of which this is the whole-layer form)."""
    fmt, node = layer.format, layer.node
    shape = (node.channels, x.shape[1], *node.kernel)
    x = layer.padded(x)
    inputs = torch.from_numpy(x).double()
    bias = torch.from_numpy(layer.biases["bias"]).view(-1, 1, 1)
    if not isinstance(fmt, BmFormat):
        weight = torch.from_numpy(layer.weights["w"].reshape(shape)).double()
        sums = functional.conv2d(inputs, weight, stride=node.stride) + bias
        return sums if layer.rescale is None else sums * torch.from_numpy(layer.rescale.ratio).view(-1, 1, 1)

    def value(port: str) -> NDArray[np.float64]:
        return fmt.value(fmt.weight, layer.weights[port]).reshape(shape)

    if fmt.layout in ONE_SUM:
        weight = np.where(layer.weights["sign"].reshape(shape) == 1, -1.0, 1.0) * value("k")
    else:
        weight = np.stack([value("k1"), value("k2")])
    if layer.takes_codes:
        values = np.where(x < 0, -1, 1) * fmt.value(fmt.activation, np.abs(x))
        inputs = torch.from_numpy(values) * 2.0**fmt.x.magnitude_bits
    scaled = (inputs * 2.0 ** (fmt.out_fraction - fmt.x.magnitude_bits)).float()
    y = combine_layout(fmt.layout, scaled, torch.from_numpy(weight).float(), node.stride, 0, groups=fmt.groups)
    return y.double() + bias
