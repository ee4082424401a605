# SPDX-License-Identifier: Apache-2.0
"""Networks as lists of layers to be built in hardware: fan-in, outputs, and what each layer's inputs allow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bmhw.errors import UsageError
from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import set_default
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.files.store import list_models, list_widths, read_formats
from bmhw.models.files.widths import trained_at
from bmhw.models.networks.architecture import Architecture, Node, resnet_v2

__all__ = ["NETWORKS", "Layer", "Network", "layers_of", "network"]


@dataclass(frozen=True)
class Layer:
    """A convolution or a dense layer as hardware: ``outputs`` neurons of ``fan_in`` inputs.

    ``kernel``: height and width of the window, 1 for a dense layer, which has all values in front of it as ``inputs``.
    ``channels``: of the input, of which groups are made (None: as many as ``inputs``).
    ``nonnegative``: whether all inputs are known to be >= 0. ``output``: ``code`` if the next layer's activation
    code follows, ``linear`` if what follows takes the number itself: a residual sum, a pool, the choice of the class.
    """

    name: str
    kernel: int
    inputs: int
    outputs: int
    stride: int
    nonnegative: bool
    output: str
    channels: int | None = None

    def __post_init__(self):
        set_default(self, "channels", self.inputs)

    @property
    def fan_in(self) -> int:
        return self.kernel * self.kernel * self.inputs


def layers_of(architecture: Architecture, dense: bool = False) -> tuple[Layer, ...]:
    """The convolutions of an architecture, in the order of the data; with ``dense`` the dense layers too."""
    readers = architecture.readers

    def gives_codes(name: str) -> bool:
        """Whether all that reads a node are activations, and layers behind those: nothing needs the number itself."""
        return bool(readers[name]) and all(
            reader.operation in ("norm", "relu") and readers[reader.name]
            and all(behind.is_layer for behind in readers[reader.name]) for reader in readers[name])

    def layer(node: Node) -> Layer:
        source = architecture[node.inputs[0]]
        kernel, inputs = node.kernel[0], source.channels
        if node.operation == "dense":
            kernel, inputs = 1, architecture.fan_in(node)
        return Layer(name=node.name, kernel=kernel, inputs=inputs, outputs=node.channels, stride=node.stride,
                     nonnegative=architecture.nonnegative(source.name),
                     output="code" if gives_codes(node.name) else "linear", channels=source.channels)

    return tuple(layer(node) for node in architecture.nodes
                 if node.operation == "conv" or (dense and node.operation == "dense"))


NETWORKS: dict[str, Callable[[], tuple[Layer, ...]]] = {
    # the network of arXiv 2009.07190, on images of one channel
    "resnet20v2": lambda: layers_of(resnet_v2(1, 28)),
}
"""Networks whose neurons can be chosen freely: name -> its convolutions."""


@dataclass(frozen=True)
class Network:
    """``formats``: of a trained network's layers, name -> format on its card; None for one of :data:`NETWORKS`."""

    name: str
    layers: tuple[Layer, ...]
    formats: Mapping[str, BmFormat | MacFormat] | None = None


def network(name: str, bits: int | None = None) -> Network:
    """One of :data:`NETWORKS`, a trained network that comes with the package, or the one at a path to its card; of
    trained ones, that in codes of ``bits`` bits (``trained_at``).

    UsageError for an unknown name and a width that wasn't trained, ModelError for a card that can't be read.
    """
    if name in NETWORKS:
        return Network(name, NETWORKS[name]())
    if not name.endswith((".json", ".safetensors")) and name not in list_models() and not list_widths(name):
        raise UsageError(not_one_of("--network, if not the path of a card ending in .json,",
                                    [*NETWORKS, *list_models()], name))
    card, architecture, formats = read_formats(name if bits is None else trained_at(name, bits))
    return Network(card.stem, layers_of(architecture, dense=True), formats)
