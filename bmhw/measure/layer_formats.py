# SPDX-License-Identifier: Apache-2.0
"""Which neurons are compared in a network's layers: the same ones in each, or those that it was trained with."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LOG_SUBTRACT_FRACTION
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.networks.groups import Groups, groups_of, has_groups

from .networks import Layer, Network
from .selection import AUTO

__all__ = ["Neurons", "TrainedNeurons"]


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """What is compared in each layer.

    ``mac_weight_bits``: of the MAC layers' weights (None: ``mac_bits``). ``log_bits``: of the BM layers' log codes
    (None: ``bm_bits``, which is the width of linear inputs and half that of a linear result), ``log_fraction`` their
    bits behind the point (None: as many as span the linear numbers).
    ``branches``: ``relu`` (where the inputs allow it, else ``bipolar``), ``signed``, or ``wired`` (where the inputs
    allow it and are an even number, two a group at least, else ``signed``). ``objective``: see
    :func:`~bmhw.measure.selection.cost`. ``requantize``: of the MAC layers with a code as output. ``sums``,
    ``maximum_bits``: of the BM layers, see :class:`~bmhw.hdl.formats.neurons.BmFormat`; ``linear_maximum_bits``: the
    same of those with a linear result (None: as many). ``combine``: their end where a code follows; ``auto``: the
    better one for the objective, with groups the linear one. ``groups`` of input channels that each BM
    layer is to have (see :func:`~bmhw.models.networks.groups.groups_of`), ``zero``: what their code 0 stands for (None:
    0 with groups, else a step).
    """

    mac_bits: int = 8
    mac_weight_bits: int | None = None
    bm_bits: int = 8
    log_bits: int | None = None
    log_fraction: int | None = None
    branches: str = "relu"
    objective: str = "area"
    requantize: str = "scale"
    sums: str = "full"
    maximum_bits: int | None = None
    linear_maximum_bits: int | None = None
    combine: str = AUTO
    groups: Groups = 1
    zero: str | None = None

    def layer_groups(self, layer: Layer) -> int:
        """How many groups the layer's BM neurons have."""
        return groups_of(layer.channels, self.groups, layer.fan_in // layer.channels)

    def layout(self, layer: Layer) -> str:
        """The BM layout that the layer's inputs allow."""
        if self.branches == "relu":
            return "relu" if layer.nonnegative else "bipolar"
        paired = layer.fan_in % 2 == 0 and layer.fan_in // self.layer_groups(layer) > 1
        if self.branches == "wired" and layer.nonnegative and paired:
            return "wired"
        return "signed"

    def mac(self, layer: Layer) -> MacFormat:
        return MacFormat(inputs=layer.fan_in, bits=self.mac_bits, weight_bits=self.mac_weight_bits,
                         signed_inputs=not layer.nonnegative, boundary="layer", result=layer.output,
                         requantize=self.requantize)

    def bm(self, layer: Layer) -> list[BmFormat]:
        """The formats that may be built: a linear end, and where a code follows and its table stays small a
        logarithmic one; only that of ``combine``, where it can be built."""
        maximum_bits = self.maximum_bits
        if layer.output == "linear" and self.linear_maximum_bits is not None:
            maximum_bits = self.linear_maximum_bits
        common = {"inputs": layer.fan_in, "bits": self.bm_bits, "log_bits": self.log_bits,
                  "log_fraction": self.log_fraction, "layout": self.layout(layer),
                  "signed_inputs": not layer.nonnegative, "boundary": "layer", "result": layer.output,
                  "sums": self.sums, "maximum_bits": maximum_bits, "groups": self.layer_groups(layer)}
        zero = "exact" if self.zero is None and has_groups(self.groups) else self.zero
        linear = BmFormat(**common, zero=zero)
        fits = (layer.output == "code" and linear.layout != "bipolar"
                and linear.log_fraction <= LOG_SUBTRACT_FRACTION)
        open_end = self.combine == AUTO and not has_groups(self.groups) and linear.zero == "step"
        if not fits or not (open_end or self.combine == "logarithmic"):
            return [linear]
        logarithmic = BmFormat(**common, zero=self.zero, combine="logarithmic")
        return [logarithmic] if self.combine == "logarithmic" else [linear, logarithmic]


@dataclass(frozen=True, kw_only=True)
class TrainedNeurons(Neurons):
    """A trained network's own BM neurons beside MAC neurons of any width; see :meth:`of`.

    ``formats``: layer name -> format on the network's card; with a multiply-accumulate layer there nothing is compared.
    The other fields of the BM neurons are what all its layers agree in, else None: :meth:`bm` doesn't use them.
    """

    formats: Mapping[str, BmFormat | MacFormat] = field(hash=False)

    @classmethod
    def of(cls, network: Network, **options: Any) -> "TrainedNeurons":
        """The neurons of a network with formats; ``options``: those of :class:`Neurons` that no card decides."""
        bm = [(layer.output, fmt) for layer in network.layers
              if isinstance(fmt := network.formats[layer.name], BmFormat)]

        def common(name: str, output: str | None = None) -> Any:
            found = {getattr(fmt, name) for before, fmt in bm if output in (None, before)}
            return found.pop() if len(found) == 1 else None

        layouts = {fmt.layout for _, fmt in bm}
        return cls(formats=network.formats, bm_bits=common("bits"), log_bits=common("log_bits"),
                   log_fraction=common("log_fraction"), sums=common("sums"), combine=common("combine", "code"),
                   branches=next((name for name in ("wired", "relu") if name in layouts), "signed"),
                   maximum_bits=common("maximum_bits", "code") or common("maximum_bits"),
                   linear_maximum_bits=common("maximum_bits", "linear"), groups=common("groups"), zero=common("zero"),
                   **options)

    def layout(self, layer: Layer) -> str:
        return getattr(self.formats[layer.name], "layout", "mac")

    def layer_groups(self, layer: Layer) -> int:
        return getattr(self.formats[layer.name], "groups", 1)

    def bm(self, layer: Layer) -> list[BmFormat]:
        """The card's format between what precedes and what follows the layer; none for a multiply-accumulate layer."""
        fmt = self.formats[layer.name]
        if isinstance(fmt, MacFormat):
            return []
        # a sample of a layer has another fan-in, which the groups may not divide
        most = layer.fan_in // 2 if fmt.layout == "wired" else layer.fan_in
        groups = groups_of(layer.fan_in, min(fmt.groups, most), 1)
        return [dataclasses.replace(fmt, inputs=layer.fan_in, boundary="layer", result=layer.output, groups=groups)]

    def contradiction(self, given: Mapping[str, Any], layers: Iterable[Layer]) -> tuple[str, str, Any] | None:
        """The first of the ``given`` fields of :class:`Neurons` that a layer's format contradicts: (field, layer, what
        its format says); None if there is none."""
        for name, layer in itertools.product(given, layers):
            fmt, value = self.formats[layer.name], given[name]
            own_maxima = layer.output == "linear" and "linear_maximum_bits" in given
            if (isinstance(fmt, MacFormat) or (name == "maximum_bits" and own_maxima)
                    or (name == "linear_maximum_bits" and layer.output == "code")
                    or (name == "combine" and (value == AUTO or layer.output == "linear" or fmt.layout == "bipolar"))):
                continue  # the option says nothing of this layer
            said = getattr(fmt, _FIELDS.get(name, name))
            if name == "branches":
                value = Neurons(branches=value, groups=fmt.groups).layout(layer)
            elif name == "groups":
                value = groups_of(layer.channels, value, layer.fan_in // layer.channels)
            if said != value:
                return name, layer.name, said
        return None


# Fields of Neurons that are called otherwise in a format.
_FIELDS = {"bm_bits": "bits", "branches": "layout", "linear_maximum_bits": "maximum_bits"}
