# SPDX-License-Identifier: Apache-2.0
"""What a chip's user has to know, on a page."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bmhw.chip.assembly import Assembly
from bmhw.chip.plan import Memory, Plan
from bmhw.chip.schedule import latency
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.network.edge import Chip
from bmhw.hdl.network.loading import LoadLayout
from bmhw.models.integer.layer import IntegerLayer
from bmhw.models.integer.network import IntegerNetwork

__all__ = ["PortLine", "datasheet", "ports_of"]


@dataclass(frozen=True)
class PortLine:
    name: str
    direction: str
    bits: int
    meaning: str


def ports_of(chip: Chip, network: IntegerNetwork) -> list[PortLine]:
    """The ports of a chip, in their order, with what each one is."""
    channels, height, width = network.architecture.image.shape
    result = (f"one of {network.architecture.classes} classes, from 0" if chip.beats == 1 else
              f"{chip.beats - 1} logits, signed, then the class, from 0")
    meanings = {
        "clk": "rising edge",
        "rst": "synchronous, active high: 1 for a cycle or more before the first image, and at any time",
        "s_axis_tdata": "a pixel" + f", {channels} channels of 8 bits, the first one lowest" * (channels > 1)
                        + f"; {width} x {height}, row by row",
        "s_axis_tvalid": "a pixel is there",
        "s_axis_tready": "it is taken at this edge",
        "s_axis_tlast": "the last pixel of an image",
        "m_axis_tdata": result,
        "m_axis_tvalid": "a beat of a result is there",
        "m_axis_tready": "it is taken at this edge",
        "m_axis_tlast": "the last beat of a result",
        "m_axis_tuser": "with tlast: the image was too short or too long",
        "frames": "results that have left since the reset",
        "input_stalls": "cycles in which a pixel waited, since the reset",
        "output_stalls": "cycles in which a result waited, since the reset",
        "s_load_tdata": "a word of an image of weights",
        "s_load_tvalid": "a word is there",
        "s_load_tready": "it is taken at this edge",
        "s_load_tlast": "the last word of an image of weights",
        "load_done": "the last image of weights was a good one, and is there whole",
        "load_error": "the last image of weights that ended was none for this chip, or broken",
    }
    lines = [PortLine(name, "input", 1, meanings[name]) for name in ("clk", "rst")]
    for name, (flow, signal) in chip.ports.items():
        lines.append(PortLine(name, "input" if flow.name == "In" else "output", len(signal), meanings[name]))
    return lines


def datasheet(assembly: Assembly, chip: Chip, name: str, plan: Plan, *, command: str, versions: str, run: str,
              logits: bool) -> str:
    """The text of ``DATASHEET.md``; ``run``: what runs the bench."""
    network = assembly.network
    architecture = network.architecture
    channels, height, width = architecture.image.shape
    sections = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
        f"<!-- Written by: {command} -->\n"
        f"# {name}",
        f"The network `{network.name}` with its weights: an image of {width} x {height} pixels"
        f"{f' and {channels} channels' if channels > 1 else ''} in, one of {architecture.classes} classes out. "
        "Verilog-2005, one clock, nothing of a vendor's.",
        f"    {command}\n\n{versions}",
        "## Interface", _table(("port", "", "bits", "meaning"), (
            (f"`{port.name}`", port.direction, port.bits, port.meaning) for port in ports_of(chip, network))),
        _behaviour(logits, writable=chip.layout is not None),
        *(["## Loading weights", _loading(assembly, chip.layout, name)] if chip.layout is not None else []),
        "## Numbers", _numbers(network, logits),
        "## Accuracy", _accuracy(network),
        "## Speed", _speed(assembly, plan, run),
        "## Memories and elements", _memories(plan),
    ]
    return "\n\n".join(sections) + "\n"


def _behaviour(logits: bool, *, writable: bool) -> str:
    outputs = "Every output comes from registers" if writable else "Every output is a register"
    results = ("The result of an image is a beat for each class and one for the class itself" if logits else
               "The result of an image is one beat")
    return f"""\
- AXI4-Stream: a beat moves at a rising edge at which `tvalid` and `tready` are 1; until then `tvalid` and the data
  stay. There is no `tkeep` and no `tstrb`: every byte counts.
- {results}. Results come in the order of the images. Images may follow one
  another without a gap.
- An image that ends early (`tlast`) is filled with pixels of 0; of one that ends late, what lies behind its last pixel
  is dropped, up to `tlast`. Its result has `m_axis_tuser`, and the next image is whole again.
- `rst` forgets what is under way, in any cycle; memories aren't cleared, and nothing of what they held comes out. A
  beat that moves while `rst` is 1 is lost. From an AXI reset: `.rst(!aresetn)`.
- {outputs}, every input goes into one: no path leads through."""


def _loading(assembly: Assembly, layout: LoadLayout, name: str) -> str:
    rows = ((f"`{section.name}`", f"{section.first:,}", f"{section.memory.words:,} x {section.memory.bits}",
             section.parts) for section in layout.sections)
    return f"""\
The chip begins with the network's own weights. Their image is the first half of `{name}_weights.hex`, a word a line
(the other one is for the bench), and what `--weights-image FILE` writes as bytes, each word's lowest one first.

- An image is {layout.length:,} words of 32 bits: the header `{layout.chip:08x}`, which no other chip has, the words
  of each memory, and a checksum. A memory's word of more than 32 bits takes several, the lowest bits first; unused bits
  are 0. The checksum is CRC-32 (`CRC-32/ISO-HDLC`, that of zlib and Ethernet) of the bytes of all words before it, the
  lowest byte of each word first.
- Words are taken every second cycle, {2 * layout.length:,} cycles in all, and are written as they come. The first one
  is taken when no image of pixels is in the chip; from when it is offered between two of them until the last one is
  taken, no pixel is (`s_axis_tready`). An image of pixels that has begun must be sent to its `tlast` first.
- `load_done` is 1 from three cycles behind a good image to the first word of the next one. `load_error` is 1 from three
  cycles behind one with another header, another length or a wrong checksum, until a good one or a reset.
- With another header nothing is written, and the weights stay what they were. With another length or a wrong checksum
  they are undefined until a good image is loaded; so they are behind a reset in the middle of one. `rst` brings back
  nothing of what was overwritten.
- For another network of this architecture and these formats, an image is written by this sheet's command with `--chip`
  in the place of `--model`, and `--model OTHER --weights-image FILE`. `{name}_weights.json` has the table below for
  programs.

""" + _table(("memory", "first word", "words x bits", "words of the image for each"), rows)


def _numbers(network: IntegerNetwork, logits: bool) -> str:
    lines = ["Pixels are unsigned, 8 bits a channel, as the images of the data set have them."]
    if logits:
        exponent = int(network.exponents[network.architecture.nodes[-1].name].min())
        lines.append(f"Logits are signed integers of 32 bits in one scale; one step is 2^{exponent}, up to a "
                     "scale that all of them share.")
    rows = ((name, *_format(layer)) for name, layer in network.layers.items())
    return "\n".join(lines) + "\n\n" + _table(("layer", "computes", "inputs", "weights"), rows)


def _format(layer: IntegerLayer) -> tuple[str, str, str]:
    """What a layer computes, its input codes, its weights."""
    fmt = layer.format
    if isinstance(fmt, BmFormat):
        log = fmt.activation
        groups = f", {fmt.groups} groups" if fmt.groups > 1 else ""
        sign = ", and a sign"
        return (f"bipolar morphological, {fmt.layout}{groups}",
                f"log codes, {log.bits} bits, {log.fraction} behind the point{sign * bool(fmt.signed_inputs)}",
                f"log codes, {fmt.weight_bits} bits{sign * (fmt.layout == 'signed')}")
    return "multiply-accumulate", f"{fmt.bits} bits", f"{fmt.weight_bits or fmt.bits} bits"


def _accuracy(network: IntegerNetwork) -> str:
    """From the card, with what measures it again."""
    figure = network.card.get("accuracy", {}).get("bm_integer_accuracy")
    data = network.card.get("data", {})
    if figure is None:
        return "The network's card says nothing of it."
    images = f"the {data['test_images']:,} test images" if "test_images" in data else "the test images"
    return (f"{figure:.2f} % of {images} of {data['name']}, in the integers that the chip computes, bit for bit. "
            f"Measured by `python -m bmhw.evaluate --model {network.name}`.")


def _speed(assembly: Assembly, plan: Plan, run: str) -> str:
    slowest = max(plan.layers, key=lambda layer: layer.shape.cycles)
    rows = (("an image, images overlapping", f"{plan.cycles:,}",
             f"those of `{slowest.name}`, the slowest layer; at most two more for each row of its map"),
            ("latency, from an image's first pixel to its class", f"{latency(assembly):,}",
             "of an empty chip; the registers of each part add some ten"))
    return (_table(("computed", "cycles", ""), rows) + f"\n\nMeasured: `{run}` prints both. (It sends images of all "
            "kinds of lengths, with pauses and resets, and compares each beat.)")


def _memories(plan: Plan) -> str:
    rows = [(f"`{layer.name}`", layer.shape.parallel, f"{layer.shape.cycles:,}", *map(
        _memory, (layer.weights, layer.window, layer.memories["results"])),
        *([f"{layer.cells:,}"] if plan.device else ())) for layer in plan.layers]
    rows += [(f"`{name}`", "", "", "", "", _memory(memory), *([""] if plan.device else ()))
             for name, memory in plan.fifos.items()]
    weights = "weights" if plan.tables else "weights (ROM)"
    head = ("layer", "elements", "cycles", weights, "window", "queue")
    device = f"\n\nOn an {plan.takes}: an estimate, before anything is placed." if plan.device else ""
    return (_table((*head, "logic cells") if plan.device else head, rows)
            + f"\n\nMemories are words x bits: {_kilobits(plan.weight_bits)} of weights and "
            f"{_kilobits(plan.number_bits)} of numbers in all; "
            + ("each one is a module of its own, with a port for reading and one for writing. " if plan.tables else
               "each one is a module of its own, with a port for reading and, but for weights, one for writing. ")
            + (f"Constants of each channel are {_kilobits(plan.table_bits)} in {len(plan.tables)} memories more. "
               if plan.tables else "") +
            f"{plan.elements} elements." + device)


def _memory(memory: Memory) -> str:
    return f"{memory.words:,} x {memory.bits}"


def _kilobits(bits: int) -> str:
    return f"{math.ceil(bits / 1000):,} kbit"


def _table(head: tuple[str, ...], rows: Iterable[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
