# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.layers``: a network's layers as MAC and as BM hardware, measured, with the ratios."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.files import check_writable, deliver_json
from bmhw.flow.liberty import load_library
from bmhw.flow.scripts import OBJECTIVES
from bmhw.hdl.checks import check_range, not_one_of
from bmhw.hdl.formats.choices import COMBINES, REQUANTIZATIONS, SUMS, ZEROS
from bmhw.measure.layer_formats import Neurons, TrainedNeurons
from bmhw.measure.layer_results import layers_result
from bmhw.measure.layers import LayerMeasurement
from bmhw.measure.networks import Layer, Network, network
from bmhw.measure.selection import AUTO
from bmhw.show.layer_tables import print_layers
from bmhw.show.progress import shares

from .command_line import Parser, UsageError, run
from .options import jobs_from, jobs_option, liberty_option, number, run_options, stated_command, time_limit_from

__all__ = ["main", "parser"]

_EXAMPLES = """
examples:
  python -m bmhw.layers --network resnet20v2 --objective balanced
      the 22 convolutions at 8 bits, gates x depth as small as possible
  python -m bmhw.layers --log-bits 5 --branches signed --liberty cells.lib.gz --json layers.json
      5-bit log codes against 8-bit multipliers, also in gate equivalents and ns
  python -m bmhw.layers --bits 4 --branches signed --groups 4 --objective balanced
      4-bit codes, the maxima in four groups of input channels
  python -m bmhw.layers --network mnist-lenet --mac-bits 4
      a trained network with its own neurons, convolutions and dense layers
"""

# Options that a trained network's card decides: attribute of the parsed arguments -> field of Neurons.
_CARDS = {name: name for name in ("bm_bits", "log_bits", "log_fraction", "branches", "sums", "maximum_bits",
                                  "linear_maximum_bits", "combine", "groups", "zero")} | {"bits": "bm_bits"}


def parser() -> Parser:
    result = Parser(description="A network's layers, as multiply-accumulate and as bipolar morphological hardware:\n"
                                "gates, depth and ratios, layer by layer.", epilog=_EXAMPLES)
    result.add_argument("--network", default="resnet20v2", metavar="NAME",
                        help="resnet20v2: its 22 convolutions, with the neurons that the options say; or a trained "
                             "network of `python -m bmhw.models list`, or the path of another one's card (.json): its "
                             "own BM neurons, dense layers too, beside the MAC neurons that the options say (default: "
                             "resnet20v2)")
    result.add_argument("--explore", action="store_true",
                        help="try every architecture in each layer: several times as long (default: those that the "
                             "shipped measurements choose)")
    result.add_argument("--bits", type=number, metavar="B",
                        help="width of both neurons, 2..16 (default: 8); with a trained network, of the MAC neurons "
                             "and of the log codes: NAME or NAME-Bbit, whichever was trained in them")
    for neuron in ("mac", "bm"):
        result.add_argument(f"--{neuron}-bits", type=number, metavar="B",
                            help=f"width of the {neuron.upper()} neurons (default: --bits)")
    result.add_argument("--mac-weight-bits", type=number, metavar="B",
                        help="width of the MAC neurons' weights (default: as their inputs)")
    result.add_argument("--log-bits", type=number, metavar="B",
                        help="BM layers: width of the log codes of activations and weights (default: --bm-bits, which "
                             "is half that of a linear result)")
    result.add_argument("--log-fraction", type=number, metavar="F",
                        help="BM layers: their bits behind the point (default: what spans the linear numbers)")
    result.add_argument("--branches", "--layout", choices=("relu", "signed", "wired"),
                        help="BM layout: relu where the inputs allow it, else bipolar; signed; or wired where the "
                             "inputs allow it, else signed (default: relu)")
    result.add_argument("--objective", choices=OBJECTIVES, default="area",
                        help="few gates, few gates x depth, or a short path (default: area)")
    result.add_argument("--requantize", choices=REQUANTIZATIONS, default="scale",
                        help="MAC layers: a multiplication by a scale, or a power of two (default: scale)")
    result.add_argument("--sums", choices=SUMS,
                        help="BM layers: sums of codes with one bit more, or log codes of the same width, 0 below the "
                             "smallest (default: full)")
    result.add_argument("--maximum-bits", type=number, metavar="B",
                        help="BM layers: high bits of each sum that the maxima see (default: all)")
    result.add_argument("--linear-maximum-bits", type=number, metavar="B",
                        help="the same of layers with a linear result (default: --maximum-bits)")
    result.add_argument("--combine", choices=(AUTO, *COMBINES),
                        help="BM layers before a code: linear end, logarithmic where it can be built, or the better "
                             "one for the objective, with --groups the linear one (default: auto)")
    result.add_argument("--groups", type=number, metavar="G",
                        help="BM layers: groups of input channels, each with its own maxima, whose exponentials are "
                             "added; where G doesn't divide a layer's channels, their largest divisor below it "
                             "(default: 1)")
    result.add_argument("--zero", choices=ZEROS,
                        help="BM layers: what code 0 stands for, the smallest step or 0 exactly (default: step, with "
                             "--groups exact)")
    result.add_argument("--layers", metavar="NAME,...", help="only these layers (default: all)")
    liberty_option(result)
    jobs_option(result, "layers")
    run_options(result, "layer")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(sys.argv[1:] if argv is None else argv)
    chosen = network(args.network, _code_width(args))
    layers = _only(chosen.layers, args.layers)
    neurons = _neurons(args, chosen, layers)
    jobs, time_limit = jobs_from(args.jobs), time_limit_from(args.time_limit)
    if args.json is not None:
        check_writable(args.json)
    engine = Engine(args.engine, time_limit)
    cache = Cache(None if args.no_cache else cache_folder())
    library = load_library(args.liberty, cache) if args.liberty else None
    measurement = LayerMeasurement(neurons, BlockMapper(engine, cache), cache, library, time_limit, args.explore)
    with shares("measuring layers") as progress:
        rows = measurement.measure(layers, jobs, progress)
    command = stated_command("bmhw.layers", sys.argv[1:] if argv is None else argv)
    result = layers_result(command, chosen, measurement, rows)
    if not deliver_json(result, args.json):
        print_layers(result)
    return 0


def _code_width(args: argparse.Namespace) -> int | None:
    """Of the log codes of a trained network, where an option names it; that it is none is found out later."""
    width = args.bits if args.log_bits is None else args.log_bits
    return width if isinstance(width, int) else None


def _only(layers: tuple[Layer, ...], names: str | None) -> list[Layer]:
    if names is None:
        return list(layers)
    known = {layer.name: layer for layer in layers}
    wanted = names.split(",")
    for name in wanted:
        if name not in known:
            raise UsageError(not_one_of("Layer", known, name))
    return [known[name] for name in known if name in wanted]


def _neurons(args: argparse.Namespace, chosen: Network, layers: Sequence[Layer]) -> Neurons:
    """What the options say is compared; UsageError where that is out of range, or the network's card says otherwise."""
    bits = 8 if args.bits is None else args.bits
    options: dict[str, Any] = {
        "mac_bits": bits if args.mac_bits is None else args.mac_bits, "mac_weight_bits": args.mac_weight_bits,
        "objective": args.objective, "requantize": args.requantize}
    given = {option: value for option in _CARDS if (value := getattr(args, option)) is not None}
    try:
        check_range("Number of groups", given.get("groups", 1), 1)
        if chosen.formats is None:
            fields = {option: value for option, value in given.items() if option != "bits"}
            neurons = Neurons(**options, **{"bm_bits": bits, **fields})
        else:
            if args.log_bits is None and isinstance(args.bits, int):
                del given["bits"]  # it has named the network
            neurons = _trained(chosen, layers, given, options)
        for layer in layers:
            neurons.mac(layer), neurons.bm(layer)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return neurons


def _trained(chosen: Network, layers: Sequence[Layer], given: dict[str, Any], options: dict[str, Any]) -> Neurons:
    neurons = TrainedNeurons.of(chosen, **options)
    if not any(neurons.bm(layer) for layer in chosen.layers):
        raise UsageError(f"Network {chosen.name} is multiply-accumulate in every layer: there is nothing to compare; "
                         "take one with BM neurons")
    options_of = {_CARDS[option]: option for option in given if option != "bits" or "bm_bits" not in given}
    found = neurons.contradiction({field: given[option] for field, option in options_of.items()}, layers)
    if found:
        field, layer, said = found
        option = options_of[field]
        instead = "; --mac-bits is the MAC neurons' width" if option == "bits" else ""
        raise UsageError(f"--{option.replace('_', '-')} {given[option]} contradicts the card of {chosen.name}: layer "
                         f"{layer} has {said}{instead}")
    return neurons


if __name__ == "__main__":
    run(main)
