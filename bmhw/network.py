# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.network``: a trained network as hardware: how it is folded, its Verilog, its check."""

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bmhw.deliver.together import command_text, write_together
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.files import check_writable, write_atomically
from bmhw.flow.fpga import DEVICES
from bmhw.flow.work_folder import work_folder
from bmhw.show.progress import say, shares, steps

from .command_line import Parser, RunError, UsageError, run
from .options import cycles_from, folding_options, jobs_from, jobs_option, number

__all__ = ["main", "parser"]

_DESCRIPTION = """\
A trained network as hardware, with its weights inside: pixels in, classes out, one number a cycle.

Each layer is folded onto a few elements, one input a cycle each, as few as take at most --cycles an image or, with
--device alone, as many as the device has room for, by plan.

--out DIR writes NAME.v with AXI4-Stream at its edge, DATASHEET.md, a self-checking bench with images (NAME_tb.v and
.hex files), NAME.core (FuseSoC) and NAME.sdc. The same parameters give the same bytes.

--weights writable gives the chip a load port. Its own weights and constants are in it from the start; --weights-image
writes what is to be sent into that port, for another network of the same architecture and formats with --chip.

  python -m bmhw.network --model digits-signed-4bit --cycles 50000 --out build
  python -m bmhw.network --model digits-signed-4bit --cycles 50000 --check 20
  python -m bmhw.network --model mnist-lenet-signed-4bit --frames-per-second 1000 --clock 50 --device ecp5-25k --plan
  python -m bmhw.network --model mnist-lenet-signed-4bit --device ecp5-45k --plan
  python -m bmhw.network --model mnist-lenet-signed-4bit --cycles 40000 --weights writable --out build
  python -m bmhw.network --model retrained.json --chip mnist-lenet-signed-4bit --cycles 40000 --weights-image b.bin"""


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("--model", required=True, metavar="NAME",
                        help="name of a network (python -m bmhw.models list) or a path to its .json")
    folding_options(result)
    result.add_argument("--device", choices=DEVICES,
                        help="FPGA that the memories are cut for, and that a plan must fit (default: any)")
    what = result.add_argument_group("what to do (default: --plan)")
    what.add_argument("--plan", action="store_true", help="show elements, cycles and memories; nothing is built")
    what.add_argument("--out", type=Path, metavar="DIR", help="write the chip, its data sheet and bench into a folder; "
                      "into FILE.v: the chip alone")
    what.add_argument("--check", type=number, metavar="N",
                      help="simulate N test images, or all, and compare every number of every layer")
    what.add_argument("--weights-image", type=Path, metavar="FILE",
                      help="write what the load port of a chip with writable weights takes to compute this network")
    result.add_argument("--chip", metavar="NAME",
                        help="with --weights-image or --check: the network whose chip, of the same options, --model is "
                             "loaded into (default: that of --model)")
    result.add_argument("--data", type=Path, metavar="DIR", help="folder of the mnist or cifar10 files, for --check")
    result.add_argument("--gaps", type=number, default=0, metavar="PERCENT",
                        help="pauses at both ends of a checked network, of the cycles (default: 0)")
    jobs_option(result, "simulations of a check")
    result.add_argument("--waves", type=Path, metavar="FILE.vcd",
                        help="write what every signal did around a difference that --check finds")
    chip = result.add_argument_group("the chip of --out")
    chip.add_argument("--name", metavar="NAME", help="of the module and the files (default: the network's)")
    chip.add_argument("--logits", action="store_true", help="each class's number in front of the class")
    chip.add_argument("--counters", action="store_true", help="outputs that count results and stalls")
    chip.add_argument("--frequency", type=number, default=50, metavar="MHZ",
                      help="clock that synthesis aims at (default: 50)")
    chip.add_argument("--vectors", type=number, default=4, metavar="N", help="images of the bench (default: 4)")
    chip.add_argument("--force", action="store_true", help="overwrite what another command wrote into the folder")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    for option, value, low, high in (("--check", args.check, 1, 1 << 20), ("--gaps", args.gaps, 0, 90),
                                     ("--frequency", args.frequency, 1, 1000), ("--vectors", args.vectors, 2, 1 << 20)):
        if value is None or (option, value) == ("--check", "all"):
            continue
        if not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{option} must be an integer from {low} to {high}, not {value!r}")
    jobs_from(args.jobs)
    _check_loading(args)
    if args.waves is not None:
        if args.check is None or args.waves.suffix != ".vcd":
            raise UsageError(f"--waves FILE needs --check and a name that ends in .vcd, not {args.waves.name}")
        check_writable(args.waves)
    alone = args.out is not None and args.out.suffix == ".v"
    if alone or args.name is not None:
        from bmhw.deliver.export_names import check_name  # a plan needs no simulators' names
    if alone:
        if args.name is not None:
            raise UsageError(f"--name contradicts --out {args.out}, which names the module")
        args.name = check_name(args.out.stem, "--out without its ending")
        check_writable(args.out)
    else:
        if args.name is not None:
            check_name(args.name)
        if args.out is not None and args.out.exists() and not args.out.is_dir():
            raise RunError(f"cannot write into {args.out}: it is a file")
    cycles = cycles_from(args)
    try:
        from bmhw.chip.folding import assembled
    except ImportError as error:
        raise RunError(f"networks need {error.name}: pip install 'bmhw[models]'") from None
    hardware = assembly = assembled(args.chip or args.model, cycles, args.fold, args.device,
                                    writable=args.weights == "writable")
    if args.chip is not None:
        from bmhw.chip.loading import with_network
        from bmhw.models.files.store import load

        assembly = with_network(hardware, load(args.model))
    nothing = args.out is None and args.check is None and args.weights_image is None
    shown = args.plan or nothing
    if shown or args.device is not None:
        short = _plan(hardware, args, shown)
        if short and nothing:
            raise RunError(short)
        if short:
            say(short)
    if args.out is not None:
        _deliver(assembly, args, alone)
    if args.weights_image is not None:
        from bmhw.deliver.weights_image import write_image

        write_image(args.weights_image, assembly)
        print(args.weights_image)
    if args.check is not None:
        _check(assembly, hardware, args)
    return 0


def _check_loading(args) -> None:
    """Options of writable weights, which they imply."""
    for option, value in (("--weights-image", args.weights_image), ("--chip", args.chip)):
        if value is not None and args.weights == "rom":
            raise UsageError(f"{option} {value} needs --weights writable, not rom")
    if args.chip is not None and args.out is not None:
        raise UsageError(f"--out {args.out} delivers the chip of --model: it contradicts --chip {args.chip}")
    if args.chip is not None and args.check is None and args.weights_image is None:
        raise UsageError(f"--chip {args.chip} needs --weights-image FILE or --check N")
    if args.weights_image is not None:
        check_writable(args.weights_image)
    if args.weights_image is not None or args.chip is not None:
        args.weights = "writable"


def _plan(assembly, args, shown: bool) -> str:
    """Make it, and print it where it is ``shown``; what the device has too little of, and what would fit."""
    from bmhw.chip.folding import overrides, shortage
    from bmhw.chip.plan import plan
    from bmhw.show.network import print_plan

    planned = plan(assembly, args.device and DEVICES[args.device])
    if shown:
        print_plan(planned)
    if not planned.missing:
        return ""
    return shortage(assembly, args.device, planned, overrides(assembly.network, args.fold))


_ELSEWHERE = ("plan", "out", "check", "data", "gaps", "force", "jobs", "waves", "weights_image", "chip")
"""Options that don't change what is in the files."""


def _deliver(assembly, args, alone: bool) -> None:
    from bmhw.deliver.export_names import check_name, check_unused, legal_name
    from bmhw.deliver.network_files import Delivery

    available = len(assembly.network.samples)
    if not alone and args.vectors > available:
        raise UsageError(f"--vectors must be from 2 to {available}, the images that the network brings, "
                         f"not {args.vectors}")
    usual = legal_name(assembly.network.name, "network")
    name = args.name or check_name(usual, "--name")
    # the same files wherever the network lies
    shown = Namespace(**{**vars(args), "model": Path(args.model).name, "name": None if name == usual else name})
    defaults = {option: parser().get_default(option) for option in vars(args)}
    delivery = Delivery(assembly=assembly, name=name, logits=args.logits, counters=args.counters,
                        megahertz=args.frequency, device=args.device,
                        command=command_text("bmhw.network", shown, defaults, *_ELSEWHERE))
    if alone:
        write_atomically(args.out, delivery.verilog())
        print(args.out)
        return
    files = delivery.files(args.vectors)
    check_unused(name, {file: text for file, text in files.items() if file.endswith(".v")})
    for path in write_together(args.out, files, command=delivery.command, force=args.force):
        print(path)


def _check(assembly, hardware, args) -> None:
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
        bench = Bench(assembly, folder, hardware=hardware)
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
