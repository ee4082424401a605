# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.train``: train a network in three phases and write its integer weights and their card."""

import ctypes
import dataclasses
import os
import signal
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bmhw import __version__
from bmhw.hdl.checks import not_one_of
from bmhw.show.progress import on_terminal

from .command_line import Parser, RunError, UsageError, check_file_name, number, run

_DESCRIPTION = """\
Train a network in three phases and write its integer weights and their card.

The classical network comes first; the BM network starts from its weights and learns from its soft labels;
then its number codes are trained (straight-through) and written as integers. Ctrl-C writes a checkpoint and
ends; --resume goes on from there. BMHW_POWERS=float32 or bfloat16 in the
environment forces the precision of the p-norms that train maxima (default: bfloat16 where the processor has
instructions for it, else float32)."""

PHASES = ("classical", "bm", "quantised")
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # malloc.h


def parser() -> Parser:
    result = Parser(description=_DESCRIPTION)
    result.add_argument("--dataset", default="digits", help="images to train on (default: digits)")
    result.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the mnist or cifar10 files (IDX, binary or npz)"
    )
    result.add_argument("--name", help="name of the network and its files (default: the data set's)")
    result.add_argument("--out", type=Path, metavar="DIR", help="folder of all files (default: runs/NAME)")
    result.add_argument("--architecture", help="network (default: the data set's recipe)")
    result.add_argument(
        "--layout",
        "--branches",
        choices=("auto", "signed", "wired", "mac"),
        help="BM layers: relu or bipolar by the sign of their inputs; signed everywhere; wired where it can be, else "
        "signed; mac: a quantised classical network to compare with (default: auto)",
    )
    result.add_argument(
        "--mac-layers", metavar="NAME,...", help="layers that stay multiply-accumulate (default: none)"
    )
    for phase in PHASES:
        result.add_argument(
            f"--{phase}-epochs", type=number, metavar="N", help=f"epochs of the {phase} phase"
        )
    result.add_argument(
        "--epoch-images",
        type=number,
        metavar="N",
        help="images of an epoch, drawn anew each time (default: all)",
    )
    result.add_argument(
        "--method",
        help="of the bm phase: annealed, smoothed-gradient, smoothed-maximum, at-once, layer-distillation, "
        "layer-by-layer, scratch (default: the recipe's)",
    )
    result.add_argument(
        "--bm-rate", type=float, metavar="R", help="largest step of the bm phase (default: the recipe's)"
    )
    result.add_argument(
        "--quantised-rate", type=float, metavar="R",
        help="largest step of the quantised phase (default: the recipe's)",
    )
    result.add_argument("--batch", type=number, metavar="N", help="images of a step (default: the recipe's)")
    result.add_argument(
        "--init-from",
        type=Path,
        metavar="FILE",
        help="start from a classical state_dict (.safetensors, .pt) or NAME-float.safetensors; what it holds "
        "isn't trained again unless epochs are given",
    )
    result.add_argument("--bits", type=number, default=8, help="width of the linear inputs (default: 8)")
    result.add_argument(
        "--log-bits", type=number, metavar="B", help="width of the log codes (default: --bits)"
    )
    result.add_argument("--log-fraction", type=number, metavar="F",
                        help="their bits behind the point, below their width: more are finer steps over fewer octaves "
                             "(default: what spans the linear numbers)")
    result.add_argument(
        "--maximum-bits",
        type=number,
        metavar="M",
        help="high bits of the sums that the maxima see (default: all)",
    )
    result.add_argument(
        "--linear-maximum-bits",
        type=number,
        metavar="M",
        help="the same of layers with a linear result (default: --maximum-bits)",
    )
    result.add_argument(
        "--sums",
        choices=("full", "clamped"),
        default="full",
        help="sums of an activation's and a weight's code: one bit more than the codes, or clamped from below to "
        "as many (default: full)",
    )
    result.add_argument(
        "--combine",
        choices=("linear", "logarithmic"),
        default="linear",
        help="logarithmic: layers whose outputs go to BM layers only hand on log codes (default: linear)",
    )
    result.add_argument("--mac-weight-bits", type=number, metavar="B",
                        help="width of the weights of multiply-accumulate layers (default: --bits)")
    result.add_argument("--log", help="logarithm: exact, mitchell, piecewise")
    result.add_argument("--exp", help="exponential: exact, schraudolph, piecewise")
    result.add_argument("--seed", type=number, default=0, help="seed of everything random (default: 0)")
    result.add_argument("--threads", type=number, default=1, metavar="N", help="CPU threads (default: 1)")
    result.add_argument("--device", default="cpu", help="PyTorch device, cuda for a GPU (default: cpu)")
    result.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    result.add_argument("--force", action="store_true", help="replace the files of an earlier run in --out")
    return result


def recipe_from(args) -> Any:
    """The settings of the data set and architecture; UsageError for unknown ones."""
    from bmhw.models.networks.architecture import ARCHITECTURES
    from bmhw.models.training.datasets import DATASETS
    from bmhw.models.training.methods import METHODS
    from bmhw.models.training.recipes import recipe

    for what, value, valid in (
        ("--dataset", args.dataset, DATASETS),
        ("--architecture", args.architecture, ARCHITECTURES),
        ("--method", args.method, METHODS),
    ):
        if value is not None and value not in valid:
            raise UsageError(not_one_of(what, valid, value))
    chosen = recipe(args.dataset, args.architecture)
    if args.layout:
        chosen = dataclasses.replace(chosen, layout=args.layout)
    if args.method:
        chosen = dataclasses.replace(chosen, method=args.method)
    given_rates = None, args.bm_rate, args.quantised_rate
    for phase, given in zip(PHASES, given_rates, strict=True):
        if given is not None and not 0 < given <= 1:
            raise UsageError(f"--{phase}-rate must be above 0 and at most 1, not {given}")
    rates = tuple(usual if given is None else given for usual, given in zip(chosen.rates, given_rates, strict=True))
    chosen = dataclasses.replace(chosen, rates=rates)
    if args.mac_layers:
        chosen = dataclasses.replace(chosen, mac_layers=tuple(args.mac_layers.split(",")))
    return chosen


def initial_from(path: Path, recipe, data) -> tuple[dict[str, Any], str]:
    """The state_dicts in a file by phase, and its SHA-256; errors of ``initial_states``."""
    from bmhw.models.files.initial import initial_states
    from bmhw.models.files.writing import sha256
    from bmhw.models.networks.architecture import ARCHITECTURES

    architecture = ARCHITECTURES[recipe.architecture](*data.train_images.shape[1:3])
    states = initial_states(path, architecture, architecture.layouts(recipe.layout, recipe.mac_layers))
    return states, sha256(path.read_bytes())


def settings_from(args, recipe, initial: Collection[str] = (), checksum: str | None = None) -> Any:
    """The recipe with what the options change; UsageError where they make no sense.

    ``initial``: the phases whose networks come from a file with SHA-256 ``checksum``.
    """
    from bmhw.models.integer.quantise import Quantisation

    given_epochs = [getattr(args, f"{phase}_epochs") for phase in PHASES]
    usual_epochs = [
        0 if phase in initial else epochs for phase, epochs in zip(PHASES, recipe.epochs, strict=True)
    ]
    if recipe.layout == "mac":
        usual_epochs[1] = 0  # nothing to convert
    epochs = tuple(
        usual if given is None else given for given, usual in zip(given_epochs, usual_epochs, strict=True)
    )
    batch = recipe.batch if args.batch is None else args.batch
    for what, value, least in (
        *zip((f"--{phase}-epochs" for phase in PHASES), epochs, (0, 0, 0), strict=True),
        ("--seed", args.seed, 0),
        ("--threads", args.threads, 1),
        ("--batch", batch, 1),
        ("--epoch-images", 1 if args.epoch_images is None else args.epoch_images, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise UsageError(f"{what} must be an integer of {least} or more, not {value!r}")
    if args.threads > 1024:
        raise UsageError(f"--threads must be an integer from 1 to 1024, not {args.threads}")
    quantisation = Quantisation(
        bits=args.bits,
        log_bits=args.log_bits,
        log_fraction=args.log_fraction,
        log2=args.log,
        exp2=args.exp,
        sums=args.sums,
        maximum_bits=args.maximum_bits,
        linear_maximum_bits=args.linear_maximum_bits,
        mac_weight_bits=args.mac_weight_bits,
        combine=args.combine,
    )
    if args.mac_weight_bits is not None and recipe.layout != "mac" and not recipe.mac_layers:
        raise UsageError(f"--mac-weight-bits {args.mac_weight_bits} needs --layout mac or --mac-layers")
    try:
        quantisation.format("mac", 1, False)
        for gives_codes in {False, args.combine == "logarithmic"}:
            quantisation.format("relu", 1, False, gives_codes=gives_codes)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    changes: dict[str, Any] = {
        "epochs": epochs,
        "seed": args.seed,
        "quantisation": quantisation,
        "batch": batch,
    }
    changes |= {"epoch_images": args.epoch_images, "initial": checksum}
    return dataclasses.replace(recipe, **changes)


def keep_memory() -> None:
    """Let the C library keep what is freed, where it can be told to (glibc).

    Each step takes and frees the same large blocks; given back to the system, every page of them is faulted in
    anew, which takes longer than an addition does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**27)):
            mallopt(parameter, value)


class ProgressReport:
    """Shows a trainer's events: a bar a phase, a line for each tenth of its epochs."""

    def __init__(self, console: Console):
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not on_terminal(),
        )
        self.tasks: dict[str, Any] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        phase, epochs = event["phase"], event["epochs"]
        if phase not in self.tasks:
            self.tasks[phase] = self.progress.add_task(phase, total=epochs, state="")
        if event["event"] == "step":
            done = event["epoch"] + event["step"] / event["steps"]
            state = f"epoch {event['epoch'] + 1}/{epochs} loss {event['loss']:.3f}"
            self.progress.update(self.tasks[phase], completed=done, state=state)
        elif event["epoch"] == epochs or event["epoch"] % max(1, epochs // 10) == 0:
            self.console.print(
                f"{phase:>10}  epoch {event['epoch']:>3}/{epochs}  loss {event['loss']:.3f}  "
                f"validation {event['validation_accuracy']:.2f} %  {event['seconds']:.1f} s/epoch"
            )


def commit() -> str | None:
    """The commit of the source tree that this runs from; None outside one."""
    result = subprocess.run(
        ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None if result.returncode == 0 else None


def write(trainer, data, files, initial: Path | None, source: str | None) -> dict[str, float]:
    """Write weights, floating-point weights and card; returns the accuracies on the test part in per cent.

    ``files``: of the run (``RunFiles``); ``initial``: the file that the weights started from; ``source``: the commit
    that the run was started from.
    """
    import torch

    from bmhw.models.errors import ModelError
    from bmhw.models.files.float_weights import half_precision, load_float, save_float
    from bmhw.models.files.store import save
    from bmhw.models.files.writing import staged
    from bmhw.models.training.trainer import accuracy

    floats = {kind: half_precision(trainer.models[kind].cpu()) for kind in ("classical", "bm")}
    network = trainer.models["quantised"].cpu().to_integer(files.name, data.test_images[:64])
    right = network.classify(data.test_images) == data.test_labels
    figures = {"classical": accuracy(floats["classical"], data.test_images, data.test_labels)}
    # of layout mac and not trained again, the second network is the first one
    same = trainer.models["bm"].layouts == trainer.models["classical"].layouts and not trainer.settings.epochs[1]
    figures["bm"] = figures["classical"] if same else accuracy(floats["bm"], data.test_images, data.test_labels)
    accuracies = {
        "classical_accuracy": figures["classical"],
        "bm_float_accuracy": figures["bm"],
        "bm_integer_accuracy": 100 * int(right.sum()) / len(right),
    }
    card = {
        "accuracy": accuracies,
        "data": {
            "name": data.name,
            "description": data.description,
            "train_images": len(trainer.data.train_images),
            "validation_images": trainer.settings.validation,
            "test_images": len(data.test_images),
        },
        "training": {
            **dataclasses.asdict(trainer.settings),
            # a resumed run's too: the clock of this process would count its last part alone
            "seconds": round(sum(epoch["seconds"] for epoch in trainer.history), 1),
            "commit": source,
            "bmhw_version": __version__,
            "torch_version": torch.__version__,
            "history": trainer.history,
        },
    }
    known = files.shared(initial)
    try:
        with staged(files.folder, files.kept) as stage:
            load_float(save(network, stage, card | {"float_weights": save_float(files.name, stage, floats, known)}))
    except (ModelError, OSError) as error:
        raise RunError(f"{error}; the trained network is in {files.folder}: --resume writes it once more") from None
    return accuracies


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        import torch

        from bmhw.models.files.run_files import RunFiles
        from bmhw.models.training.datasets import load_dataset
        from bmhw.models.training.trainer import Stopped, Trainer
    except ImportError as error:
        raise RunError(f"training needs {error.name}: pip install 'bmhw[models]'") from None
    recipe = recipe_from(args)
    settings = settings_from(args, recipe)  # its errors before anything is read
    data = load_dataset(args.dataset, args.data)
    initial: dict[str, Any] = {}
    if args.init_from is not None:
        initial, checksum = initial_from(args.init_from, recipe, data)
        settings = settings_from(args, recipe, initial, checksum)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # which one depends on how PyTorch was built
        raise UsageError(f"--device {args.device} can't be used: {str(error).splitlines()[0]}") from None
    name = args.name or ("digits" if args.dataset == "digits" else f"{args.dataset}-{settings.architecture}")
    check_file_name("--name", name)
    folder = args.out or Path("runs") / name
    files = RunFiles(folder, name, resume=args.resume, force=args.force)
    files.check(dataclasses.asdict(settings))
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.deterministic = True  # cuDNN's fastest sums differ from run to run
    keep_memory()
    trainer = Trainer(settings, data, folder, resume=args.resume, device=args.device, initial=initial)
    console = Console(stderr=True)

    def interrupted(*_):
        if trainer.stop:  # the second time: at once
            raise KeyboardInterrupt
        trainer.stop = True

    usual = signal.signal(signal.SIGINT, interrupted)
    report = ProgressReport(console)
    source = commit()  # before training: the tree may have moved on when it ends
    try:
        with report.progress:
            trainer.run(report)
    except Stopped:
        console.print(f"Stopped; go on with --resume (checkpoint in {folder})")
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, usual)
    accuracies = write(trainer, data, files, args.init_from, source)
    console.print(
        f"{folder / name}.safetensors and its card: "
        + ", ".join(
            f"{key.removesuffix('_accuracy').replace('_', ' ')} {value:.2f} %"
            for key, value in accuracies.items()
        ),
        soft_wrap=True,  # names stay whole where this isn't a terminal
    )
    return 0


if __name__ == "__main__":
    run(main)
