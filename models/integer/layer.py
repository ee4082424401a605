# SPDX-License-Identifier: Apache-2.0
"""One layer of the integer network: many neurons of one format, each with weights of its own."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.errors import ModelUsageError
from bmhw.models.networks.architecture import Node
from bmhw.models.operators.maximum_of_sums import Rows, candidate_maps, layer_rows, maxima_of_rows

from .fixed_point import FixedPoint, Integers, per_channel, round_shift

__all__ = ["IntegerLayer", "NeuronVectors", "channels_codes"]


def channels_codes(end: LinearEnd, y: Integers, fine: Integers, axis: int) -> Integers:
    """Codes of linear integers, of whose channels (an axis) each has an offset ``fine`` steps above that of ``end``."""
    codes = np.empty_like(y)
    for steps in np.unique(fine):
        channels = (*(slice(None),) * axis, fine == steps)
        codes[channels] = dataclasses.replace(end, offset=end.offset + int(steps)).compute(y[channels])
    return codes


@dataclass(frozen=True)
class NeuronVectors:
    """One neuron's inputs on real images, for a bench.

    ``inputs``: port name -> int64; ``x`` (or ``c`` and ``negative``) of shape (count, n), weights (n,), biases ().
    ``expected``: the integers of the output, (count,). ``real``: the same neuron in floating point (the
    values of the weight codes, no log2, no rounding), in units of the output's integers, (count,); of a log
    code, -inf stands for 0. ``slots``: which of the layer's inputs each element is, see :meth:`IntegerLayer.slots`.
    """

    format: BmFormat | MacFormat
    inputs: dict[str, Integers]
    expected: Integers
    real: NDArray[np.float64]
    slots: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerLayer:
    """One layer: every output channel is the neuron ``format`` with weights of its own.

    ``weights``: port name -> (channels, n) with n = input channel, kernel row, kernel column in C order; of layout
    ``wired`` too, where ``sign`` is no port but says which maximum of its group an input is wired to (:meth:`slots`);
    ``biases``: port name -> (channels,). ``scale``: of the input channels, what makes ``bits`` bits of what comes in.
    ``exponent``: (channels,); an output integer y stands for the real number ``y * 2^exponent``. ``fine``:
    (channels,), of a BM layer that gives codes behind a linear end (else None): what each neuron's offset has above
    that of ``format``, so that all channels' codes stand for numbers of about one scale.

    ``rescale``: of a multiply-accumulate layer, how each channel's sums become what it hands on: codes (the port
    ``scale`` and each neuron's own ``requantize_shift``), or linear numbers of a scale that other layers' can be added
    to. None: the sums as they are.
    """

    node: Node
    format: BmFormat | MacFormat
    weights: dict[str, Integers]
    biases: dict[str, Integers]
    scale: FixedPoint
    exponent: Integers
    fine: Integers | None = None
    rescale: FixedPoint | None = None

    @property
    def channels(self) -> int:
        return self.node.channels

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def takes_codes(self) -> bool:
        """Whether the inputs are log codes already."""
        return isinstance(self.format, BmFormat) and self.format.boundary == "layer"

    @property
    def gives_codes(self) -> bool:
        """Whether the outputs are the next layers' codes: log codes of a logarithmic end, or of a linear one with its
        ReLU and log2; linear codes of a multiply-accumulate layer with its ReLU and requantisation."""
        return self.format.result == "code"

    def neuron(self, channel: int) -> BmFormat | MacFormat:
        """The format of one neuron: that of the layer, with an offset or a shift of its own."""
        if isinstance(self.format, MacFormat):
            if not self.gives_codes:
                return self.format
            return dataclasses.replace(self.format, requantize_shift=int(self.rescale.shift[channel]))
        if self.fine is None:
            return self.format
        return dataclasses.replace(self.format, offset=self.format.offset + int(self.fine[channel]))

    def slots(self, channel: int) -> Integers:
        """The inputs of a neuron in the order of its ports: of layout ``wired`` those with positive weights first, in
        each group."""
        inputs = np.arange(self.format.inputs)
        if getattr(self.format, "layout", None) == "wired":
            group = inputs // self.format.group_inputs
            return np.lexsort((self.weights["sign"][channel], group))
        return inputs

    @property
    def constants(self) -> dict[str, Integers]:
        """What each neuron has one of: port name -> (channels,)."""
        return self.biases | ({"scale": self.rescale.multiplier} if "scale" in self.format.inputs_of else {})

    def ports(self, x: Integers) -> dict[str, Integers]:
        """What of inputs (any shape), as :meth:`inputs` gives them, goes to which port."""
        if not self.takes_codes:
            return {"x": x}
        return {"c": np.abs(x)} | ({"negative": (x < 0).astype(np.int64)} if self.format.signed_inputs else {})

    def inputs(self, values: Integers) -> Integers:
        """The neurons' ``x`` codes, (batch, input channels, height, width): scaled, rounded, saturated.

        Of a layer that takes log codes (port ``c``): the codes as they are, with the sign of what they stand for.
        """
        if self.takes_codes:
            return values
        code = self.format.x
        return np.clip(self.scale.compute(values), code.minimum, code.maximum)

    def patches(self, x: NDArray) -> NDArray:
        """The inputs of every neuron: (n, batch * out height * out width).

        x: (batch, channels, height, width), padded if the layer pads; n = channels * kernel size.
        """
        node, batch = self.node, x.shape[0]
        s, (kernel_height, kernel_width) = node.stride, node.kernel
        x = x.transpose(1, 0, 2, 3)
        taps = np.empty(
            (x.shape[0], kernel_height, kernel_width, batch, node.height, node.width), dtype=x.dtype
        )
        for row in range(kernel_height):
            for column in range(kernel_width):
                taps[:, row, column] = x[
                    :,
                    :,
                    row : row + s * (node.height - 1) + 1 : s,
                    column : column + s * (node.width - 1) + 1 : s,
                ]
        return taps.reshape(x.shape[0] * kernel_height * kernel_width, -1)

    def padded(self, x: Integers) -> Integers:
        """Input codes with the layer's zeros around them, or with the codes of its border's pixels."""
        p = self.node.padding
        if not self.node.border:
            return np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        batch, channels, height, width = x.shape
        border = self.inputs(per_channel(np.array(self.node.border_codes, dtype=np.int64)))
        result = np.broadcast_to(border, (batch, channels, height + 2 * p, width + 2 * p)).copy()
        result[:, :, p : p + height, p : p + width] = x
        return result

    def compute(self, x: Integers, threads: int = 1) -> Integers:
        """What the layer hands on, (batch, channels, height, width), of the input codes x (batch, input channels, ...).
        """
        outputs = self.neurons(x, threads)
        return outputs if self.rescale is None or self.gives_codes else self.rescale.compute(outputs)

    def neurons(self, x: Integers, threads: int = 1) -> Integers:
        """The outputs of the neurons, in shapes as of :meth:`compute`."""
        if isinstance(self.format, MacFormat):
            # products of at most 16 + 16 bits: sums are exact in float64, whose matrix product is a fast one
            patches = self.patches(self.padded(x)).astype(np.float64)
            sums = (self.weights["w"].astype(np.float64) @ patches).astype(np.int64)
            outputs = self._mac_end(sums + self.biases["bias"][:, None])
        else:
            candidates = self.patches(candidate_maps(self.format, self.padded(x)))
            maxima = maxima_of_rows(candidates, self._rows, threads)
            outputs = self._end(maxima.reshape(len(self.format.branches), self.channels, self.format.groups, -1))
        shape = (self.channels, x.shape[0], self.node.height, self.node.width)
        return np.ascontiguousarray(outputs.reshape(shape).transpose(1, 0, 2, 3))

    def _mac_end(self, y: Integers) -> Integers:
        """Of sums (channels, columns)."""
        if not self.gives_codes:
            return y
        codes = np.empty_like(y)
        for shift in np.unique(self.rescale.shift):
            channels = np.flatnonzero(self.rescale.shift == shift)
            fmt = self.neuron(channels[0])
            codes[channels] = fmt.code_of(y[channels], self.rescale.multiplier[channels, None])
        return codes

    def _end(self, maxima: NDArray) -> Integers:
        """``BmFormat.combined`` of maxima (branches, channels, groups, columns) whose low bits aren't cleared yet:
        (channels, columns)."""
        fmt, biases = self.format, {port: values[:, None] for port, values in self.biases.items()}
        if fmt.combine == "logarithmic":
            return fmt.combined([(m >> fmt.dropped_bits) << fmt.dropped_bits for m in maxima[:, :, 0]], **biases)
        y = np.broadcast_to(biases["bias"], (self.channels, maxima.shape[-1])).copy()
        for sign, groups in zip(fmt.branches, maxima, strict=True):
            for group in range(fmt.groups):  # one after the other: their linear numbers are eight bytes each
                y += sign * self._exp2_table[groups[:, group]]
        if not self.gives_codes:
            return y
        return fmt.code_of(y) if self.fine is None else channels_codes(fmt.end, y, self.fine, 0)

    @cached_property
    def _rows(self) -> Rows:
        return layer_rows(self.format, self.weights)

    @cached_property
    def _exp2_table(self) -> Integers:
        """exp2 of every sum; bits that the maxima don't see are dropped here (a floor keeps the order)."""
        sums = np.arange(self.format.full_scale + 1)
        return self.format.exp2_unit.compute((sums >> self.format.dropped_bits) << self.format.dropped_bits)

    def real(self, channel: int, x: Integers) -> NDArray[np.float64]:
        """The floating-point neuron on inputs of shape (..., n), in units of the output's integers.

        Of linear codes: without a limit and steps. Where these are log codes: the logarithm that the code would be, had
        it no upper limit and no steps; 0, as the code, for what is smaller than the smallest code or not positive.
        """
        fmt = self.format
        if isinstance(fmt, MacFormat):
            sums = x @ self.weights["w"][channel].astype(np.float64) + float(self.biases["bias"][channel])
            return np.maximum(sums, 0) * self.rescale.ratio[channel] if self.gives_codes else sums
        if not self.takes_codes:
            values = x * 2.0**-fmt.x.magnitude_bits
        else:
            values = np.where(x < 0, -1, 1) * fmt.value(fmt.activation, np.abs(x))
        if fmt.combine == "logarithmic":
            return self._real_logarithmic(channel, values)
        result = np.zeros(x.shape[:-1])
        for start in range(0, fmt.inputs, fmt.group_inputs):
            group = slice(start, start + fmt.group_inputs)
            result += self._real_maxima(channel, group, values[..., group])
        y = result * 2.0**fmt.out_fraction + float(self.biases["bias"][channel])
        if not self.gives_codes:
            return y
        with np.errstate(divide="ignore"):
            codes = np.log2(np.maximum(y, 0) * 2.0**-fmt.out_fraction) * (1 << fmt.log_fraction)
        return (codes + fmt.activation.maximum + self.neuron(channel).offset).clip(min=0)

    def _real_maxima(self, channel: int, group: slice, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The signed sum of a group's maxima of products, in units of full scale times the largest weight."""
        fmt = self.format

        def weight(port: str) -> NDArray[np.float64]:
            return fmt.value(fmt.weight, self.weights[port][channel, group])

        if fmt.layout in ONE_SUM:
            products = values * weight("k") * np.where(self.weights["sign"][channel, group] == 1, -1.0, 1.0)
            return products.max(axis=-1).clip(min=0) + products.min(axis=-1).clip(max=0)
        result = np.zeros(values.shape[:-1])
        for half, side in ((values, 1), (-values, -1))[: len(fmt.branches) // 2]:
            half = half.clip(min=0)
            result += side * ((half * weight("k1")).max(axis=-1) - (half * weight("k2")).max(axis=-1))
        return result

    def _real_logarithmic(self, channel: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        fmt, ports = self.format, [port for port in ("k", "k1", "k2") if port in self.weights]
        products = [values * fmt.weight.value(self.weights[port][channel]) for port in ports]
        if fmt.layout in ONE_SUM:
            products[0] = products[0] * np.where(self.weights["sign"][channel] == 1, -1.0, 1.0)
            products.append(-products[0])
        steps = 1 << fmt.log_fraction
        first, second = (
            np.maximum(
                product.max(axis=-1), 2.0 ** ((int(self.biases[port][channel]) - fmt.full_scale) / steps)
            )
            for product, port in zip(products, ("bias1", "bias2"), strict=True)
        )
        with np.errstate(divide="ignore"):
            codes = steps * np.log2(np.maximum(first - second, 0)) + fmt.activation.maximum + fmt.offset
        return codes.clip(min=0)

    def with_log_bits(self, log_bits: int) -> "IntegerLayer":
        """The same layer with activation and weight codes of ``log_bits`` bits: its weight codes rounded."""
        if isinstance(self.format, MacFormat) or log_bits == self.format.log_bits:
            return self
        layer = self.with_maximum_bits(self.format.sum_bits)  # the coarse layer's maxima drop nothing
        fmt = layer.format
        try:
            coarse = dataclasses.replace(
                fmt, log_bits=log_bits, weight_bits=log_bits, log_fraction=None, maximum_bits=None, offset=0
            )
        except ValueError as error:
            raise ModelUsageError(str(error)) from None
        step = fmt.log_fraction - coarse.log_fraction
        coarse = dataclasses.replace(coarse, offset=int(round_shift(np.int64(fmt.offset), np.int64(step))))

        def rounded(codes: Integers, top: int, coarse_top: int) -> Integers:
            coarse_codes = np.maximum(round_shift(codes - top, np.int64(step)) + coarse_top, 0)
            return np.where(codes > 0, coarse_codes, 0) if fmt.zero == "exact" else coarse_codes

        weights, biases = dict(layer.weights), dict(layer.biases)
        for port in set(weights) & {"k", "k1", "k2"}:
            weights[port] = rounded(weights[port], fmt.weight.maximum, coarse.weight.maximum)
        for port in set(biases) & {"bias1", "bias2"}:
            biases[port] = rounded(biases[port], fmt.full_scale, coarse.full_scale)
        fine = None if self.fine is None else round_shift(self.fine, np.int64(step))
        return dataclasses.replace(self, format=coarse, weights=weights, biases=biases, fine=fine)

    def with_maximum_bits(self, maximum_bits: int) -> "IntegerLayer":
        """The same layer with maxima that see only the ``maximum_bits`` high bits of the sums, rounded."""
        if isinstance(self.format, MacFormat):
            return self
        try:
            fmt = dataclasses.replace(self.format, maximum_bits=maximum_bits)
        except ValueError as error:
            raise ModelUsageError(str(error)) from None

        def rounded(codes: Integers, largest: int) -> Integers:
            return np.clip(codes + fmt.half_step - self.format.half_step, 0, largest)

        weights, biases = dict(self.weights), dict(self.biases)
        for port in set(weights) & {"k", "k1", "k2"}:
            weights[port] = rounded(weights[port], fmt.weight.maximum)
        for port in set(biases) & {"bias1", "bias2"}:
            biases[port] = rounded(biases[port], fmt.full_scale)
        return dataclasses.replace(self, format=fmt, weights=weights, biases=biases)

    def with_out_fraction(self, out_fraction: int) -> "IntegerLayer":
        """The same layer with a linear result, or one in front of its ReLU and log2, of so many fraction bits, its bias
        rounded; logarithmic ends and MAC layers as they are. What reads a linear result counts in other units then
        (:meth:`IntegerNetwork.with_out_fraction`)."""
        if isinstance(self.format, MacFormat) or self.format.combine == "logarithmic":
            return self
        try:
            fmt = dataclasses.replace(self.format, out_fraction=out_fraction)
        except ValueError as error:
            raise ModelUsageError(str(error)) from None
        dropped = self.format.out_fraction - out_fraction
        biases = {"bias": round_shift(self.biases["bias"], np.int64(dropped))}
        exponent = self.exponent if self.gives_codes else self.exponent + dropped
        return dataclasses.replace(self, format=fmt, biases=biases, exponent=exponent)
