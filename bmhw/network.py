# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.network``: a trained network as hardware: how it is folded, its Verilog, its check."""

import time
from collections.abc import Sequence
from pathlib import Path

from bmhw.deliver.export_names import check_name
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.files import check_writable, write_atomically
from bmhw.flow.work_folder import work_folder
from bmhw.show.progress import say, shares, steps

from .command_line import Parser, RunError, UsageError, run
from .options import jobs_from, jobs_option, number

__all__ = ["main", "parser"]

_DESCRIPTION = """\
A trained network as hardware, with its weights inside: pixels in, classes out, one number a cycle.

Each layer is folded onto a few elements, one input a cycle each, as few as take at most --cycles an image.

  python -m bmhw.network --model digits-signed-4bit --cycles 50000 --check 20
  python -m bmhw.network --model mnist-lenet-signed-4bit --cycles 40000 --plan"""


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("--model", required=True, metavar="NAME",
                        help="name of a network (python -m bmhw.models list) or a path to its .json; layout signed")
    result.add_argument("--cycles", type=number, metavar="N", help="cycles an image (default: 8 times the fewest)")
    result.add_argument("--fold", action="append", default=[], metavar="LAYER=P",
                        help="outputs that a layer computes at a time, whatever --cycles says")
    what = result.add_argument_group("what to do (default: --plan)")
    what.add_argument("--plan", action="store_true", help="show elements, cycles and memories; nothing is built")
    what.add_argument("--out", type=Path, metavar="FILE.v", help="write the Verilog")
    what.add_argument("--check", type=number, metavar="N",
                      help="simulate N test images, or all, and compare every number of every layer")
    result.add_argument("--data", type=Path, metavar="DIR", help="folder of the mnist or cifar10 files, for --check")
    result.add_argument("--gaps", type=number, default=0, metavar="PERCENT",
                        help="pauses at both ends of a checked network, of the cycles (default: 0)")
    jobs_option(result, "simulations of a check")
    result.add_argument("--waves", type=Path, metavar="FILE.vcd",
                        help="write what every signal did around a difference that --check finds")
    return result


USUAL_SLOWNESS = 8
"""Cycles an image, unless given, in those of the fastest folding."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    for option, value, low, high in (("--cycles", args.cycles, 1, 1 << 40), ("--check", args.check, 1, 1 << 20),
                                     ("--gaps", args.gaps, 0, 90)):
        if value is None or (option, value) == ("--check", "all"):
            continue
        if not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{option} must be an integer from {low} to {high}, not {value!r}")
    jobs_from(args.jobs)
    if args.waves is not None:
        if args.check is None or args.waves.suffix != ".vcd":
            raise UsageError(f"--waves FILE needs --check and a name that ends in .vcd, not {args.waves.name}")
        check_writable(args.waves)
    if args.out is not None:
        check_name(args.out.stem, "--out without its ending")
        check_writable(args.out)
    try:
        from bmhw.chip.folding import fastest, folding_for, overrides
        from bmhw.chip.parts import assemble
        from bmhw.models.files.store import load
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    network = load(args.model)
    cycles = args.cycles or USUAL_SLOWNESS * fastest(network)
    fixed = overrides(network, args.fold)
    assembly = assemble(network, folding_for(network, cycles, fixed))
    if args.plan or (args.out is None and args.check is None):
        from bmhw.chip.plan import plan
        from bmhw.show.network import print_plan

        print_plan(plan(assembly))
    if args.out is not None:
        from bmhw.hdl.verilog.convert import block_to_verilog

        write_atomically(args.out, block_to_verilog(assembly.block(), args.out.stem))
        print(args.out)
    if args.check is not None:
        _check(assembly, args)
    return 0


def _check(assembly, args) -> None:
    from bmhw.chip.bench import Bench, Difference
    from bmhw.chip.check import Check
    from bmhw.models.training.datasets import load_dataset
    from bmhw.show.network import print_check

    data = load_dataset(assembly.network.card["data"]["name"], args.data)
    count = len(data.test_images) if args.check == "all" else args.check
    if count > len(data.test_images):
        raise UsageError(f"--check must be at most {len(data.test_images)}, the test images there are, "
                         f"not {args.check}")
    with work_folder("bmhw-network-") as folder:
        bench = Bench(assembly, folder)
        check = Check(bench, data.test_images[:count], data.test_labels[:count], gaps=args.gaps, jobs=args.jobs,
                      cache=Cache(cache_folder()))
        with steps("building the simulation"):
            bench.build(images=count, jobs=args.jobs)
        started, left = time.monotonic(), count - check.done
        if check.done:
            say(f"going on with a check that was interrupted: {check.done} of {count} images are compared")
        try:
            with shares("comparing images") as progress:
                result = check.run(lambda: progress(1 / left))
        except Difference as difference:
            if args.waves is None:
                raise
            try:
                with steps("building a simulation with waves") as step:
                    bench.build(jobs=args.jobs, waves=True)
                    step("running it again")
                    check.waves(args.waves, difference)
            except RunError as reason:
                raise RunError(f"{difference}; no waves: {reason}") from None
            raise RunError(f"{difference}; {args.waves} has the signals around it") from None
    print_check(result, bench, time.monotonic() - started)


if __name__ == "__main__":
    run(main)
