# SPDX-License-Identifier: Apache-2.0
"""The text of the files that an export writes."""

import importlib.metadata
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from bmhw import __version__
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import converter, to_verilog
from bmhw.sim.ports import input_order, ports_of
from bmhw.sim.verilog_bench import verilog_bench

from .fusesoc import core_targets

__all__ = ["export_files"]

# What marks a file as this command's own.
_MARK = "bmhw.export"

def export_files(
    design: Design,
    name: str,
    inputs: Mapping[str, ArrayLike],
    expected: ArrayLike,
    *,
    command: str,
    source: str,
    slots: Sequence[int] | None = None,
) -> dict[str, str]:
    """The files by name: Verilog, description, FuseSoC core, bench.

    ``inputs`` and ``expected`` are the bench's vectors as for :func:`bmhw.sim.verify`; ``command`` is written
    into the files, ``source`` says where the vectors come from, ``slots`` which input of a trained layer (input
    channel, kernel row, kernel column in C order) each element of the ports is. The same arguments give the same text.
    """
    latency = create_neuron(design).latency
    description = describe(design, name, latency) | {"command": command, "bench_vectors": source}
    if slots is not None:
        description["layer_inputs"] = list(slots)
    return {
        f"{name}.v": _header(description) + "\n" + to_verilog(design, name),
        f"{name}.json": json.dumps(description, indent=2) + "\n",
        f"{name}.core": _core(design, name, command),
        f"{name}_tb.v": verilog_bench(
            design,
            name,
            inputs,
            expected,
            latency=latency,
            comment=(
                f"SPDX-License-Identifier: Apache-2.0\nSelf-checking bench of {name}, written by: {command}\n"
                f"{source[0].upper()}{source[1:]}.\nRun: iverilog -g2005 {name}.v {name}_tb.v && ./a.out"
            ),
        ),
    }


def describe(design: Design, name: str, latency: int) -> dict[str, Any]:
    """The module as plain values: ports, formats, latency, versions."""
    return {
        "generator": _MARK,
        "name": name,
        "design": design.to_dict(),
        "latency_cycles": latency,
        "reset_cycles_before_use": int(design.form == "serial"),
        "throughput_cycles_per_output": design.format.inputs if design.form == "serial" else 1,
        "ports": [port.to_dict() for port in ports_of(design)],
        "formats": _formats(design.format),
        "versions": {
            "bmhw": __version__,
            "amaranth": importlib.metadata.version("amaranth"),
            "yosys": ".".join(map(str, converter().version())),
        },
    }


def _formats(number_format: MacFormat | BmFormat) -> dict[str, Any]:
    """The number codes inside the neuron, which no port shows."""
    residual = {"residual": {"bits": number_format.residual_bits}} if number_format.residual_bits else {}
    if isinstance(number_format, MacFormat):
        return residual
    fraction = {"fraction_bits": number_format.log_fraction}
    formats = {
        "activation_log_code": {"bits": number_format.log_bits, **fraction, "log2": number_format.log2},
        "weight_log_code": {"bits": number_format.weight_bits, **fraction},
        "sum": {
            "kind": number_format.sums,
            "bits": number_format.sum_bits,
            **fraction,
            "full_scale": number_format.full_scale,
            "bits_in_maximum": number_format.maximum_bits,
        },
        "groups": {
            "number": number_format.groups,
            "inputs_each": number_format.group_inputs,
            "order": input_order(number_format),
        },
        "zero": number_format.zero,
    }
    if number_format.combine == "linear":
        formats["exponential"] = {"fraction_bits": number_format.out_fraction, "exp2": number_format.exp2}
    if residual:
        formats["residual"] = {**residual["residual"], "fraction_bits": number_format.out_fraction}
    return formats


def _header(description: dict[str, Any]) -> str:
    design = description["design"]
    lines = [
        "SPDX-License-Identifier: Apache-2.0",
        f"{description['name']}: {_title(design)}.",
        "",
        f"Written by: {description['command']}",
        "Versions:   " + ", ".join(f"{name} {version}" for name, version in description["versions"].items()),
        *_wrapped("Parameters: ", ", ".join(f"{name} {_plain(value)}" for name, value in design.items())),
        f"Latency:    {_latency(description)}",
        *([f"Reset:      {_RESET}"] if description["reset_cycles_before_use"] else []),
        *(_wrapped("Groups:     ", f"{description['formats']['groups']['order']}; the results of all groups are added")
          if design.get("groups", 1) > 1 else []),
        "",
        "Ports (element 0 in the lowest bits):",
    ]
    ports = description["ports"]
    width = max(len(port["name"]) for port in ports)
    for port in ports:
        count = "" if port["elements"] == 1 else f"{port['elements']} x "
        kind = "bit" if port["element_bits"] == 1 else "bits" + (", signed" if port["signed"] else "")
        value = f"; value {port['value']}" if "value" in port else ""
        lines.append(
            f"  {port['name']:{width}}  {port['direction']:6}  {count}{port['element_bits']} {kind}: "
            f"{port['meaning']}{value}"
        )
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(head + text, width=107, subsequent_indent=" " * len(head))


# Registers have no value of their own at power-up; those of data get theirs with the first element.
_RESET = "rst must be pulsed (1 at a rising edge of clk) before the first element; outputs are unknown until then"


def _title(design: dict[str, Any]) -> str:
    neuron = "bipolar morphological" if design["neuron"] == "bm" else "multiply-accumulate"
    return f"{neuron} neuron, {design['inputs']} inputs of {design['bits']} bits, {design['form']}"


def _plain(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _latency(description: dict[str, Any]) -> str:
    cycles = description["latency_cycles"]
    return {
        "parallel": "none, combinational",
        "pipelined": f"{cycles} cycles; new inputs every cycle",
        "serial": f"{cycles} cycles from the last accepted element to out_valid; one element a cycle",
    }[description["design"]["form"]]


def _core(design: Design, name: str, command: str) -> str:
    """FuseSoC's description (CAPI2); the simulation target runs the bench in Icarus."""
    return f"""\
CAPI=2:
# SPDX-License-Identifier: Apache-2.0
# Written by: {command}
name: bmhw:neurons:{name}:{__version__}
description: {_title(design.to_dict())}

filesets:
  rtl:
    files: [{name}.v]
    file_type: verilogSource-2005
  bench:
    files: [{name}_tb.v]
    file_type: verilogSource-2005

{core_targets(name)}"""
