# SPDX-License-Identifier: Apache-2.0
"""What each port of a generated neuron carries: width, range, direction, meaning."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import SCALARS
from bmhw.hdl.formats.mac import MacFormat

from .vectors import value_range

if TYPE_CHECKING:
    from bmhw.hdl.neurons.design import Design

__all__ = ["CONTROLS", "PORT_NAMES", "Port", "input_order", "ports_of"]

CONTROLS = {
    "parallel": (),
    "pipelined": ("clk", "rst"),
    "serial": ("clk", "rst", "in_valid", "in_ready", "out_valid", "out_ready"),
}
"""Ports beside the format's, for each form."""

_CONTROL_MEANINGS = {
    "clk": ("input", "clock; everything happens at its rising edge"),
    "rst": ("input", "synchronous reset, active high"),
    "in_valid": ("input", "an element is offered"),
    "in_ready": ("output", "the element is accepted at the next rising edge if in_valid is 1"),
    "out_valid": ("output", "an output is offered; it stays until it is taken"),
    "out_ready": ("input", "the output is taken at the next rising edge if out_valid is 1"),
}


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port: ``bits`` in all, ``elements`` of ``element_bits`` each, element 0 in the lowest bits.

    ``minimum`` and ``maximum`` of an element's integer; ``value``: the real number that it stands for.
    """

    name: str
    direction: str
    bits: int
    elements: int = 1
    element_bits: int = 1
    signed: bool = False
    minimum: int = 0
    maximum: int = 1
    meaning: str
    value: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def ports_of(design: "Design") -> list[Port]:
    """All ports of the generated module: clock and reset, inputs, output, streams."""
    controls = [
        Port(name=name, bits=1, direction=_CONTROL_MEANINGS[name][0], meaning=_CONTROL_MEANINGS[name][1])
        for name in CONTROLS[design.form]
    ]
    number_format = design.format
    meanings = (
        _mac_meanings(number_format) if isinstance(number_format, MacFormat) else _bm_meanings(number_format)
    )
    data = []
    for name, (code, elements) in number_format.inputs_of.items():
        meaning, value = meanings[name]
        if design.form == "serial":
            meaning += ", sampled with the first element" if name in SCALARS else ", one element a cycle"
            elements = 1
        low, high = value_range(number_format, name)
        data.append(
            Port(
                name=name,
                direction="input",
                bits=code.bits * elements,
                elements=elements,
                element_bits=code.bits,
                signed=code.signed,
                minimum=low,
                maximum=high,
                meaning=meaning,
                value=value,
            )
        )
    name, code = number_format.output
    data.append(
        Port(
            name=name,
            direction="output",
            bits=code.bits,
            element_bits=code.bits,
            signed=code.signed,
            minimum=code.minimum,
            maximum=code.maximum,
            meaning=meanings[name][0],
            value=meanings[name][1],
        )
    )
    return [*controls[:2], *data, *controls[2:]]


def _mac_meanings(number_format: MacFormat) -> dict[str, tuple[str, str | None]]:
    residual = ", plus r" if number_format.residual_bits else ""
    return {
        "x": ("inputs", None),
        "w": ("weights", None),
        "bias": ("bias", None),
        "r": ("residual, added to the sum", None),
        "scale": ("factor of the requantisation", None),
        "y": (f"sum of x * w over the inputs, plus bias{residual}", None),
        "z": (f"the sum of x * w and the bias{residual}, behind ReLU and requantisation", None),
    }


def _bm_meanings(number_format: BmFormat) -> dict[str, tuple[str, str]]:
    fraction = number_format.log_fraction
    linear = f"integer / 2^{number_format.out_fraction}"
    weight = f"2^((code - {number_format.weight.maximum}) / 2^{fraction})"
    code = f"2^((code - {number_format.activation.maximum}) / 2^{fraction}), code 0 stands for 0"
    if number_format.zero == "exact":
        weight += ", code 0 stands for 0"
    candidate = f"2^((code - {number_format.full_scale}) / 2^{fraction})"
    magnitudes = "log codes of the weights' magnitudes"
    grouped = number_format.groups > 1
    if number_format.layout == "wired":
        magnitudes += f", the first {number_format.positive_inputs}{' of each group' if grouped else ''} positive, "
        magnitudes += "the others negative"
    order = f", {number_format.groups} groups of {number_format.group_inputs}" if grouped else ""
    return {
        "x": (f"inputs, linear{order}", f"integer / 2^{number_format.x.magnitude_bits}"),
        "c": (f"log codes of the inputs' magnitudes{order}", code),
        "negative": ("signs of the inputs, 1 is negative", "-1 if negative else 1"),
        "k1": ("log codes of the weights' positive parts", weight),
        "k2": ("log codes of the weights' negative parts", weight),
        "k": (magnitudes, weight),
        "sign": ("signs of the weights, 1 is negative", "-1 if sign else 1"),
        "bias": ("bias, linear", linear),
        "r": ("residual, linear, added to the output", linear),
        "bias1": ("one more candidate of the first maximum (the positive one)", candidate),
        "bias2": ("one more candidate of the second maximum (the negative one)", candidate),
        "y": ("output, linear", linear),
        "z": ("output, log code", code),
    }


def input_order(number_format: BmFormat) -> str:
    """Which elements of the ports, or of a serial neuron's streams, each group has, in words."""
    groups, size = number_format.groups, number_format.group_inputs
    elements = "all elements" if groups == 1 else "element g" if size == 1 else (
        f"elements {size} * g to {size} * g + {size - 1}")
    words = f"{'one group' if groups == 1 else f'group g of {groups}'} has {elements}"
    if number_format.layout == "wired":
        words += f", the first {number_format.positive_inputs} of them with positive weights"
    return words


PORT_NAMES = frozenset(_CONTROL_MEANINGS) | _mac_meanings(MacFormat(inputs=1, bits=2)).keys() | _bm_meanings(
    BmFormat(inputs=1, bits=2)
).keys()
"""Every port that some neuron has."""
