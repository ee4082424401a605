# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.export``: a neuron's Verilog, its description, a FuseSoC core and a self-checking bench."""

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth._toolchain.yosys import find_yosys
from numpy.typing import ArrayLike

from . import __version__
from .command_line import Parser, RunError, UsageError, design_from, design_options, number, run, write_atomically
from .hdl.checks import check_range
from .hdl.design import Design
from .hdl.neuron_formats import BmFormat, MacFormat
from .hdl.verilog import to_verilog
from .sim.ports import ports_of
from .sim.stimulus import vectors
from .sim.trained import MOST_VECTORS, TrainedNeuron, load_neuron
from .sim.verilog_bench import verilog_bench

__all__ = ["export", "main"]

_DESCRIPTION = """\
Write a neuron for an FPGA or ASIC flow: NAME.v (the Verilog), NAME.json (ports, formats, latency), NAME.core
(FuseSoC) and NAME_tb.v (a bench with vectors; iverilog -g2005 NAME.v NAME_tb.v && ./a.out prints PASS).
The same parameters give the same bytes."""

# Options that describe the number format: a trained network brings its own.
_FORMAT_OPTIONS = ("neuron", "bits", "inputs", "signed_inputs", "weight_bits", "branches", "log_bits",
                   "log_fraction", "log", "exp", "maximum_bits", "combine")
# Options that don't change what is in the files.
_PLACE_OPTIONS = ("out",)

_MARK = "bmhw.export"

# IEEE 1364-2005, annex B
_KEYWORDS = frozenset("""
    always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default defparam
    design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive endspecify endtable
    endtask event for force forever fork function generate genvar highz0 highz1 if ifnone incdir include initial inout
    input instance integer join large liblist library localparam macromodule medium module nand negedge nmos nor
    noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1 pulldown pullup
    pulsestyle_ondetect pulsestyle_onevent rcmos real realtime reg release repeat rnmos rpmos rtran rtranif0 rtranif1
    scalared showcancelled signed small specify specparam strong0 strong1 supply0 supply1 table task time tran tranif0
    tranif1 tri tri0 tri1 triand trior trireg unsigned use uwire vectored wait wand weak0 weak1 while wire wor xnor xor
    """.split())


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    # without defaults, to tell whether an option was given that a trained network contradicts
    format_defaults = {option: parser.get_default(option) for option in _FORMAT_OPTIONS}
    parser.set_defaults(**dict.fromkeys(_FORMAT_OPTIONS))
    args = parser.parse_args(argv)
    trained = _trained(args)
    defaults = {option: parser.get_default(option) for option in vars(args)} | format_defaults
    for option, value in format_defaults.items():
        if getattr(args, option) is None:
            setattr(args, option, value)
    if trained is not None:
        design = trained.design(form=args.form, maximum=args.maximum, adder=args.adder, multiplier=args.multiplier)
    else:
        design = design_from(args)
    name = args.name or design.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _KEYWORDS:
        raise UsageError("--name must be letters, digits and underscores, a letter first and no word of Verilog, "
                         f"not {name!r}")
    command = _command(args, defaults)
    if trained is not None:
        inputs, expected = trained.inputs, trained.expected
        source = f"{len(expected)} activations of {trained.model}, layer {trained.layer}, channel {trained.channel}"
    else:
        inputs = vectors(design.format, args.vectors, args.seed)
        expected = design.format.compute(**inputs)
        source = f"{len(expected)} vectors: corners, then random ones (seed {args.seed})"
    files = export(design, name, inputs, expected, command=command, source=source)
    for path in write_together(Path(args.out), files):
        print(path)
    return 0


def _parser() -> Parser:
    parser = Parser(description=_DESCRIPTION)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the files; made if missing")
    parser.add_argument("--name", metavar="NAME", help="name of the module and the files (default: from the design)")
    design_options(parser)
    bench = parser.add_argument_group("vectors of the bench")
    bench.add_argument("--vectors", type=number, default=200, metavar="N", help="how many (default: 200)")
    bench.add_argument("--seed", type=number, default=0, metavar="S", help="of the random ones (default: 0)")
    bench.add_argument("--model", metavar="NAME", help="take format and vectors from a trained network")
    bench.add_argument("--layer", metavar="NAME", help="its layer")
    bench.add_argument("--channel", type=number, metavar="K", help="output channel of the layer, from 0")
    return parser


def _trained(args: argparse.Namespace) -> TrainedNeuron | None:
    try:
        check_range("Number of vectors", args.vectors, 1, MOST_VECTORS)
        check_range("Seed", args.seed, 0)
        if args.channel is not None:
            check_range("Channel", args.channel, 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    given = [option for option in ("model", "layer", "channel") if getattr(args, option) is not None]
    if not given:
        return None
    if len(given) < 3:
        missing = next(option for option in ("model", "layer", "channel") if option not in given)
        raise UsageError(f"--{given[0]} needs --{missing} as well")
    for option in _FORMAT_OPTIONS:
        if getattr(args, option):
            raise UsageError(f"{_flag(option)} contradicts --model {args.model}, which brings its own format")
    return load_neuron(args.model, args.layer, args.channel, args.vectors, args.seed)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _command(args: argparse.Namespace, defaults: dict[str, Any]) -> str:
    """The command line without what doesn't change the files, in one order, defaults left out."""
    words = ["python", "-m", "bmhw.export"]
    for option, value in vars(args).items():
        if option in _PLACE_OPTIONS or value == defaults.get(option):
            continue
        words += [_flag(option)] if value is True else [_flag(option), str(value)]
    return shlex.join(words)


# -- files


def export(design: Design, name: str, inputs: dict[str, ArrayLike], expected: ArrayLike, *, command: str,
           source: str) -> dict[str, str]:
    """The files by name: Verilog, description, FuseSoC core, bench.

    ``inputs`` and ``expected`` are the bench's vectors as for :func:`bmhw.sim.verify`; ``command`` is written
    into the files, ``source`` says where the vectors come from. The same arguments give the same text.
    """
    latency = design.create().latency
    description = describe(design, name, latency) | {"command": command, "bench_vectors": source}
    return {
        f"{name}.v": _header(description) + "\n" + to_verilog(design, name),
        f"{name}.json": json.dumps(description, indent=2) + "\n",
        f"{name}.core": _core(design, name, command),
        f"{name}_tb.v": verilog_bench(design, name, inputs, expected, latency=latency, comment=(
            f"SPDX-License-Identifier: Apache-2.0\nSelf-checking bench of {name}, written by: {command}\n"
            f"{source[0].upper()}{source[1:]}.\nRun: iverilog -g2005 {name}.v {name}_tb.v && ./a.out")),
    }


def describe(design: Design, name: str, latency: int) -> dict[str, Any]:
    """The module as plain values: ports, formats, latency, versions."""
    return {
        "generator": _MARK,
        "name": name,
        "design": design.to_dict(),
        "latency_cycles": latency,
        "throughput_cycles_per_output": design.format.inputs if design.form == "serial" else 1,
        "ports": [port.to_dict() for port in ports_of(design)],
        "formats": _formats(design.format),
        "versions": {"bmhw": __version__, "amaranth": importlib.metadata.version("amaranth"),
                     "yosys": ".".join(map(str, find_yosys(lambda version: version >= (0, 40)).version()))},
    }


def _formats(number_format: MacFormat | BmFormat) -> dict[str, Any]:
    """The number codes inside the neuron, which no port shows."""
    if isinstance(number_format, MacFormat):
        return {}
    fraction = {"fraction_bits": number_format.log_fraction}
    formats = {
        "activation_log_code": {"bits": number_format.log_bits, **fraction, "log2": number_format.log2},
        "weight_log_code": {"bits": number_format.weight_bits, **fraction},
        "sum": {"bits": number_format.sum_bits, **fraction, "full_scale": number_format.full_scale,
                "bits_in_maximum": number_format.maximum_bits},
    }
    if number_format.combine == "linear":
        formats["exponential"] = {"fraction_bits": number_format.out_fraction, "exp2": number_format.exp2}
    return formats


def _header(description: dict[str, Any]) -> str:
    design = description["design"]
    neuron = "Bipolar morphological" if design["neuron"] == "bm" else "Multiply-accumulate"
    lines = [
        "SPDX-License-Identifier: Apache-2.0",
        f"{description['name']}: {neuron} neuron, {design['inputs']} inputs of {design['bits']} bits, {design['form']}.",
        "",
        f"Written by: {description['command']}",
        "Versions:   " + ", ".join(f"{name} {version}" for name, version in description["versions"].items()),
        "Parameters: " + ", ".join(f"{name} {_plain(value)}" for name, value in design.items()),
        f"Latency:    {_latency(description)}",
        "",
        "Ports (element 0 in the lowest bits):",
    ]
    ports = description["ports"]
    width = max(len(port["name"]) for port in ports)
    for port in ports:
        count = "" if port["elements"] == 1 else f"{port['elements']} x "
        kind = "bit" if port["element_bits"] == 1 else "bits" + (", signed" if port["signed"] else "")
        value = f"; value {port['value']}" if "value" in port else ""
        lines.append(f"  {port['name']:{width}}  {port['direction']:6}  {count}{port['element_bits']} {kind}: "
                     f"{port['meaning']}{value}")
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


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
description: {design.neuron.upper()} neuron, {design.format.inputs} inputs of {design.format.bits} bits, {design.form}

filesets:
  rtl:
    files: [{name}.v]
    file_type: verilogSource-2005
  bench:
    files: [{name}_tb.v]
    file_type: verilogSource-2005

targets:
  default: &default
    filesets: [rtl]
    toplevel: {name}
  sim:
    <<: *default
    description: the self-checking bench
    default_tool: icarus
    filesets: [rtl, bench]
    toplevel: {name}_tb
    tools:
      icarus:
        iverilog_options: [-g2005]
  lint:
    <<: *default
    default_tool: verilator
    tools:
      verilator:
        mode: lint-only
        verilator_options: [-Wno-fatal]
"""


def write_together(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write all files into ``folder`` or none of them: first under temporary names, then renamed.

    A file of the same name that this command did not write is left alone. :class:`RunError` names what is wrong.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in files):
            if path.exists() and not (path.is_file() and _MARK in path.read_text(errors="replace")):
                raise RunError(f"cannot write {path}: it exists and is not a file of bmhw.export; "
                               "move it away, or choose another --out or --name")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".bmhw-export-") as temporary:
            for name, text in files.items():
                write_atomically(Path(temporary) / name, text)
            _move_together(Path(temporary), folder, list(files))
    except (OSError, RunError) as error:
        if made:
            _remove_empty(folder)
        if isinstance(error, RunError):
            raise
        raise RunError(f"cannot write into {folder}: {error.strerror or error}") from None
    return [folder / name for name in files]


def _move_together(source: Path, target: Path, names: list[str]) -> None:
    """Move the files; if one can't be moved, put things back as they were."""
    moved: list[str] = []
    try:
        for name in names:
            if (target / name).exists():
                os.replace(target / name, source / f"{name}.before")
            moved.append(name)
            os.replace(source / name, target / name)
    except OSError:
        for name in moved:
            if (source / f"{name}.before").exists():
                os.replace(source / f"{name}.before", target / name)
            else:
                (target / name).unlink(missing_ok=True)
        raise


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # it holds something, or was never made


if __name__ == "__main__":
    run(main)
