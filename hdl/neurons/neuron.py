# SPDX-License-Identifier: Apache-2.0
"""The neuron that a design describes, in whichever form."""

from .design import Design
from .elements import Element
from .parallel import BmNeuron, MacNeuron, Neuron
from .serial import SerialBmNeuron, SerialMacNeuron, SerialNeuron

__all__ = ["create_neuron"]

_KINDS = {
    ("mac", False): MacNeuron,
    ("bm", False): BmNeuron,
    ("mac", True): SerialMacNeuron,
    ("bm", True): SerialBmNeuron,
}
"""(neuron, whether serial) -> class."""


def create_neuron(design: Design) -> Neuron | SerialNeuron | Element:
    """An Amaranth component; ``latency`` and ``ports`` are its properties."""
    if design.element:
        return Element(design=design)
    return _KINDS[design.neuron, design.form == "serial"](design=design)
