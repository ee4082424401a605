# SPDX-License-Identifier: Apache-2.0
"""``NAME=KIND``: what is read, and what is refused in one line."""

import pytest

from bmhw.models.errors import ModelUsageError
from bmhw.models.networks.neuron_kinds import neuron_kinds


def test_kinds_and_widths():
    found = neuron_kinds(["stem=mac8", "a=mac", "b=signed", "c=mac16", "d=wired"])
    assert found == {"stem": ("mac", 8), "a": ("mac", None), "b": ("signed", None), "c": ("mac", 16),
                     "d": ("wired", None)}
    assert neuron_kinds([]) == {}


@pytest.mark.parametrize(("entries", "said"), [
    (["stem"], "Neurons of a layer must be NAME=KIND, not 'stem'"),
    (["=mac"], "Neurons of a layer must be NAME=KIND, not '=mac'"),
    (["stem="], "Neurons of layer stem must be one of bipolar, relu, signed, wired, mac, macBITS, not ''"),
    (["stem=mac-4"], "Neurons of layer stem must be one of .*, not 'mac-4'"),
    (["stem=mac1"], "Width of layer stem must be from 2 to 16 bits, not 1"),
    (["stem=mac17"], "Width of layer stem must be from 2 to 16 bits, not 17"),
    (["stem=mac", "stem=mac4"], r"Neurons of layer stem must be given once, not twice \(stem=mac4\)"),
])  # fmt: skip
def test_what_is_no_kind(entries, said):
    with pytest.raises(ModelUsageError, match=f"^{said}"):
        neuron_kinds(entries)
