# SPDX-License-Identifier: Apache-2.0
"""Networks as lists of layers to be built in hardware: fan-in, outputs, and what each layer's inputs allow."""

from collections.abc import Callable
from dataclasses import dataclass

from bmhw.models.networks.architecture import Architecture, resnet_v2

__all__ = ["NETWORKS", "Layer", "layers_of"]


@dataclass(frozen=True)
class Layer:
    """A convolution as hardware: ``outputs`` neurons of ``fan_in`` inputs.

    ``nonnegative``: whether all inputs are known to be >= 0. ``output``: ``code`` if the next layer's activation
    code follows, ``linear`` if a residual sum does.
    """

    name: str
    kernel: int
    inputs: int
    outputs: int
    stride: int
    nonnegative: bool
    output: str

    @property
    def fan_in(self) -> int:
        return self.kernel * self.kernel * self.inputs


def layers_of(architecture: Architecture) -> tuple[Layer, ...]:
    """The convolutions of an architecture, in the order of the data."""
    readers: dict[str, set[str]] = {}
    for node in architecture.nodes:
        for source in node.inputs:
            readers.setdefault(source, set()).add(node.operation)
    return tuple(
        Layer(name=node.name, kernel=node.kernel[0], inputs=architecture[node.inputs[0]].channels,
              outputs=node.channels, stride=node.stride, nonnegative=architecture.nonnegative(node.inputs[0]),
              # an activation behind every reader: nothing needs the number itself
              output="code" if readers[node.name] <= {"norm", "relu"} else "linear")
        for node in architecture.nodes if node.operation == "conv")


NETWORKS: dict[str, Callable[[], tuple[Layer, ...]]] = {
    # the network of arXiv 2009.07190, on images of one channel
    "resnet20v2": lambda: layers_of(resnet_v2(1, 28)),
}
"""Name -> its convolutions."""
