# SPDX-License-Identifier: Apache-2.0
"""The folded network in PyTorch: the integer network's structure with trainable parameters."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.models.networks.architecture import Architecture, Node

from .folded_end import FoldedEncoder
from .folded_mac import FoldedMac
from .folded_norm import FoldedBatchNorm, FoldedNorm
from .layer import IntegerLayer
from .network import IntegerNetwork
from .quantise import FoldedLayer

__all__ = ["FoldedNetwork"]


class FoldedNetwork(nn.Module):
    """The whole network on integers (held as floats); input: pixels 0..255, output: (batch, classes).

    ``quantised``: whether to round as the hardware does; without, it is the floating-point network again.
    """

    def __init__(
        self,
        architecture: Architecture,
        steps: Mapping[str, FoldedLayer | FoldedMac | FoldedNorm | FoldedBatchNorm],
        encoders: Mapping[str, FoldedEncoder] | None = None,
    ):
        """``encoders``: of nodes with linear integers that layers take as codes."""
        super().__init__()
        self.architecture, self.quantised = architecture, True
        self.steps, self.encoders = nn.ModuleDict(steps), nn.ModuleDict(encoders or {})
        self.classical = all(isinstance(self.steps[node.name], FoldedMac) for node in architecture.layers)

    def _moved(self, layer: Node) -> Tensor | None:
        """By how many steps the codes that a layer takes stand for less than when it was folded."""
        source = self.architecture[layer.inputs[0]]
        if not self.steps[layer.name].takes_codes:
            return None
        end = self.encoders[source.name].end if source.name in self.encoders else self.steps[source.inputs[0]].end
        return None if end is None else end.moved

    def units(self) -> dict[str, Tensor]:
        """What an integer of each node stands for, (channels,); of log codes, and while training of what is a real
        number already, something else that nobody reads."""
        units: dict[str, Tensor] = {}
        steps = dict(self.steps)
        for node in self.architecture.nodes:
            step = steps.get(node.name)
            sources = [units[name] for name in node.inputs]
            if node.operation == "image":
                unit = torch.full((node.channels,), 2.0**-8, device=next(self.parameters()).device)
            elif node.is_layer:
                unit = step.unit
            elif node.operation == "norm":
                unit = sources[0] if step is None else step.unit_behind(*sources)
            elif node.operation == "pool":
                unit = sources[0] / (node.kernel[0] * node.kernel[1])  # the folded pool is a sum
            else:
                unit = torch.stack(sources).amin(dim=0)  # of a sum: powers of two apart
            units[node.name] = unit
        return units

    def trace(self, images: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        encoded: dict[str, Tensor] = {}
        exponents: dict[str, Tensor] = {}
        units = self.units()
        if self.classical:  # the layout in memory in which convolutions of several channels are faster
            images = images.contiguous(memory_format=torch.channels_last)
        for node in self.architecture.nodes:
            inputs = [values[name] for name in node.inputs]
            if node.operation == "image":
                value, exponent = images, torch.full((node.channels,), -8.0, device=images.device)
            else:
                exponent = torch.stack([exponents[name] for name in node.inputs]).amin(dim=0)
                if node.name in self.steps:
                    step = self.steps[node.name]
                    if isinstance(step, (FoldedMac, FoldedNorm, FoldedBatchNorm)):
                        value = step(*inputs, units[node.inputs[0]], quantised=self.quantised)
                    else:
                        source = node.inputs[0]
                        if step.takes_codes and source in self.encoders:
                            if source not in encoded:  # one may have several readers
                                encoded[source] = self.encoders[source](*inputs, quantised=self.quantised)
                            inputs = [encoded[source]]
                        value = step(*inputs, quantised=self.quantised, moved=self._moved(node))
                    exponent = getattr(step, "exponent", None) if node.is_layer else exponent
                    exponent = torch.zeros_like(units[node.name]) if exponent is None else exponent
                elif node.operation == "norm":
                    value = inputs[0]  # part of the codes that its layer gives
                elif node.operation == "relu":
                    value = torch.relu(*inputs)
                elif node.operation == "pool":
                    value = functional.avg_pool2d(inputs[0], node.kernel, divisor_override=1)
                else:
                    value = sum(
                        v * torch.exp2(exponents[name] - exponent).view(-1, 1, 1)
                        for name, v in zip(node.inputs, inputs, strict=True)
                    )
            values[node.name], exponents[node.name] = value, exponent
        last = self.architecture.nodes[-1].name
        # logits as real numbers, so that a loss sees the scale that the network was trained with
        values["logits"] = (values[last] * torch.exp2(exponents[last]).view(-1, 1, 1)).flatten(1)
        return values

    def scores(self, trace: Mapping[str, Tensor]) -> Tensor:
        """(batch, classes), from the values of the nodes."""
        return trace["logits"]

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.trace(images))

    def to_integer(self, name: str, samples: np.ndarray) -> IntegerNetwork:
        """The integer network; ``samples``: held-out images, uint8 (count, channels, height, width)."""
        self.eval()
        units = self.units()
        layers = {}
        for node in self.architecture.layers:
            step = self.steps[node.name]
            layers[node.name] = (self._integer_mac(node, units) if isinstance(step, FoldedMac)
                                 else step.to_integer(self._moved(node)))
        thresholds = {
            key: step.to_integer(units[self.architecture[key].inputs[0]]) for key, step in self.steps.items()
            if isinstance(step, (FoldedNorm, FoldedBatchNorm)) and not self._gives_linear_codes(key)
        }
        encoders = {key: encoder.to_integer() for key, encoder in self.encoders.items()}
        return IntegerNetwork(
            name=name,
            architecture=self.architecture,
            layers=layers,
            thresholds=thresholds,
            samples=samples,
            encoders=encoders,
        )

    def _gives_linear_codes(self, name: str) -> bool:
        """Whether a node is the normalisation behind a multiply-accumulate layer that gives codes."""
        node = self.architecture[name]
        before = self.steps[node.inputs[0]] if node.operation == "norm" and node.inputs[0] in self.steps else None
        return isinstance(before, FoldedMac) and before.gives_sums

    def _integer_mac(self, node: Node, units: Mapping[str, Tensor]) -> IntegerLayer:
        step, source = self.steps[node.name], node.inputs[0]
        unit = None if self._gives_linear_codes(source) else units[source]
        if not step.gives_sums:
            return step.to_integer(unit)
        norm = self.architecture.readers[node.name][0].name
        reader = self.steps[self.architecture.readers[norm][0].name]
        threshold = self.steps[norm].to_integer(units[node.name])
        return step.to_integer(unit, threshold, reader.input_ratio(units[norm]), reader.format.x)
