# SPDX-License-Identifier: Apache-2.0
"""One complete, hashable description of a neuron: its format and how it is built."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.block import Block
from bmhw.hdl.checks import check_choice, check_range
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ELEMENT
from bmhw.hdl.formats.codes import default_fraction
from bmhw.hdl.formats.mac import MacFormat

from . import bm_parts, element_parts, mac_parts
from .linear_ends import ENDS, LINEAR_ENDS, refusal
from .log_ends import LOG_ENDS

__all__ = ["FORMS", "LONGEST_NAME", "MOST_INPUTS", "SELECTIONS", "Design", "joined"]

FORMS = ("parallel", "pipelined", "serial")

SELECTIONS = {"mac": ("before", "behind"), "bm": ("before", "behind", "enable")}
"""Of an element: where what depends on ``first`` and on signs is chosen, before a comparison or addition or behind."""

MOST_INPUTS = 1 << 16
"""A neuron of more is no circuit that a tool places; a mistyped number would fill the memory."""

LONGEST_NAME = 100
"""Of a module, in characters. The names of files that tools make of it hold it twice (that of a submodule begins with
it) with up to 55 characters more, and most file systems take 255 bytes."""

# The fields that a name begins with; see `Design.name`.
_NAMED_FIRST = ("inputs", "bits", "layout", "boundary", "log_bits", "log_fraction")
# Field of a format -> its word in a name, where its value isn't the default; the others are called by their own name.
_WORDS = {
    "groups": "groups{}", "sums": "{}", "zero": "zero_{}", "combine": "{}", "signed_inputs": "signed_inputs",
    "maximum_bits": "maxima{}",
    "weight_bits": "weights{}", "result": "{}", "requantize": "{}", "requantize_shift": "shift{}",
    "scale_bits": "scale{}", "bias_bits": "bias{}", "out_fraction": "out{}",
    "residual_bits": "residual{}", "flush": "flush{}", "log2": "log2_{}", "exp2": "exp2_{}",
}


@dataclass(frozen=True, kw_only=True)
class Design:
    """A neuron to be generated.

    Parameters
    ----------
    format: :class:`MacFormat` or :class:`BmFormat`; what is computed (any architecture gives the same integers).
    form: ``parallel`` (combinational), ``pipelined`` (registers after the stages named in ``registers``) or
        ``serial`` (one input a cycle, valid/ready).
    adder, maximum, multiplier: architectures; keys of ``adders.ADDERS``, ``maxima.MAXIMA``,
        ``multipliers.MULTIPLIERS``. ``maximum`` counts for BM only, ``multiplier`` for MAC only.
    end: architecture of a BM neuron's end, a key of ``log_ends.LOG_ENDS`` or ``linear_ends.LINEAR_ENDS``.
    selection: of boundary ``element``, one of its neuron's :data:`SELECTIONS`. ``before``: a BM element has one
        comparison with the maximum that a sign names, a MAC element's accumulator is masked at the first product.
        ``behind``: one comparison with each maximum, whose results are chosen from; the accumulator takes the first
        product as it is. ``enable`` (BM): as behind, and a maximum is loaded by its register's enable in the place of
        gates.
    registers: for ``pipelined``: what has registers behind it, of :attr:`places`: names of parts, or
        ``PART.LEVEL`` for a level inside a part; None means every part. For an element: None, or its first part alone:
        a register between sum or product and maximum or accumulator.
    """

    format: MacFormat | BmFormat
    form: str = "parallel"
    adder: str = "sklansky"
    maximum: str = "tree"
    multiplier: str = "dadda"
    end: str = "subtract"
    selection: str = "before"
    registers: tuple[str, ...] | None = None

    def __post_init__(self):
        check_choice("Form", self.form, FORMS)
        check_range("Number of inputs", self.format.inputs, 1, MOST_INPUTS)
        if self.element and self.form != "serial":
            raise ValueError(f"Boundary element needs form serial, one input a cycle, not {self.form}")
        check_choice("Adder", self.adder, ADDERS)
        check_choice("Maximum", self.maximum, MAXIMA)
        check_choice("Multiplier", self.multiplier, MULTIPLIERS)
        check_choice("End", self.end, ENDS)
        check_choice("Selection", self.selection, SELECTIONS[self.neuron])
        ended = isinstance(self.format, BmFormat) and not self.element
        if ended and (why := refusal(self.format, self.maximum, self.end, self.form)):
            raise ValueError(why)
        if self.registers is not None and self.element:
            if self.registers != self.parts[:1]:
                raise ValueError(f"Registers of this element can be after {self.parts[0]} only, not after "
                                 f"{', '.join(self.registers) or 'none'}")
        elif self.registers is not None:
            if self.form != "pipelined":
                raise ValueError(f"Registers after parts need form pipelined, not {self.form!r}")
            if not self.registers:
                raise ValueError("Form pipelined needs registers after one part at least, not after none")
            if not set(self.registers) <= set(self.parts):  # levels are counted in the blocks themselves
                for place in self.registers:
                    check_choice("Place of registers", place, self.places)
            if len(set(self.registers)) < len(self.registers):
                raise ValueError(f"Registers must be named once each, not as {', '.join(self.registers)}")

    @property
    def neuron(self) -> str:
        """``mac`` or ``bm``."""
        return "mac" if isinstance(self.format, MacFormat) else "bm"

    @property
    def element(self) -> bool:
        """Whether it has no end: boundary ``element``."""
        return self.format.boundary == ELEMENT

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts in the order of the data: the neuron's submodules, pipeline stages and table rows."""
        return tuple(_makers(self))

    def create_parts(self) -> dict[str, Block]:
        """The parts, in the order of the data, with their registers inside. Ports of the same name are connected."""
        return {name: make() for name, make in _makers(self).items()}

    @property
    def places(self) -> tuple[str, ...]:
        """Where a pipelined neuron may have registers, in the order of the data: ``maxima.1``, ``maxima``, ..."""
        parts = dataclasses.replace(self, form="parallel", registers=None).create_parts()
        return tuple(place for name, part in parts.items()
                     for place in (*(f"{name}.{level}" for level in range(1, part.levels)), name))

    def levels_with_registers(self, part: str) -> tuple[int, ...]:
        """Levels inside a part with registers behind them."""
        inside = (place.split(".") for place in self.registers or () if "." in place)
        return tuple(sorted(int(level) for name, level in inside if name == part))

    @property
    def name(self) -> str:
        """A Verilog module name, such as ``bm_relu_8bit_9in``: what it computes where that isn't the default, and its
        form.

        Designs that differ in more than their :attr:`architecture` have different names.
        """
        fmt = self.format
        words = [self.neuron]
        if isinstance(fmt, BmFormat):
            words.append(fmt.layout)
        if fmt.boundary != "neuron":
            words.append(fmt.boundary)
        words += [f"{fmt.bits}bit", f"{fmt.inputs}in"]
        usual_code = fmt.bits, default_fraction(fmt.bits, fmt.bits)
        if isinstance(fmt, BmFormat) and (fmt.log_bits, fmt.log_fraction) != usual_code:
            words.append(f"log{fmt.log_bits}_{fmt.log_fraction}")
        words += _unusual(fmt)
        if self.form != "parallel":
            words.append(self.form)
        words += [place.replace(".", "") for place in self.registers or ()]
        return joined(words)

    @property
    def architecture(self) -> dict[str, str]:
        """How it is built: the architectures that count for it, by parameter."""
        names = ("multiplier", "adder") if self.neuron == "mac" else ("maximum", "adder", "end")
        if self.element:
            names = ("multiplier", "adder", "selection") if self.neuron == "mac" else ("adder", "selection")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain values, for JSON and for cache keys."""
        return {
            "neuron": self.neuron,
            **dataclasses.asdict(self.format),
            "form": self.form,
            **self.architecture,
            **({"registers": list(self.registers)} if self.registers is not None else {}),
        }


def _makers(design: Design) -> dict[str, Callable[[], Block]]:
    """Name of a part -> what makes it, in the order of the data."""
    fmt, adder = design.format, design.adder
    if design.element:
        return element_parts.makers(fmt, design.multiplier, adder, design.selection, registered=bool(design.registers))

    def inside(part: str) -> dict[str, Any]:
        levels = design.levels_with_registers(part)
        return {"registers": levels} if levels else {}

    if isinstance(fmt, MacFormat):
        multiplier = design.multiplier
        makers: dict[str, Callable[[], Block]] = {
            "products": lambda: mac_parts.Products(format=fmt, multiplier=multiplier),
            "compression": lambda: mac_parts.Compression(
                format=fmt, multiplier=multiplier, inputs=fmt.inputs, **inside("compression"),
                addends=tuple((name, code.bits) for name, (code, _) in fmt.inputs_of.items() if name in ("bias", "r"))),
            "final_adder": lambda: mac_parts.FinalAdder(width=fmt.y.bits, adder=adder),
        }
        if fmt.result == "code":
            makers["requantize"] = lambda: mac_parts.Requantize(format=fmt, multiplier=multiplier, adder=adder)
        return makers
    makers = {}
    if fmt.boundary == "neuron":
        makers["log2"] = lambda: bm_parts.LogarithmPart(format=fmt, inputs=fmt.inputs)
    makers["sums"] = lambda: bm_parts.SumsPart(format=fmt, inputs=fmt.inputs, adder=adder)
    makers["maxima"] = lambda: bm_parts.MaximaPart(format=fmt, maximum=design.maximum, **inside("maxima"))
    if fmt.combine == "logarithmic":
        makers["log_subtract"] = lambda: LOG_ENDS[design.end](format=fmt, adder=adder)
        return makers
    return makers | LINEAR_ENDS[design.end].makers(fmt, design.maximum, adder)


def joined(words: Iterable[str]) -> str:
    """The words as one name of at most :data:`LONGEST_NAME` characters; the end of a longer one is a digest of it."""
    name = "_".join(words)
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[:LONGEST_NAME - len(digest) - 1].rstrip('_')}_{digest}"


def _unusual(fmt: MacFormat | BmFormat) -> list[str]:
    """A word for each value that the format's other values don't imply."""
    fields = {field.name: field.default for field in dataclasses.fields(fmt) if field.name not in _NAMED_FIRST}
    order = [*(name for name in _WORDS if name in fields), *(name for name in fields if name not in _WORDS)]
    return [_WORDS.get(name, f"{name}{{}}").format(getattr(fmt, name)).replace("-", "minus")
            for name in order if getattr(fmt, name) != _usual(fmt, name, fields[name])]


def _usual(fmt: MacFormat | BmFormat, name: str, default: Any) -> Any:
    """The value that a field has unless it is given; None where the others need it to be given."""
    if default is not None:
        return default
    try:
        return getattr(dataclasses.replace(fmt, **{name: None}), name)
    except ValueError:
        return None
