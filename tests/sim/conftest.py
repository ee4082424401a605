# SPDX-License-Identifier: Apache-2.0
"""Builds of the tests stay out of the user's cache; a small stand-in for a trained network."""

from types import SimpleNamespace

import numpy as np
import pytest

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """One cache for the session: Verilator's run-time library is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BMHW_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("SIM", raising=False)
        yield


class StandInNetwork:
    """Layers ``conv`` (BM) and ``dense`` (MAC) with random weights, in the shape of a trained network."""

    def __init__(self):
        self.formats = {"conv": BmFormat(inputs=9, bits=5), "dense": MacFormat(inputs=4, bits=5)}

    def neuron_vectors(self, layer, channel, count, seed=0):
        from bmhw.models import ModelError

        if layer not in self.formats:
            raise ModelError(f"Layer must be one of {', '.join(self.formats)}, not {layer!r}")
        if channel > 3:
            raise ModelError(f"Channel must be 0 or more, up to 3, not {channel}")
        number_format = self.formats[layer]
        generator = np.random.default_rng([seed, channel])
        inputs = {}
        for port, (code, elements) in number_format.inputs_of.items():
            shape = {"x": (count, elements), "bias": ()}.get(port, (elements,))
            inputs[port] = generator.integers(
                code.minimum, code.maximum, shape, dtype=np.int64, endpoint=True
            )
        expected = number_format.compute(**inputs)
        slots = np.arange(number_format.inputs)
        return SimpleNamespace(
            format=number_format, inputs=inputs, expected=expected, real=expected + 0.25, slots=slots
        )


@pytest.fixture
def stand_in(monkeypatch):
    """``bmhw.models.load`` knows the network ``stand-in`` and no other."""
    import bmhw.models

    network, load = StandInNetwork(), bmhw.models.load
    monkeypatch.setattr(bmhw.models, "load", lambda name: network if name == "stand-in" else load(name))
    return network
