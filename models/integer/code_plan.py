# SPDX-License-Identifier: Apache-2.0
"""Which layers of a network hand on log codes, which take them, and the format of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS, TWO_MAXIMA
from bmhw.hdl.formats.codes import LogCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.networks.architecture import Architecture, Node

if TYPE_CHECKING:
    from .quantise import Quantisation

__all__ = ["CodePlan"]


@dataclass(frozen=True, eq=False)
class CodePlan:
    """A network's layers (``layouts``: name -> layout) in a quantisation.

    With ``combine="logarithmic"`` or groups, a layer whose outputs go only into a normalisation and BM layers behind it
    hands on codes. In a network with groups these are the layers whose readers have their own code, and all BM layers
    but those that read the image take codes: of such a layer, or of another node, whose linear integers are turned into
    codes once (``encoded``). Without either every layer has linear inputs and outputs.
    """

    architecture: Architecture
    layouts: Mapping[str, str]
    quantisation: "Quantisation"

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The BM layers that give codes."""
        if self.quantisation.combine == "logarithmic":
            return self.architecture.code_layers(self.layouts, TWO_MAXIMA)
        if not self.quantisation.has_groups:
            return ()
        return tuple(
            name
            for name in self.architecture.code_layers(self.layouts, LAYOUTS)
            if self._readers_code(self._norm(name)) == self._code(name)
            and self._readers_code(self.architecture[name].inputs[0]) is not None
        )

    @cached_property
    def mac_codes(self) -> tuple[str, ...]:
        """The multiply-accumulate layers that give the codes of what follows: a normalisation, and such layers alone
        that take inputs of one width."""
        readers = self.architecture.readers

        def one_code(layer: str) -> bool:
            if self.layouts[layer] != "mac" or len(readers[layer]) != 1 or readers[layer][0].operation != "norm":
                return False
            behind = readers[readers[layer][0].name]
            macs = all(node.is_layer and self.layouts[node.name] == "mac" for node in behind)
            return macs and len({self.format(node).x for node in behind}) == 1

        return tuple(node.name for node in self.architecture.layers if one_code(node.name))

    @cached_property
    def live_norms(self) -> tuple[str, ...]:
        """The normalisations whose scale no BM layer takes up: only multiply-accumulate layers read them."""
        readers = self.architecture.readers

        def only_macs(node: Node) -> bool:
            if node.is_layer:
                return self.layouts[node.name] == "mac"
            return all(only_macs(behind) for behind in readers[node.name])

        return tuple(node.name for node in self.architecture.nodes if node.operation == "norm" and only_macs(node))

    @cached_property
    def ends(self) -> dict[str, str]:
        """The normalisations that become part of the layers in front of them: name -> layer."""
        return {self._norm(name): name for name in self.layers}

    @cached_property
    def encoded(self) -> dict[str, LogCode]:
        """The nodes whose linear integers are turned into codes, and these."""
        if not self.quantisation.has_groups:
            return {}
        codes = {node.name: self._readers_code(node.name) for node in self.architecture.nodes
                 if node.name not in self.ends}
        return {name: code for name, code in codes.items() if code is not None}

    def takes_codes(self, node: Node) -> bool:
        return self.layouts[node.name] != "mac" and node.inputs[0] in (*self.ends, *self.encoded)

    def format(self, node: Node, gives_codes: bool | None = None) -> BmFormat | MacFormat:
        """The format of a layer; ``gives_codes``: whether with the end for codes (None: as the layer has)."""
        architecture = self.architecture
        return self.quantisation.format(
            self.layouts[node.name],
            architecture.fan_in(node),
            not architecture.nonnegative(node.inputs[0]),
            channels=architecture[node.inputs[0]].channels,
            edge=self._is_edge(node.name),
            takes_codes=self.takes_codes(node),
            gives_codes=node.name in self.layers if gives_codes is None else gives_codes,
            layer=node.name,
        )

    @property
    def codes(self) -> tuple[str, ...]:
        """The nodes whose values BM layers take as codes of a scale that is chosen: all but those of a logarithmic end.
        """
        ends = self.ends if self.quantisation.combine == "linear" else ()
        return (*ends, *self.encoded)

    def reader(self, name: str) -> BmFormat:
        """The format of a layer that takes a node's codes."""
        behind = (layer for layer in self.architecture.layers if name in layer.inputs)
        return next(self.format(layer) for layer in behind if self.takes_codes(layer))

    def _norm(self, layer: str) -> str:
        return next(node.name for node in self.architecture.nodes if layer in node.inputs)

    def _code(self, layer: str) -> LogCode:
        """The code of a BM layer's activations."""
        return self.quantisation.format("relu", 1, False, edge=self._is_edge(layer)).activation

    def _is_edge(self, layer: str) -> bool:
        return layer in (self.architecture.layers[0].name, self.architecture.layers[-1].name)

    def _readers_code(self, name: str) -> LogCode | None:
        """The code that all BM layers behind a node take; None for the image, and where there are none or several."""
        if self.architecture[name].operation == "image":
            return None
        readers = [node for node in self.architecture.layers if name in node.inputs]
        codes = {self._code(node.name) for node in readers if self.layouts[node.name] != "mac"}
        return codes.pop() if len(codes) == 1 else None
