# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.train``: train a network in three phases and write its integer weights and their card."""

import dataclasses
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bmhw.flow.files import check_file_name
from bmhw.hdl.checks import not_one_of
from bmhw.models.networks.groups import GroupInputs, Groups, has_groups
from bmhw.show.training import TrainingReport

from .command_line import Parser, RunError, UsageError, run
from .options import number

_DESCRIPTION = """\
Train a network in three phases and write its integer weights and their card.

The classical network comes first; the BM network starts from its weights and learns from its soft labels;
then its number codes are trained (straight-through) and written as integers. Ctrl-C writes a checkpoint and
ends; --resume goes on from there. BMHW_POWERS=float32 or bfloat16 in the
environment forces the precision of the p-norms that train maxima (default: bfloat16 where the processor has
instructions for it, else float32).

With a GPU, from nothing:
  python -m bmhw.train --device cuda --dataset cifar10 --data DIR --classical-epochs 80 --bm-epochs 40 \\
      --quantised-epochs 8 --log-bits 5 --log-fraction 2 --edge-bits 8
Without one, some hours from a network that is there:
  python -m bmhw.train --dataset cifar10 --data DIR --layout signed --init-from NAME-float.safetensors \\
      --bm-epochs 1 --epoch-images 15000 --quantised-epochs 1 --log-bits 5 --log-fraction 2 --edge-bits 8"""

PHASES = ("classical", "bm", "quantised")


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
    result.add_argument("--neurons", metavar="NAME=KIND,...",
                        help="layers that are something else: macB (multiply-accumulate, B bits), mac (of the usual "
                             "width), signed, relu, bipolar, wired; such as stem=mac8,dense=mac4 (default: none)")
    result.add_argument("--mac-layers", metavar="NAME,...", help="the same as --neurons NAME=mac,...")
    grouping = result.add_mutually_exclusive_group()
    grouping.add_argument("--groups", type=number, metavar="G",
                          help="groups of input channels of every bipolar morphological layer, each with its own "
                               "maxima, or the largest number below that divides its channels (default: 4 where a bm "
                               "phase begins and --combine is linear; else what the file or checkpoint has)")
    grouping.add_argument("--group-inputs", type=number, metavar="N",
                          help="instead, as many groups in each layer as leave every one at least N inputs, channels "
                               "times taps of the kernel; a network of --init-from in other groups keeps its weights, "
                               "scaled to what they gave")
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
    result.add_argument("--validation-images", type=number, metavar="N",
                        help="last training images, which no phase learns from: each epoch's accuracy is measured on "
                             "them (default: the recipe's)")
    result.add_argument(
        "--method",
        help="of the bm phase: annealed, smoothed-gradient, smoothed-maximum, fine-tuning, at-once, "
        "layer-distillation, layer-by-layer, scratch (default: the recipe's; fine-tuning where a file holds a network "
        "with groups)",
    )
    result.add_argument("--norm", type=float, metavar="P",
                        help="largest p of the p-norms that stand for maxima while training (default: 8 with groups, "
                             "16 without)")
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
        "isn't trained again unless epochs are given; what became what and its validation accuracy are shown first",
    )
    result.add_argument("--teacher", type=Path, metavar="FILE",
                        help="the classical network, where --init-from is a bipolar morphological one by itself, with "
                             "this program's names of layers (steps.NAME); such a file needs --groups or "
                             "--group-inputs")
    foreign = result.add_argument_group(
        "somebody else's network", "What --init-from can't read from a file, folded into the weights."
    )
    foreign.add_argument("--norm-epsilon", type=real, metavar="E",
                         help="of its batch normalisations (default: 1e-5 as PyTorch's; 1e-3 where layers have the "
                              "names of this program's own, steps.NAME)")
    foreign.add_argument("--mean", type=reals, metavar="M[,M...]",
                         help="of its images, one or one a channel: (pixel / --pixel-scale - mean) / std; its zero "
                              "padding becomes the mean (default: 0)")
    foreign.add_argument("--std", type=reals, metavar="S[,S...]", help="the same (default: 1)")
    foreign.add_argument("--pixel-scale", type=real, metavar="P",
                         help="what its pixels of 0..255 were divided by; 255 in torchvision (default: 256)")
    foreign.add_argument("--order", type=Path, metavar="FILE",
                         help="its layers in the order of the architecture's, one name a line (default: by name, else "
                              "by kind, shape and order)")
    foreign.add_argument("--accept-import", action="store_true",
                         help="go on with a network whose accuracy as imported is near chance")
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
    result.add_argument("--edge-bits", type=number, metavar="B",
                        help="width of the first and the last layer's inputs, codes and weights (default: as all)")
    result.add_argument("--zero", choices=("step", "exact"),
                        help="what code 0 of the log codes stands for: the smallest step, or 0 (default: exact with "
                             "groups, else step)")
    result.add_argument("--out-fraction", type=number, metavar="F",
                        help="bits behind the point of linear results (default: 2 * width - 2)")
    result.add_argument("--log", help="logarithm: exact, mitchell, piecewise")
    result.add_argument("--exp", help="exponential: exact, schraudolph, piecewise")
    result.add_argument("--seed", type=number, default=0, help="seed of everything random (default: 0)")
    result.add_argument("--threads", type=number, default=1, metavar="N", help="CPU threads (default: 1)")
    result.add_argument("--device", default="cpu",
                        help="PyTorch device; cuda for a GPU, where a step is one CUDA graph if it can be "
                             "(default: cpu)")
    result.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    result.add_argument("--force", action="store_true", help="replace the files of an earlier run in --out")
    return result


def real(text: str) -> float | str:
    """``type=`` of an option that is a real number; what isn't one is named where the range is known."""
    try:
        return float(text)
    except ValueError:
        return text


def reals(text: str) -> tuple[float | str, ...]:
    """The same of several, separated by commas."""
    return tuple(real(part) for part in text.split(","))


def conventions_from(args) -> Any:
    """What the options say of somebody else's network; UsageError for what is no number or has no network."""
    from bmhw.models.files.conventions import Conventions

    given = {}
    for name in ("norm_epsilon", "mean", "std", "pixel_scale"):
        value, option = getattr(args, name), f"--{name.replace('_', '-')}"
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, str):
                raise UsageError(f"{option} must be a number, not {part!r}")
        if value is not None:
            given[name] = value
    others = [name for name in ("order", "teacher") if getattr(args, name) is not None]
    others += ["accept_import"] * args.accept_import
    if args.init_from is None and (given or others):
        option = next(iter([*given, *others])).replace("_", "-")
        raise UsageError(f"--{option} is about the network of --init-from, which is missing")
    return Conventions(**given)


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
    neurons = tuple(args.neurons.split(",")) if args.neurons else ()
    neurons += tuple(f"{name}=mac" for name in args.mac_layers.split(",")) if args.mac_layers else ()
    chosen = dataclasses.replace(chosen, neurons=neurons)
    return chosen


USUAL_GROUPS = 4
LARGEST_FAN_IN = 1 << 16  # of neurons: more groups, or larger ones, there are none
FINE_TUNING_RATE = 2e-3
"""The largest step of a bm phase that goes on from a network with groups."""


def groups_asked(args, recipe, folder: Path | None = None) -> Groups | None:
    """The groups that the options ask for, or that the run has whose checkpoint lies in ``folder``; None where neither
    says. UsageError for what is none."""
    for option, value, kind in (("--groups", args.groups, int), ("--group-inputs", args.group_inputs, GroupInputs)):
        if value is None:
            continue
        if not isinstance(value, int) or not 1 <= value <= LARGEST_FAN_IN:
            raise UsageError(f"{option} must be an integer from 1 to {LARGEST_FAN_IN}, not {value!r}")
        groups = kind(value)
        if has_groups(groups) and recipe.only_macs:
            raise UsageError(f"{option} {value} is for bipolar morphological layers, not for --layout mac")
        if has_groups(groups) and args.combine == "logarithmic":
            raise UsageError(f"{option} {value} adds linear numbers, which --combine logarithmic has none of")
        return groups
    if not args.resume or folder is None:
        return None
    from bmhw.models.training.trainer import saved_groups

    return saved_groups(folder)


def groups_from(args, recipe, initial, folder: Path | None = None) -> Groups:
    """The groups that a run has: those asked for (:func:`groups_asked`), of the file's BM network or, where there is
    none, the usual ones."""
    asked = groups_asked(args, recipe, folder)
    if asked is not None:
        return asked
    if initial is not None and "bm" in initial.states:
        return initial.groups
    return 1 if recipe.only_macs or args.combine == "logarithmic" else USUAL_GROUPS


def settings_from(args, recipe, initial=None, folder: Path | None = None) -> Any:
    """The recipe with what the options change; UsageError where they make no sense.

    ``initial``: what the run starts from (``Initial``), ``folder``: where its checkpoint lies.
    """
    from bmhw.models.integer.quantise import Quantisation
    from bmhw.models.networks.neuron_kinds import neuron_kinds
    from bmhw.models.training.methods import GROUPED_NORM

    kinds = neuron_kinds(recipe.neurons)  # what is wrong with them is said first
    given_epochs = [getattr(args, f"{phase}_epochs") for phase in PHASES]
    usual_epochs = [
        0 if initial is not None and (initial.is_trained if phase == "bm" else phase in initial.states) else epochs
        for phase, epochs in zip(PHASES, recipe.epochs, strict=True)
    ]
    if recipe.only_macs:
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
        ("--validation-images", 1 if args.validation_images is None else args.validation_images, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise UsageError(f"{what} must be an integer of {least} or more, not {value!r}")
    if args.threads > 1024:
        raise UsageError(f"--threads must be an integer from 1 to 1024, not {args.threads}")
    groups = groups_from(args, recipe, initial, folder)
    norm = args.norm
    if norm is not None and not 1 <= norm <= 64:
        raise UsageError(f"--norm must be from 1 to 64, not {norm:g}")
    if norm is None:
        norm = GROUPED_NORM if has_groups(groups) else recipe.norm
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
        groups=groups,
        zero=args.zero,
        edge_bits=args.edge_bits,
        out_fraction=args.out_fraction,
        layer_bits=tuple((name, kind.bits) for name, kind in kinds.items() if kind.bits is not None),
    )
    usual_macs = [kind for kind in kinds.values() if kind.layout == "mac" and kind.bits is None]
    if args.mac_weight_bits is not None and recipe.layout != "mac" and not usual_macs:
        raise UsageError(f"--mac-weight-bits {args.mac_weight_bits} needs --layout mac or --neurons NAME=mac")
    try:
        for edge in {False, args.edge_bits is not None}:
            quantisation.format("mac", 1, False, edge=edge)
            for gives_codes in {False, args.combine == "logarithmic" or quantisation.has_groups}:
                takes_codes = gives_codes and quantisation.has_groups
                quantisation.format("relu", 1, False, edge=edge, takes_codes=takes_codes, gives_codes=gives_codes)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    changes: dict[str, Any] = {
        "epochs": epochs,
        "seed": args.seed,
        "quantisation": quantisation,
        "batch": batch,
    }
    changes |= {"epoch_images": args.epoch_images, "norm": norm}
    changes |= {} if args.validation_images is None else {"validation": args.validation_images}
    if initial is not None:
        changes |= {"initial": initial.checksum, "border": initial.border, "conventions": initial.conventions}
        changes |= {"teacher": None if initial.teacher is None else initial.teacher[1]}
        if "bm" in initial.states and has_groups(groups) and args.method is None:
            changes |= {"method": "fine-tuning"}
            if args.bm_rate is None:
                changes |= {"rates": (recipe.rates[0], FINE_TUNING_RATE, recipe.rates[2])}
    return dataclasses.replace(recipe, **changes)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        import torch

        from bmhw.models.files.run_files import RunFiles
        from bmhw.models.training.datasets import load_dataset
        from bmhw.models.training.importing import check_import, imported
        from bmhw.models.training.run import train
        from bmhw.models.training.trainer import Stopped
    except ImportError as error:
        raise RunError(f"training needs {error.name}: pip install 'bmhw[models]'") from None
    recipe = recipe_from(args)
    settings = settings_from(args, recipe)  # its errors before anything is read
    conventions = conventions_from(args)
    data = load_dataset(args.dataset, args.data)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # which one depends on how PyTorch was built
        raise UsageError(f"--device {args.device} can't be used: {str(error).splitlines()[0]}") from None
    usual = "digits" if args.dataset == "digits" else f"{args.dataset}-{settings.architecture}"
    name = usual if args.name is None else args.name
    check_file_name("--name", name)
    files = RunFiles(args.out or Path("runs") / name, name, resume=args.resume, force=args.force)
    torch.set_num_threads(args.threads)
    report = TrainingReport()
    initial = None
    if args.init_from is not None:
        initial = imported(args.init_from, settings, data, conventions, args.order, teacher=args.teacher,
                           groups=groups_asked(args, recipe, files.folder))
    settings = settings_from(args, recipe, initial, files.folder)
    files.check(dataclasses.asdict(settings))
    if initial is not None and not args.resume:  # before anything is written
        check_import(initial, settings, data, report.tell, accept=args.accept_import, device=args.device)
    try:
        accuracies = train(settings, data, files, initial=initial, device=args.device, report=report)
    except Stopped:
        report.tell(f"Stopped; go on with --resume (checkpoint in {files.folder})")
        return 128 + signal.SIGINT
    shown = (f"{key.removesuffix('_accuracy').replace('_', ' ')} {value:.2f} %" for key, value in accuracies.items())
    report.tell(f"{files.folder / name}.safetensors and its card: {', '.join(shown)}")
    return 0


if __name__ == "__main__":
    run(main)
