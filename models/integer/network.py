# SPDX-License-Identifier: Apache-2.0
"""The integer network: what the hardware computes, from the pixels to the class, in NumPy integers only.

Each layer's arithmetic is that of its format object (in ``bmhw.hdl.formats``). Between BM layers there
are constants, shifts, additions and comparisons, no multiplier: a batch normalisation is a threshold (its
scale lies in the next layer's weight codes, its sign in a negation), a residual sum and a pool are sums.
A multiply-accumulate layer has a scale a channel (``FixedPoint``) from what comes to its codes, or from its sums to the
next layer's codes, and from its sums to a linear number that others are added to.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.networks.architecture import Architecture, Node

from .fixed_point import Integers, per_channel, round_shift
from .layer import IntegerLayer, NeuronVectors, channels_codes

__all__ = ["Encoder", "IntegerNetwork", "Threshold"]


@dataclass(frozen=True, eq=False)
class Threshold:
    """A batch normalisation with its ReLU: ``max(0, y - threshold)``, or ``max(0, threshold - y)`` where
    negative.

    Both arrays have shape (channels,). Its scale is part of the next layer's weight codes.
    """

    threshold: Integers
    negative: NDArray[np.bool_]

    def compute(self, values: Integers) -> Integers:
        difference = values - per_channel(self.threshold)
        return np.maximum(np.where(per_channel(self.negative), -difference, difference), 0)


@dataclass(frozen=True, eq=False)
class Encoder:
    """log2 of linear integers, once for all layers that take their codes: ``end`` of the magnitudes of what is left
    behind the right shift of each channel, with the sign kept.

    ``shift`` (channels,): what is left of the integers has about the bits of ``end``; ``fine`` (channels,): steps that
    are added to the offset of ``end``, so that the codes of all channels stand for numbers of about one scale.
    """

    end: LinearEnd
    shift: Integers
    fine: Integers

    def compute(self, values: Integers) -> Integers:
        """Codes of integers (batch, channels, height, width), negative where these are."""
        shifted = round_shift(values, per_channel(self.shift))
        codes = channels_codes(self.end, np.abs(shifted), self.fine, 1)
        return np.where(shifted < 0, -codes, codes)


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A whole network in integers; ``card`` says where it comes from, ``samples`` are held-out images.

    ``layers``: in the order of the data. ``encoders``: of nodes with linear integers that layers take as log codes.
    Images: uint8, (batch, channels, height, width) or without channels.
    """

    name: str
    architecture: Architecture
    layers: dict[str, IntegerLayer]
    thresholds: dict[str, Threshold]
    samples: NDArray[np.uint8]
    card: Mapping[str, Any] = field(default_factory=dict)
    encoders: Mapping[str, Encoder] = field(default_factory=dict)

    @cached_property
    def exponents(self) -> dict[str, Integers]:
        """Of each node's integers, by channel: the power of two that they count, up to the folded scales."""
        result: dict[str, Integers] = {}
        for node in self.architecture.nodes:
            sources = [result[name] for name in node.inputs]
            if node.is_layer:
                result[node.name] = self.layers[node.name].exponent
            else:
                result[node.name] = np.min(sources, axis=0) if sources else np.full(node.channels, -8)
        return result

    def images(self, images: ArrayLike) -> Integers:
        """Images as int64 (batch, channels, height, width); ModelError for other shapes and types."""
        array, expected = np.asarray(images), self.architecture.image.shape
        if array.ndim == 3 and expected[0] == 1:
            array = array[:, None]
        if array.dtype != np.uint8 or array.shape[1:] != expected:
            raise ModelError(
                f"Images must be uint8 of shape (batch, {', '.join(map(str, expected))}), "
                f"not {array.dtype} of shape {np.asarray(images).shape}"
            )
        return array.astype(np.int64)

    def layer_inputs(self, layer: IntegerLayer, value: Integers) -> Integers:
        """:meth:`IntegerLayer.inputs` of the value of the node that a layer reads."""
        source = layer.node.inputs[0]
        if layer.takes_codes and source in self.encoders:
            value = self.encoders[source].compute(value)
        return layer.inputs(value)

    def trace(
        self, images: ArrayLike, until: str | None = None, threads: int = 1
    ) -> Iterator[tuple[Node, Integers]]:
        """Each node with its value, in order; ends behind the node ``until``."""
        values: dict[str, Integers] = {}
        for node in self.architecture.nodes:
            inputs = [values[name] for name in node.inputs]
            if node.operation == "image":
                value = self.images(images)
            elif node.is_layer:
                layer = self.layers[node.name]
                value = layer.compute(self.layer_inputs(layer, *inputs), threads)
            elif node.operation == "norm":
                # behind a layer that gives codes, it is part of these
                threshold = self.thresholds.get(node.name)
                value = inputs[0] if threshold is None else threshold.compute(*inputs)
            elif node.operation == "relu":
                value = np.maximum(inputs[0], 0)
            elif node.operation == "add":
                common = self.exponents[node.name]
                value = sum(
                    v << per_channel(self.exponents[name] - common)
                    for name, v in zip(node.inputs, inputs, strict=True)
                )
            else:  # pool: the division by the window is part of the next layer's shift and weight codes
                batch, (kernel_height, kernel_width) = inputs[0].shape[0], node.kernel
                cut = inputs[0][:, :, : node.height * kernel_height, : node.width * kernel_width]
                value = cut.reshape(
                    batch, node.channels, node.height, kernel_height, node.width, kernel_width
                ).sum(axis=(3, 5))
            values[node.name] = value
            yield node, value
            if node.name == until:
                return

    def logits(self, images: ArrayLike, batch: int = 16, threads: int = 1) -> Integers:
        """One integer a class, all of the same scale: (images, classes)."""
        images = np.asarray(images)
        parts = []
        for start in range(0, len(images), batch):
            *_, (_node, value) = self.trace(images[start : start + batch], threads=threads)
            parts.append(self._scaled(value))
        return np.concatenate(parts) if parts else np.empty((0, self.architecture.classes), dtype=np.int64)

    def classify(self, images: ArrayLike, batch: int = 16, threads: int = 1) -> Integers:
        """The class of each image: (images,)."""
        return self.logits(images, batch, threads).argmax(axis=1)

    def classes(self, value: Integers) -> Integers:
        """The classes (images,) that the last node's value says, the first one of equals."""
        return self._scaled(value).argmax(axis=1)

    def _scaled(self, value: Integers) -> Integers:
        """The last node's value with one scale for all classes: (images, classes)."""
        last = self.architecture.nodes[-1].name
        return value.reshape(len(value), -1) << (self.exponents[last] - self.exponents[last].min())

    def with_log_bits(self, log_bits: int) -> "IntegerNetwork":
        """The same network with log codes of ``log_bits`` bits: rounded, not trained again. Where its layers have codes
        of several widths (the first and the last one wider ones), those of the narrowest have."""
        narrowest = min((layer.format.log_bits for layer in self.layers.values() if isinstance(layer.format, BmFormat)),
                        default=log_bits)
        layers = {
            name: layer.with_log_bits(log_bits) if getattr(layer.format, "log_bits", None) == narrowest else layer
            for name, layer in self.layers.items()
        }
        encoders = dict(self.encoders)
        for layer in layers.values():
            source = layer.node.inputs[0]
            if layer.takes_codes and source in self.encoders:
                end, log = self.encoders[source].end, layer.format.activation
                dropped = np.int64(end.log.fraction - log.fraction)
                offset, fine = round_shift(np.int64(end.offset), dropped), round_shift(encoders[source].fine, dropped)
                end = dataclasses.replace(end, log=log, offset=int(offset))
                encoders[source] = dataclasses.replace(encoders[source], end=end, fine=fine)
        return dataclasses.replace(self, layers=layers, encoders=encoders)

    def with_maximum_bits(self, maximum_bits: int) -> "IntegerNetwork":
        """The same network with maxima that see only the ``maximum_bits`` high bits of the sums."""
        layers = {name: layer.with_maximum_bits(maximum_bits) for name, layer in self.layers.items()}
        return dataclasses.replace(self, layers=layers)

    def with_out_fraction(self, out_fraction: int) -> "IntegerNetwork":
        """The same network with linear results of so many fraction bits; thresholds and biases rounded."""
        layers = {name: layer.with_out_fraction(out_fraction) for name, layer in self.layers.items()}
        coarse = dataclasses.replace(self, layers=layers)

        def dropped(node: str) -> Integers:
            return coarse.exponents[node] - self.exponents[node]

        def before(name: str) -> Integers:
            return dropped(self.architecture[name].inputs[0])

        return dataclasses.replace(
            self,
            layers={
                name: layer if layer.takes_codes
                else dataclasses.replace(layer, scale=layer.scale.of_coarser(before(name)))
                for name, layer in layers.items()
            },
            thresholds={
                name: dataclasses.replace(norm, threshold=round_shift(norm.threshold, before(name)))
                for name, norm in self.thresholds.items()
            },
            encoders={
                name: dataclasses.replace(encoder, shift=encoder.shift - dropped(name))
                for name, encoder in self.encoders.items()
            },
        )

    def neuron_vectors(self, layer: str, channel: int, count: int, seed: int = 0) -> NeuronVectors:
        """``count`` real inputs of one neuron, drawn from the held-out images in ``samples``, and its
        outputs.

        Positions are drawn without repetition while there are enough. ModelError for an unknown layer,
        channel or a count below 1.
        """
        self.architecture.check_layer(layer)
        chosen = self.layers[layer]
        for what, value, low, high in (
            ("Channel", channel, 0, chosen.channels - 1),
            ("Count", count, 1, None),
        ):
            if value < low or (high is not None and value > high):
                valid = f"{low} or more" if high is None else f"from {low} to {high}"
                raise ModelUsageError(f"{what} must be {valid}, not {value}")
        x, outputs = self._sampled_layer(layer)
        available = x.shape[1]
        positions = np.random.default_rng(seed).choice(available, size=count, replace=count > available)
        slots = chosen.slots(channel)
        inputs = chosen.ports(np.ascontiguousarray(x[:, positions].T[:, slots]))
        inputs |= {port: codes[channel, slots] for port, codes in chosen.weights.items()
                   if port in chosen.format.inputs_of}
        inputs |= {port: values[channel] for port, values in chosen.constants.items()}
        expected = outputs[channel, positions]
        neuron = chosen.neuron(channel)
        if not np.array_equal(expected, neuron.compute(**inputs)):
            raise RuntimeError(f"The integer layer {layer} and its format disagree: this is a bug")
        return NeuronVectors(neuron, inputs, expected, chosen.real(channel, x[:, positions].T), slots)

    @cached_property
    def _sampled(self) -> dict[str, tuple[Integers, Integers]]:
        return {}

    def _sampled_layer(self, name: str) -> tuple[Integers, Integers]:
        """Inputs (n, positions) and outputs (channels, positions) of a layer on the samples, once."""
        if name not in self._sampled:
            layer, values = self.layers[name], {}
            for node, value in self.trace(self.samples, until=layer.node.inputs[0]):
                values[node.name] = value
            x = self.layer_inputs(layer, values[layer.node.inputs[0]])
            outputs = layer.neurons(x).transpose(1, 0, 2, 3).reshape(layer.channels, -1)
            self._sampled[name] = layer.patches(layer.padded(x)), outputs
        return self._sampled[name]
