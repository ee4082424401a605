# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.sim``: a trained neuron's Verilog on real activations, against the integer model."""

import time
from collections.abc import Sequence
from pathlib import Path

from bmhw.deliver.export_names import default_name
from bmhw.flow.engine import TIME_LIMIT
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.scripts import OBJECTIVES
from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.checks import check_range
from bmhw.hdl.neurons.design import FORMS, Design
from bmhw.hdl.neurons.linear_ends import ENDS
from bmhw.measure.selection import AUTO
from bmhw.show.progress import activity
from bmhw.show.simulation import print_simulation, simulation_result
from bmhw.sim.simulation import WAVEFORM_SUFFIXES, verify
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
    neuron = load_neuron(args.model, args.layer, args.channel, args.count, args.seed, args.bits)
    options = ("form", "objective", "adder", "maximum", "end", "multiplier")
    design = neuron.design(**{option: getattr(args, option) for option in options})
    waveform = _waveform(args.waves, args.build_dir, design, neuron, simulator.name)
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
    result = simulation_result(neuron, design, report, args.seed, time.perf_counter() - started)
    if not deliver_json(result, args.json):
        print_simulation(neuron, design, report, result)
    if not report.passed:
        raise RunError(str(report.first_mismatch or report.error))
    return 0


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    trained = result.add_argument_group("neuron")
    trained.add_argument("--model", required=True, metavar="NAME", help="a trained network, such as digits")
    trained.add_argument("--bits", type=number, metavar="B",
                         help="width of the log codes: NAME or NAME-Bbit, whichever was trained in them")
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
    trained.add_argument("--end", choices=(AUTO, *ENDS), help="architecture of a BM layer's end")
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
        help="write a waveform (default name: network, layer and channel, in --build-dir or here): VCD with "
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


def _waveform(
    waves: str | None, build_dir: str | None, design: Design, neuron: TrainedNeuron, simulator: str
) -> Path | None:
    if waves is None:
        return None
    name = default_name(design, "area", neuron)
    return Path(waves or Path(build_dir or ".") / f"{name}{WAVEFORM_SUFFIXES[simulator]}")


if __name__ == "__main__":
    run(main)
