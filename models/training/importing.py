# SPDX-License-Identifier: Apache-2.0
"""What an imported network does before anything is trained: what can't be read from a file, such as its pooling, its
epsilon or the scaling of its images, shows in its accuracy."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from bmhw.models.errors import ModelError
from bmhw.models.files.conventions import Conventions
from bmhw.models.files.initial import Initial, read_initial
from bmhw.models.networks.architecture import Architecture, build
from bmhw.models.networks.groups import Groups
from bmhw.models.networks.network import MATCHING_BATCH, Network, regrouped, with_mac_layers

from .datasets import Dataset
from .memory import keep_memory
from .settings import Settings
from .trainer import accuracy

__all__ = ["check_import", "imported"]

LEAST_FACTOR = 2
"""How many times chance an imported network's accuracy must be."""
REGROUPING_BATCHES = 2
"""Batches of images on which layers in other groups are matched to what they were."""


def imported(
    path: Path, settings: Settings, data: Dataset, conventions: Conventions, order: Path | None = None, *,
    groups: Groups | None = None, teacher: Path | None = None,
) -> Initial:  # fmt: skip
    """What a run with these settings starts from: the BM network of the file with the run's layouts and ``groups``
    (None: whatever it has). ``teacher`` and errors: see ``read_initial``."""
    architecture = build(settings.architecture, *data.train_images.shape[1:3])
    layouts = settings.layouts(architecture)
    initial = read_initial(path, architecture, layouts, groups=groups, conventions=conventions, order=order,
                           teacher=teacher)
    if "bm" not in initial.states:
        return initial
    groups = initial.groups if groups is None else groups
    if initial.layouts is None and groups == initial.groups:
        return initial
    images = data.validation_split(settings.validation).train_images[: REGROUPING_BATCHES * MATCHING_BATCH]
    images = torch.from_numpy(images).float() / 256
    bm = _network(initial, "bm", architecture, initial.layouts or layouts)
    if initial.layouts is not None:  # first, so that a layer which becomes another one is measured as it was trained
        bm = with_mac_layers(bm, layouts, images[:MATCHING_BATCH])
    if groups != initial.groups:
        bm = regrouped(bm, groups, images)
        initial = dataclasses.replace(initial, groups=groups, regrouped_from=initial.groups)
    return dataclasses.replace(initial, states={**initial.states, "bm": bm.state_dict()})


def _network(initial: Initial, phase: str, architecture: Architecture, layouts: Mapping[str, str]) -> Network:
    network = Network(architecture.with_border(initial.border), layouts, initial.groups if phase == "bm" else 1)
    network.load_state_dict({**network.state_dict(), **initial.states[phase]})
    return network.eval()


def check_import(
    initial: Initial, settings: Settings, data: Dataset, tell: Callable[[str], object], *, accept: bool = False,
    device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Tell what became what and the validation accuracies, in per cent, of the networks as they were read (phase ->
    accuracy, returned).

    ModelError where somebody else's network is right in less than twice as many cases as chance, unless ``accept``,
    and where a network gives no finite scores.
    """
    keep_memory()
    for line in initial.lines():
        tell(line)
    architecture = build(settings.architecture, *data.train_images.shape[1:3])
    held_out = data.validation_split(settings.validation)
    images, labels = held_out.test_images, held_out.test_labels
    figures = {}
    for phase in initial.states:
        layouts = architecture.layouts("mac") if phase == "classical" else settings.layouts(architecture)
        network = _network(initial, phase, architecture, layouts).to(device)
        with torch.no_grad():
            scores = network(torch.from_numpy(images[:64]).to(device).float() / 256)
        if not torch.isfinite(scores).all():
            raise ModelError(f"The {phase} network of {initial.path} gives scores that are no finite numbers")
        figures[phase] = accuracy(network, images, labels)
    shown = ", ".join(f"{phase} {figure:.2f} %" for phase, figure in figures.items())
    tell(f"Validation accuracy as imported, {len(images)} images: {shown}")
    least = LEAST_FACTOR * 100 / architecture.classes
    if initial.conventions is not None and figures["classical"] < least and not accept:
        source = initial.path if initial.teacher is None else initial.teacher[0]
        raise ModelError(
            f"The network of {source} is right in {figures['classical']:.2f} % of the validation images as "
            f"imported, near chance ({100 / architecture.classes:g} %): see --norm-epsilon, --mean, --std, "
            "--pixel-scale and --order, and whether its pooling is the architecture's; --accept-import goes on as it is"
        )
    return figures
