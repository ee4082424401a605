# SPDX-License-Identifier: Apache-2.0
"""Training with weights whose signs are wires (layout ``wired``)."""

from collections.abc import Mapping

import torch
from torch import nn

from .groups import Groups, groups_of
from .layers import wired_signs, with_signs

__all__ = ["Wiring"]


class Wiring:
    """The signs that the weights of a network's ``wired`` layers have now; :meth:`apply` gives them back after a step.

    ``layouts``: layer name -> layout, ``groups`` of the BM network, whose wiring its classical network has already. A
    weight that would change its sign gets the smallest magnitude of its own
    (projected gradient), so that it can grow again.
    """

    def __init__(self, network: nn.Module, layouts: Mapping[str, str], groups: Groups = 1):
        weights = [network.steps[name].weight for name, layout in layouts.items() if layout == "wired"]
        self.signs = [(w, wired_signs(w, groups_of(w.shape[-3], groups, w[0, 0].numel()))) for w in weights]

    @torch.no_grad()
    def apply(self) -> None:
        for weight, signs in self.signs:
            weight.copy_(with_signs(weight, signs))
