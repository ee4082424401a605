# SPDX-License-Identifier: Apache-2.0
"""What a training run depends on."""

from dataclasses import dataclass, field

from bmhw.models.files.conventions import Conventions
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.neuron_kinds import neuron_kinds

from .methods import LARGEST_NORM

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run depends on; the same settings give the same weights on the same machine and versions, with as many
    threads and powers of the same precision (``BMHW_POWERS``): the log names these.

    ``epochs`` and ``rates`` (Adam's largest step): one value a phase. ``layout``: see ``Architecture.layouts``;
    ``neurons``: of layers that are something else, as ``neuron_kinds`` reads them (their widths are in the
    quantisation). ``soft``: weight of the teacher's soft labels against the labels;
    ``temperature`` of the soft labels; ``clip``: largest norm of the gradient; ``translate``: random shifts
    in pixels; ``mirror``: each image is turned left to right with a chance of one half. ``validation``: training
    images that no phase learns from; each epoch's accuracy is measured on them. ``epoch_images``: images of an
    epoch, drawn anew for each (None: all). ``initial``: SHA-256 of the file that the weights start from; ``border``:
    the pixels that its first layer pads images with (see ``Node``), ``conventions``: what was folded into somebody
    else's weights (None: they are this package's own).
    ``teacher``: of the file with the classical network, where that is another one. ``method``: of the bm phase, a key
    of ``methods.METHODS``; ``norm``: the largest p of its p-norms. The groups of the BM network are those of the
    quantisation.
    """

    dataset: str
    architecture: str
    layout: str = "auto"
    neurons: tuple[str, ...] = ()
    seed: int = 0
    epochs: tuple[int, int, int] = (10, 10, 3)
    rates: tuple[float, float, float] = (2e-3, 2e-2, 1e-3)
    batch: int = 32
    warmup: float = 0.1
    soft: float = 0.7
    temperature: float = 2.0
    clip: float = 1.0
    translate: int = 1
    mirror: bool = False
    calibration: int = 1000
    validation: int = 200
    epoch_images: int | None = None
    initial: str | None = None
    border: tuple[float, ...] = ()
    conventions: Conventions | None = None
    teacher: str | None = None
    method: str = "at-once"
    norm: float = LARGEST_NORM
    quantisation: Quantisation = field(default_factory=Quantisation)

    def layouts(self, architecture: Architecture) -> dict[str, str]:
        """What each layer's neurons are, name -> layout."""
        kinds = neuron_kinds(self.neurons)
        return architecture.layouts(self.layout, {name: kind.layout for name, kind in kinds.items()})

    @property
    def only_macs(self) -> bool:
        """Whether it has no BM layer."""
        return {self.layout, *(kind.layout for kind in neuron_kinds(self.neurons).values())} == {"mac"}
