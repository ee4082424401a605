# SPDX-License-Identifier: Apache-2.0
"""Training with weights whose signs are wires (layout ``wired``)."""

from collections.abc import Mapping

import torch
from torch import nn

from .layers import wired_signs, with_signs

__all__ = ["Wiring"]


class Wiring:
    """The signs that the weights of a network's ``wired`` layers have now; :meth:`apply` gives them back after a step.

    ``layouts``: layer name -> layout. A weight that would change its sign gets the smallest magnitude of its own
    (projected gradient), so that it can grow again.
    """

    def __init__(self, network: nn.Module, layouts: Mapping[str, str]):
        wired = [network.steps[name] for name, layout in layouts.items() if layout == "wired"]
        self.signs = [(step.weight, wired_signs(step.weight, getattr(step, "groups", 1))) for step in wired]

    @torch.no_grad()
    def apply(self) -> None:
        for weight, signs in self.signs:
            weight.copy_(with_signs(weight, signs))
