# SPDX-License-Identifier: Apache-2.0
"""Network architectures as data: a list of nodes that PyTorch and the integer network both execute.

Sources: ResNet v2 (He et al., arXiv 1603.05027) in the form of the Keras example "ResNet20v2", which the
bipolar morphological paper (arXiv 2009.07190) converts; LeNet-5 (LeCun et al. 1998) with average pooling.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bmhw.hdl.checks import not_one_of
from bmhw.hdl.formats.choices import TWO_MAXIMA
from bmhw.models.errors import ModelError, ModelUsageError

__all__ = [
    "ARCHITECTURES",
    "LAYOUT_CHOICES",
    "Architecture",
    "Builder",
    "Node",
    "build",
    "lenet",
    "resnet_small",
    "resnet_v2",
]

OPERATIONS = ("image", "conv", "dense", "norm", "relu", "add", "pool")
LAYOUT_CHOICES = ("auto", "signed", "wired", "mac")
LARGEST_PIXEL = 255


@dataclass(frozen=True, kw_only=True)
class Node:
    """One step of a network; its value has shape (batch, channels, height, width).

    ``operation``: ``image`` (unsigned 8-bit pixels), ``conv``, ``dense`` (a convolution whose kernel is the
    whole map), ``norm`` (batch normalisation and ReLU), ``relu``, ``add`` (of two nodes), ``pool`` (average
    over windows of ``kernel`` that don't overlap). ``kernel`` is (height, width). ``border``: the pixel (0..255, not
    always whole) of each input channel that a layer which reads the image pads with; empty: zeros.
    """

    name: str
    operation: str
    inputs: tuple[str, ...] = ()
    channels: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: int = 0
    bias: bool = True
    border: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def is_layer(self) -> bool:
        """Whether the node has neurons (a convolution or a dense layer)."""
        return self.operation in ("conv", "dense")

    @property
    def border_codes(self) -> tuple[int, ...]:
        """``border`` as the integer network has it: the nearest pixel codes, halves up."""
        return tuple(min(math.floor(pixel + 0.5), LARGEST_PIXEL) for pixel in self.border)


@dataclass(frozen=True)
class Architecture:
    """Nodes in the order of the data; the first is the image, the last gives one value a class."""

    nodes: tuple[Node, ...]

    def __post_init__(self):
        known: dict[str, Node] = {}
        for node in self.nodes:
            _check_fields(node)
            if node.name in known:
                raise ModelError(f"Node name {node.name!r} is used twice")
            expected = {"image": 0, "add": 2}.get(node.operation, 1)
            if len(node.inputs) != expected:
                raise ModelError(f"Node {node.name} must have {expected} inputs, not {len(node.inputs)}")
            for name in node.inputs:
                if name not in known:
                    raise ModelError(f"Node {node.name} reads {name!r}, which no node before it gives")
            if node.shape != _output_shape(node, [known[name] for name in node.inputs]):
                raise ModelError(f"Shape of node {node.name} doesn't follow from its inputs: {node.shape}")
            if node.border:
                _check_border(node, known[node.inputs[0]] if node.inputs else node)
            known[node.name] = node
        if not self.nodes or self.nodes[0].operation != "image" or self.nodes[-1].shape[1:] != (1, 1):
            raise ModelError("An architecture must start with an image and end with one value a class")

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def image(self) -> Node:
        return self.nodes[0]

    @property
    def classes(self) -> int:
        return self.nodes[-1].channels

    @property
    def layers(self) -> tuple[Node, ...]:
        """The nodes that have neurons."""
        return tuple(node for node in self.nodes if node.is_layer)

    def fan_in(self, node: Node) -> int:
        """Inputs of one neuron of a layer: input channels * kernel height * kernel width."""
        return self[node.inputs[0]].channels * node.kernel[0] * node.kernel[1]

    def multiply_accumulates(self, node: Node) -> int:
        """What a layer does for one image: one for each input of each of its outputs."""
        return node.channels * node.height * node.width * self.fan_in(node)

    def nonnegative(self, name: str) -> bool:
        """Whether a node's values are known to be >= 0: images and what lies behind a ReLU."""
        node = self[name]
        if node.operation in ("image", "norm", "relu"):
            return True
        return node.operation in ("add", "pool") and all(self.nonnegative(source) for source in node.inputs)

    def layouts(self, choice: str = "auto", others: Mapping[str, str] | None = None) -> dict[str, str]:
        """What each layer's neurons are: a BM layout or ``mac``.

        ``choice``: ``signed`` or ``mac`` everywhere; ``auto``: ``relu`` where the inputs are known to be >= 0,
        ``bipolar`` elsewhere; ``wired``: where the inputs are known to be >= 0 and an even number, ``signed``
        elsewhere. ``others``: layers that are something else, name -> layout. ModelUsageError for one that doesn't
        exist, and for ``relu`` and ``wired`` where inputs may be below 0.
        """
        if choice not in LAYOUT_CHOICES:
            raise ModelUsageError(not_one_of("Layout", LAYOUT_CHOICES, choice))
        others = others or {}
        for name, layout_of_it in others.items():
            if layout_of_it in ("relu", "wired") and not self.nonnegative(self[self.check_layer(name)].inputs[0]):
                raise ModelUsageError(f"Layer {name} can't be {layout_of_it}: its inputs may be below 0")
            self.check_layer(name)

        def layout(node: Node) -> str:
            nonnegative = self.nonnegative(node.inputs[0])
            if choice == "auto":
                return "relu" if nonnegative else "bipolar"
            if choice == "wired" and not (nonnegative and self.fan_in(node) % 2 == 0):
                return "signed"
            return choice

        chosen = {node.name: layout(node) for node in self.layers}
        return chosen | dict(others)

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each node, by its name."""
        readers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for source in node.inputs:
                readers[source].append(node)
        return readers

    def code_layers(self, layouts: Mapping[str, str], able: Collection[str] = TWO_MAXIMA) -> tuple[str, ...]:
        """The layers whose outputs can go on as log codes.

        Behind them lies a normalisation and behind that nothing but BM layers; a residual sum or a pool needs
        linear values. ``able``: the layouts that have such an end; ``bipolar`` subtracts more than two terms and has no
        logarithmic one.
        """
        readers = self.readers

        def takes_codes(norm: Node) -> bool:
            behind = readers[norm.name]
            return norm.operation == "norm" and all(layouts.get(n.name, "mac") != "mac" for n in behind)

        return tuple(
            node.name
            for node in self.layers
            if layouts[node.name] in able
            and len(readers[node.name]) == 1
            and takes_codes(readers[node.name][0])
        )

    @property
    def border(self) -> tuple[float, ...]:
        """What the layers that pad the image pad it with; none: zeros."""
        return next((node.border for node in self.nodes if node.border), ())

    def with_border(self, pixels: Sequence[float]) -> "Architecture":
        """The same with layers that pad the image with these pixels (0..255), one a channel; none: with zeros."""
        nodes = (
            dataclasses.replace(node, border=tuple(pixels))
            if node.is_layer and node.padding and self[node.inputs[0]].operation == "image"
            else node
            for node in self.nodes
        )
        return Architecture(tuple(nodes)) if pixels else self

    def check_layer(self, name: str) -> str:
        """The name, if it is a layer's; ModelError otherwise."""
        names = [node.name for node in self.layers]
        if name not in names:
            raise ModelUsageError(not_one_of("Layer", names, name))
        return name

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values for JSON; ``border`` only where there is one."""
        nodes = [dataclasses.asdict(node) for node in self.nodes]
        return [{key: value for key, value in node.items() if key != "border" or value} for node in nodes]

    @classmethod
    def from_list(cls, nodes: list[Mapping[str, Any]]) -> "Architecture":
        """The inverse of :meth:`to_list`; ModelError for anything that is no architecture."""
        try:
            tuples = [
                {key: tuple(node.get(key, ())) for key in ("inputs", "kernel", "border")} for node in nodes
            ]
            return cls(tuple(Node(**{**node, **values}) for node, values in zip(nodes, tuples, strict=True)))
        except (TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"The architecture can't be read: {error}") from None


def _check_fields(node: Node) -> None:
    """ModelError for a node, perhaps out of a file, whose fields are of no use by themselves."""
    if not isinstance(node.name, str) or not node.name.isidentifier():
        raise ModelError(f"Node name {node.name!r} is no identifier")
    if node.operation not in OPERATIONS:
        raise ModelError(not_one_of(f"Operation of node {node.name}", OPERATIONS, node.operation))
    if len(node.kernel) != 2:
        raise ModelError(f"Kernel of node {node.name} must be (height, width), not {node.kernel}")
    sizes = {
        "Channels": node.channels, "Height": node.height, "Width": node.width, "Stride": node.stride,
        "Kernel height": node.kernel[0], "Kernel width": node.kernel[1],
    }  # fmt: skip
    for what, value, least in (*((name, value, 1) for name, value in sizes.items()), ("Padding", node.padding, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelError(f"{what} of node {node.name} must be an integer of {least} or more, not {value!r}")


def _check_border(node: Node, source: Node) -> None:
    if not node.is_layer or source.operation != "image":
        raise ModelError(f"Node {node.name} can't have a border: it doesn't pad the image")
    if len(node.border) != source.channels:
        raise ModelError(f"Border of node {node.name} must have {source.channels} values, not {len(node.border)}")
    for pixel in node.border:
        if isinstance(pixel, bool) or not isinstance(pixel, (int, float)) or not 0 <= pixel <= LARGEST_PIXEL:
            raise ModelError(f"Border of node {node.name} must be from 0 to {LARGEST_PIXEL}, not {pixel!r}")


def _output_shape(node: Node, sources: list[Node]) -> tuple[int, int, int]:
    if not sources:
        return node.shape
    channels, height, width = sources[0].shape
    if node.operation == "add":
        return sources[0].shape if sources[0].shape == sources[1].shape else (-1, -1, -1)
    if node.operation in ("norm", "relu"):
        return channels, height, width
    kernel_height, kernel_width = node.kernel
    if node.operation == "pool":
        return channels, height // kernel_height, width // kernel_width
    return (
        node.channels,
        (height + 2 * node.padding - kernel_height) // node.stride + 1,
        (width + 2 * node.padding - kernel_width) // node.stride + 1,
    )


class Builder:
    """Collects nodes; each method adds one and returns its name."""

    def __init__(self, channels: int, height: int, width: int):
        self.nodes: dict[str, Node] = {}
        self._add(name="image", operation="image", channels=channels, height=height, width=width)

    def _add(self, **fields: Any) -> str:
        sources = [self.nodes[name] for name in fields.get("inputs", ())]
        if sources:
            fields.setdefault("channels", sources[0].channels)
            draft = Node(**fields, height=0, width=0)
            fields["height"], fields["width"] = _output_shape(draft, sources)[1:]
            if min(fields["height"], fields["width"]) < 1:
                raise ModelError(f"Nothing is left of the image at node {fields['name']}")
        self.nodes[fields["name"]] = Node(**fields)
        return fields["name"]

    def conv(
        self,
        name: str,
        source: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> str:
        """A convolution; ``padding`` defaults to half the kernel, which keeps the size at stride 1."""
        return self._add(
            name=name,
            operation="conv",
            inputs=(source,),
            channels=channels,
            kernel=(kernel, kernel),
            stride=stride,
            padding=kernel // 2 if padding is None else padding,
            bias=bias,
        )

    def dense(self, name: str, source: str, channels: int) -> str:
        node = self.nodes[source]
        return self._add(
            name=name,
            operation="dense",
            inputs=(source,),
            channels=channels,
            kernel=(node.height, node.width),
        )

    def norm(self, source: str) -> str:
        return self._add(name=f"{source}_norm", operation="norm", inputs=(source,))

    def relu(self, source: str) -> str:
        return self._add(name=f"{source}_relu", operation="relu", inputs=(source,))

    def add(self, name: str, first: str, second: str) -> str:
        return self._add(name=name, operation="add", inputs=(first, second))

    def pool(self, source: str, kernel: int | None = None) -> str:
        """Average over windows of ``kernel``, or over the whole map."""
        node = self.nodes[source]
        window = (node.height, node.width) if kernel is None else (kernel, kernel)
        return self._add(name=f"{source}_pool", operation="pool", inputs=(source,), kernel=window)

    def build(self) -> Architecture:
        return Architecture(tuple(self.nodes.values()))


def resnet_v2(
    channels: int, size: int, *, filters: int = 16, stages: int = 3, blocks: int = 2, classes: int = 10
) -> Architecture:
    """Pre-activation bottleneck ResNet; the defaults are the 22 convolutions of ResNet20v2.

    The first block of stage 0 takes the stem's activation as it is, and each stage starts with a convolution
    in its shortcut; those behind stage 0 read the raw residual stream, so that their inputs are signed.
    """
    net = Builder(channels, size, size)
    stream = net.norm(net.conv("stem", "image", filters, 3))
    narrow = filters
    for stage in range(stages):
        wide = narrow * 4 if stage == 0 else narrow * 2
        for block in range(blocks):
            prefix = f"stage{stage}_block{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            start = stream if stage == 0 and block == 0 else net.norm(stream)
            x = net.norm(net.conv(f"{prefix}_conv1", start, narrow, 1, stride=stride))
            x = net.norm(net.conv(f"{prefix}_conv2", x, narrow, 3))
            x = net.conv(f"{prefix}_conv3", x, wide, 1)
            if block == 0:
                stream = net.conv(f"{prefix}_shortcut", stream, wide, 1, stride=stride)
            stream = net.add(prefix, stream, x)
        narrow = wide
    net.dense("dense", net.pool(net.norm(stream)), classes)
    return net.build()


def resnet_small(
    channels: int, size: int, *, filters: int = 16, stages: int = 2, classes: int = 10
) -> Architecture:
    """Pre-activation ResNet with one block of two 3x3 convolutions a stage; each stage twice as wide."""
    net = Builder(channels, size, size)
    stream = net.conv("stem", "image", filters, 3)
    for stage in range(stages):
        prefix, width, stride = f"stage{stage}", filters << stage, 1 if stage == 0 else 2
        x = net.norm(net.conv(f"{prefix}_conv1", net.norm(stream), width, 3, stride=stride))
        x = net.conv(f"{prefix}_conv2", x, width, 3)
        if stride > 1:
            stream = net.conv(f"{prefix}_shortcut", stream, width, 1, stride=stride)
        stream = net.add(prefix, stream, x)
    net.dense("dense", net.pool(net.norm(stream)), classes)
    return net.build()


def lenet(
    channels: int,
    size: int,
    *,
    filters: tuple[int, int] = (16, 32),
    hidden: tuple[int, int] = (120, 84),
    classes: int = 10,
) -> Architecture:
    """LeNet-like: two 5x5 convolutions with 2x2 average pooling, and three dense layers.

    LeNet-5 has (6, 16) filters; a maximum passes less on than a sum, so that BM networks want more of them.
    """
    net = Builder(channels, size, size)
    x = net.pool(net.norm(net.conv("conv1", "image", filters[0], 5, padding=2)), 2)
    x = net.pool(net.norm(net.conv("conv2", x, filters[1], 5, padding=0)), 2)
    x = net.norm(net.dense("dense1", x, hidden[0]))
    x = net.norm(net.dense("dense2", x, hidden[1]))
    net.dense("dense3", x, classes)
    return net.build()


ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "resnet20": resnet_v2,
    "resnet-small": resnet_small,
    "lenet": lenet,
}
"""Name -> function of (channels, height = width) of the image."""

LARGEST_SIZE = 256
"""Images up to which :func:`build` looks for the smallest that an architecture takes."""


def build(name: str, channels: int, size: int) -> Architecture:
    """An architecture by name for square images; ModelUsageError for an unknown one, and for images that are too small
    for it, with the smallest size."""
    if name not in ARCHITECTURES:
        raise ModelUsageError(not_one_of("Architecture", ARCHITECTURES, name))
    try:
        return ARCHITECTURES[name](channels, size)
    except ModelError as error:
        smallest = next((s for s in range(size + 1, LARGEST_SIZE) if _fits(name, channels, s)), None)
        if smallest is None:
            raise
        raise ModelUsageError(
            f"Architecture {name} needs images of at least {smallest} x {smallest} pixels, not {size} x {size}: "
            f"{str(error)[0].lower()}{str(error)[1:]}"
        ) from None


def _fits(name: str, channels: int, size: int) -> bool:
    try:
        ARCHITECTURES[name](channels, size)
    except ModelError:
        return False
    return True
