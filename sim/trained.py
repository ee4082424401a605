# SPDX-License-Identifier: Apache-2.0
"""One neuron of a trained network, with the real activations that it meets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError, UsageError
from bmhw.measure.selection import AUTO, choose

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat
    from bmhw.hdl.formats.mac import MacFormat
    from bmhw.hdl.neurons.design import Design

__all__ = ["MOST_VECTORS", "TrainedNeuron", "load_neuron"]

MOST_VECTORS = 100_000
"""What a command line accepts; more would only repeat the activations of the held-out images."""


@dataclass(frozen=True, kw_only=True)
class TrainedNeuron:
    """A neuron's format, its inputs (ports as ``design.format.compute`` takes them), its outputs.

    ``expected`` are the integers of the integer network, ``real`` the outputs of the same neuron in floating
    point, in the same units; both have one value a vector. ``slots``: which of the layer's inputs (input channel,
    kernel row, kernel column in C order) each element of the ports is.
    """

    model: str
    layer: str
    channel: int
    format: "MacFormat | BmFormat"
    inputs: dict[str, NDArray[np.int64]]
    expected: NDArray[np.int64]
    real: NDArray[np.float64]
    slots: NDArray[np.int64]

    def __str__(self) -> str:
        return f"{self.model}, layer {self.layer}, channel {self.channel}"

    def design(
        self,
        *,
        form: str,
        objective: str,
        registers: tuple[str, ...] | None = None,
        **architecture: str | None,
    ) -> "Design":
        """The neuron to build; what ``architecture`` leaves open (None, ``auto``) is chosen by the objective.

        :class:`UsageError` for an architecture of the other kind of neuron, and for registers where none can be.
        """
        from bmhw.hdl.neurons.design import Design

        given = {name: value for name, value in architecture.items() if value not in (None, AUTO)}
        chosen: dict[str, Any] = choose(self.format, objective, given, form)
        try:
            design = Design(format=self.format, form=form, registers=registers, **chosen)
        except ValueError as error:
            raise UsageError(str(error)) from error
        foreign, other = (("multiplier",), "mac") if design.neuron == "bm" else (("maximum", "end"), "bm")
        for name in foreign:
            if name in given:
                raise UsageError(
                    f"--{name.replace('_', '-')} {given[name]} needs a {other} layer; {self.layer} is {design.neuron}"
                )
        return design


def load_neuron(
    model: str, layer: str, channel: int, count: int, seed: int = 0, bits: int | None = None
) -> TrainedNeuron:
    """``count`` real activations of one neuron of the network called ``model``, of that which was trained in codes of
    ``bits`` bits (``trained_at``).

    :class:`UsageError` for an unknown network, width, layer or channel, :class:`RunError` for files that can't be
    loaded; each names what is valid.
    """
    try:
        from bmhw import models
        from bmhw.models.files.widths import trained_at
    except ImportError as error:
        raise RunError(
            f"trained networks need {error.name or 'more packages'}; "
            'install them with: pip install "bmhw[models]"'
        ) from None
    if bits is not None:
        model = trained_at(model, bits)
    network = models.load(model)
    try:
        vectors = network.neuron_vectors(layer, channel, count, seed)
    except models.ModelError as error:
        raise UsageError(str(error)) from None
    return TrainedNeuron(
        model=model,
        layer=layer,
        channel=channel,
        format=vectors.format,
        inputs=vectors.inputs,
        expected=vectors.expected,
        real=vectors.real,
        slots=vectors.slots,
    )
