# SPDX-License-Identifier: Apache-2.0
"""Values of linear integers' codes, in both implementations, against the format and autograd."""

import numpy as np
import pytest
import torch

from bmhw.hdl.formats.codes import LogCode
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.models.integer.folded_end import FoldedEncoder, FoldedEnd
from bmhw.models.networks.architecture import resnet_small
from bmhw.models.operators import encoding
from bmhw.models.operators.max_product import straight_through
from bmhw.models.operators.native_build import library

CHANNELS = 19
"""More than a register's and no multiple of it."""
LOG = LogCode(bits=4, fraction=2)
ENDS = {
    "saturating": LinearEnd(out_fraction=6, log=LOG, offset=3),
    "reaching": LinearEnd(out_fraction=6, log=LOG, offset=-5, reach=3),
    "shifted": LinearEnd(out_fraction=11, log=LOG, offset=-9, reach=4),
}
SHIFT = torch.arange(CHANNELS) % 3 - 1.0
FINE = torch.arange(CHANNELS) % 4
SMALLEST = 0.07


@pytest.fixture(params=["native", "plain"])
def implementation(request, monkeypatch):
    assert not isinstance(library("encoding"), str), "needs a C++ compiler"
    if request.param == "plain":
        monkeypatch.setattr(encoding, "_compiles", lambda y, found: False)
    return request.param


def code_values():
    values = torch.exp2((torch.arange(16.0) - 15) / 4)
    values[0] = SMALLEST
    return values


def node():
    """Of whatever size: it decides how fast the offset is learned."""
    return resnet_small(1, 8)["stem"]


def integers(end, low):
    """Each around what saturates, more than once a channel; (2, channels, 5, 7)."""
    torch.manual_seed(0)
    y = torch.randint(low, int(1.5 * end.full_scale), (2, CHANNELS, 5, 7)).float()
    y[:, :, 0, :3] = torch.tensor([0.0, 1.0, 1.0 * end.full_scale])
    return y


def integers_of_channel(end, y, channel):
    one = LinearEnd(out_fraction=end.out_fraction, log=LOG, offset=end.offset + int(FINE[channel]), reach=end.reach)
    return one.compute(np.abs(y[:, channel].numpy().astype(np.int64)))


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_codes_are_those_of_the_format(end, implementation):
    folded, y = FoldedEnd(end, code_values(), node(), FINE), integers(end, -end.full_scale // 4)
    found = folded(y)
    for channel in range(CHANNELS):
        expected = code_values()[torch.from_numpy(integers_of_channel(end, y.clamp(min=0), channel))]
        assert torch.equal(found[:, channel], expected)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_signs_are_kept_except_that_of_code_0(end, implementation):
    encoder = FoldedEncoder(end, code_values(), node(), SHIFT, FINE)
    y = integers(end, -end.full_scale)
    found = encoder(y)
    x = torch.floor(y * torch.exp2(-SHIFT).view(-1, 1, 1) + 0.5)
    assert not torch.equal(x, y) and (x < 0).any()
    for channel in range(CHANNELS):
        codes = torch.from_numpy(integers_of_channel(end, x, channel))
        negative = (x[:, channel] < 0) & (codes > 0)
        assert torch.equal(found[:, channel], torch.where(negative, -code_values()[codes], code_values()[codes]))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_gradients_are_those_of_what_is_rounded(end, signed, implementation):
    """Straight through all rounding, by autograd: of code 0, which has no sign, too."""
    y = integers(end, -end.full_scale if signed else -3).requires_grad_()
    scale = torch.exp2(-SHIFT) if signed else None
    folded = FoldedEnd(end, code_values(), node(), FINE)
    factor = torch.exp2((end.offset + FINE) / 4).requires_grad_()
    found = encoding.encoded(y, factor, folded._encoding(end.offset + FINE), scale)
    x = y
    if signed:
        scaled = y * scale.view(-1, 1, 1)
        x = straight_through(scaled, torch.floor(scaled + 0.5))
    real = torch.relu((x.abs() if signed else x) * 2.0**-end.out_fraction) * factor.view(-1, 1, 1)
    real = real.clamp(max=1) * (x.detach().sign() if signed else 1)
    gradient = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(real, (y, factor), gradient)
    gradients = torch.autograd.grad(found, (y, factor), gradient)
    assert torch.equal(gradients[0], expected[0])
    # sums of 70 numbers in another order
    torch.testing.assert_close(gradients[1], expected[1], rtol=1e-5, atol=1e-5)


def test_both_have_the_same_bits_with_any_number_of_threads(monkeypatch):
    end = ENDS["reaching"]
    y, threads = integers(end, -end.full_scale), torch.get_num_threads()
    results = []
    for compiles, count in ((True, 1), (True, 3), (False, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(encoding, "_compiles", lambda y, found, compiles=compiles: compiles)
            torch.set_num_threads(count)
            encoder = FoldedEncoder(end, code_values(), node(), SHIFT, FINE)
            inputs = y.clone().requires_grad_()
            encoder(inputs).square().sum().backward()
            results.append((inputs.grad, encoder.end.octaves.grad))
    torch.set_num_threads(threads)
    assert all(torch.equal(results[0][index], results[1][index]) for index in range(2))
    assert torch.equal(results[0][0], results[2][0])


def test_what_is_no_number_stays_none():
    """Else a loss would be finite."""
    end = ENDS["saturating"]
    y = integers(end, 0)
    y[0, 0, 0, 0] = torch.nan
    found = FoldedEnd(end, code_values(), node(), FINE)(y)
    assert found[0, 0, 0, 0].isnan() and found.isnan().sum() == 1
