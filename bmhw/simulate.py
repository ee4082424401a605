# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.sim``: a trained neuron's Verilog on real activations, against the integer model."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmhw.flow.engine import TIME_LIMIT
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.scripts import OBJECTIVES
from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.checks import check_range
from bmhw.hdl.neurons.design import FORMS, Design
from bmhw.hdl.neurons.log_ends import LOG_ENDS
from bmhw.measure.selection import AUTO
from bmhw.show.progress import activity
from bmhw.sim.simulation import WAVEFORM_SUFFIXES, Report, verify
from bmhw.sim.simulators import SIMULATORS, find_simulator
from bmhw.sim.trained import MOST_VECTORS, TrainedNeuron, load_neuron

from .command_line import Parser, run
from .errors import RunError, UsageError
from .options import number, time_limit_from

__all__ = ["main"]

_DESCRIPTION = """\
Simulate one neuron of a trained network: its weights, the real activations of held-out images, the generated
Verilog in a cocotb bench. Every bit of every output must equal the integer model; the error against the same
neuron in floating point is printed beside it. Exit status 0 only if all outputs are equal."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    _check(args)
    time_limit = time_limit_from(args.time_limit)
    simulator = find_simulator(args.simulator)
    started = time.perf_counter()
    neuron = load_neuron(args.model, args.layer, args.channel, args.count, args.seed)
    options = ("form", "objective", "adder", "maximum", "end", "multiplier")
    design = neuron.design(**{option: getattr(args, option) for option in options})
    waveform = _waveform(args.waves, args.build_dir, design, simulator.name)
    with activity() as progress:
        report = verify(
            design,
            neuron.inputs,
            neuron.expected,
            simulator=args.simulator if waveform is None else simulator.name,
            waveform=waveform,
            build_dir=args.build_dir,
            cache=not args.no_cache,
            seed=args.seed,
            time_limit=time_limit,
            progress=progress,
        )
    result = _result(args, neuron, design, report, time.perf_counter() - started)
    if not deliver_json(result, args.json):
        _print(neuron, design, report, result)
    if not report.passed:
        raise RunError(str(report.first_mismatch or report.error))
    return 0


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    trained = result.add_argument_group("neuron")
    trained.add_argument("--model", required=True, metavar="NAME", help="a trained network, such as digits")
    trained.add_argument("--layer", required=True, metavar="NAME", help="a layer with neurons")
    trained.add_argument("--channel", type=number, required=True, metavar="K", help="output channel, from 0")
    trained.add_argument(
        "--count",
        type=number,
        default=1000,
        metavar="N",
        help="activations of held-out images to try (default: 1000)",
    )
    trained.add_argument(
        "--seed",
        type=number,
        default=0,
        metavar="S",
        help="which activations, and the stalls of a serial neuron (default: 0)",
    )
    trained.add_argument("--form", choices=FORMS, default="parallel", help="(default: parallel)")
    trained.add_argument(
        "--objective",
        choices=OBJECTIVES,
        default="area",
        help="what chooses the architecture (default: area)",
    )
    trained.add_argument("--adder", choices=(AUTO, *ADDERS), help="architecture of the adders")
    trained.add_argument("--maximum", choices=(AUTO, *MAXIMA), help="architecture of a BM layer's maxima")
    trained.add_argument("--end", choices=(AUTO, *LOG_ENDS), help="architecture of a BM layer's end")
    trained.add_argument(
        "--multiplier", choices=(AUTO, *MULTIPLIERS), help="architecture of a MAC layer's multiplier"
    )
    bench = result.add_argument_group("bench")
    bench.add_argument(
        "--simulator",
        choices=("auto", *SIMULATORS),
        help="(default: the variable SIM, else auto: Verilator if it is usable, else Icarus)",
    )
    bench.add_argument(
        "--waves",
        nargs="?",
        const="",
        metavar="FILE",
        help="write a waveform (default name: the module's, in --build-dir or here): VCD with "
        "Verilator, FST with Icarus",
    )
    bench.add_argument(
        "--build-dir",
        metavar="DIR",
        help="build here and keep it: a new or empty folder, or that of an earlier build (default: a temporary one)",
    )
    bench.add_argument(
        "--no-cache",
        action="store_true",
        help="build anew (built simulations are kept in the user's cache folder, or under BMHW_CACHE_DIR)",
    )
    bench.add_argument(
        "--time-limit",
        metavar="SECONDS",
        default=TIME_LIMIT,
        help=f"for building and simulating (default: {TIME_LIMIT:g})",
    )
    bench.add_argument("--json", metavar="FILE", help="write the result as JSON; - is stdout")
    return result


def _check(args) -> None:
    try:
        check_range("Channel", args.channel, 0)
        check_range("Count", args.count, 1, MOST_VECTORS)
        check_range("Seed", args.seed, 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for path in (args.json, args.waves):
        if path:
            check_writable(path)


def _waveform(waves: str | None, build_dir: str | None, design: Design, simulator: str) -> Path | None:
    if waves is None:
        return None
    return Path(waves or Path(build_dir or ".") / f"{design.name}{WAVEFORM_SUFFIXES[simulator]}")


def _result(args, neuron: TrainedNeuron, design: Design, report: Report, seconds: float) -> dict[str, Any]:
    """Everything as plain values; the error is that of the integer model against the floating-point layer."""
    error = np.abs(neuron.expected - neuron.real)
    mean_real, first = float(np.abs(neuron.real).mean()), report.first_mismatch
    return {
        "passed": report.passed,
        "model": neuron.model,
        "layer": neuron.layer,
        "channel": neuron.channel,
        "seed": args.seed,
        "design": design.to_dict(),
        "module": design.name,
        "latency_cycles": report.latency,
        "vectors": neuron.expected.size,
        "mismatches": report.mismatches,
        "error": report.error,
        "first_mismatch": None if first is None else vars(first),
        "float_error_mean_abs_steps": float(error.mean()),
        "float_error_max_abs_steps": float(error.max()),
        "float_error_mean_relative": float(error.mean()) / mean_real if mean_real else None,
        "float_error_max_relative": float(error.max()) / mean_real if mean_real else None,
        "float_output_mean_abs_steps": mean_real,
        "clock_cycles": report.cycles,
        "simulator": report.simulator.name,
        "simulator_version": report.simulator.version,
        "build_seconds": report.build_seconds,
        "run_seconds": report.run_seconds,
        "total_seconds": seconds,
        "waveform": None if report.waveform is None else str(report.waveform),
    }


def _print(neuron: TrainedNeuron, design: Design, report: Report, result: dict[str, Any]) -> None:
    parameters = design.to_dict()
    architecture = ", ".join(
        f"{name} {parameters[name]}"
        for name in ("form", "maximum", "end", "multiplier", "adder")
        if name in parameters
    )
    vectors = result["vectors"]
    right = report.outputs.size - report.mismatches
    print(f"neuron      {neuron}: {design.name} ({architecture})")
    print(
        f"simulation  {report.simulator}; built in {report.build_seconds:.1f} s, "
        f"{vectors} vectors in {report.run_seconds:.1f} s"
    )
    verdict = "PASS" if report.passed else "FAIL"
    print(f"outputs     {right} of {vectors} equal the integer model in every bit: {verdict}")
    if report.cycles:
        per_vector = report.cycles / (report.full_rate_vectors if design.form == "serial" else vectors)
        print(f"clock       latency {report.latency} cycles, {per_vector:.1f} cycles a vector at full rate")
    mean, largest = result["float_error_mean_abs_steps"], result["float_error_max_abs_steps"]
    print(
        f"error       of the integers against the floating-point layer, in steps of "
        f"{design.format.output[0]}: mean {mean:.2f}, largest {largest:.2f}"
    )
    if result["float_error_mean_relative"] is not None:
        print(
            f"            mean {result['float_error_mean_relative']:.2%}, largest "
            f"{result['float_error_max_relative']:.2%} of the mean magnitude, "
            f"{result['float_output_mean_abs_steps']:.1f} steps"
        )
    if report.waveform is not None:
        print(f"waveform    {report.waveform}")


if __name__ == "__main__":
    run(main)
