# SPDX-License-Identifier: Apache-2.0
"""Functions of products of codes by table, against what they stand for, in both implementations."""

import pytest
import torch

from bmhw.models.operators import tables
from bmhw.models.operators.native_build import library
from bmhw.models.operators.tables import LARGEST_FRACTION, plain_table_differences, product_table, table_differences


def exponents(products, fraction):
    """s of the product 2^(s / 2^F); -1 of 0. With a logarithm, which is off by its own rounding."""
    s = torch.floor(torch.log2(products.clamp(min=2.0**-120)) * (1 << fraction) + 0.5)
    return torch.where(products > 2.0**-110, s, -1e6)


@pytest.mark.parametrize("fraction", range(LARGEST_FRACTION + 1))
def test_every_sum_of_two_codes_is_found(fraction):
    """However their values and the product are rounded."""
    s = torch.arange(-8 << fraction, (1 << fraction) + 1)
    half = s // 2
    values = [torch.exp2(part.float() / (1 << fraction)) for part in (half, s - half)]
    table = product_table(lambda products: exponents(products, fraction))
    for off in (-2.0**-22, 0.0, 2.0**-22):
        products = (values[0] * values[1] * (1 + off)).view(1, -1, 1, 1)
        pairs = torch.cat([products, torch.full_like(products, 1.0)], dim=1)
        assert torch.equal(table_differences(pairs, table).flatten(), s.float())
    assert product_table(lambda products: products == 0).sum() == product_table(lambda products: products == 0)[0] == 1
    zeros = torch.zeros(1, 2, 1, 1)
    zeros[0, 1] = 1.0
    assert float(table_differences(zeros, table)) == -1e6


def test_a_zero_may_have_a_sign():
    """As PyTorch's own maxima give one."""
    products = torch.tensor([-0.0, 1.0]).view(1, 2, 1, 1)
    table = product_table(lambda values: torch.where(values > 0, values, 7.0))
    expected = table[0] - table[torch.tensor(1.0).view(torch.int32) >> tables.SHIFT]
    for found in (table_differences(products, table), plain_table_differences(products, table, 1)):
        assert float(found) == float(expected)


@pytest.mark.parametrize("groups", [1, 3])
def test_differences_are_summed_over_the_groups(groups):
    assert not isinstance(library("tables"), str), "needs a C++ compiler"
    generator = torch.Generator().manual_seed(0)
    products = torch.exp2(-torch.randint(0, 30, (2, 2 * 5 * groups, 4, 3), generator=generator) / 4)
    products *= torch.rand(products.shape, generator=generator) < 0.8
    table = product_table(lambda values: (values * 1000).round())
    expected = torch.zeros(2, 5, 4, 3)
    for output in range(5):
        for group in range(groups):
            first, second = (products[:, (side * 5 + output) * groups + group] for side in (0, 1))
            bins = [side.view(torch.int32) >> tables.SHIFT for side in (first, second)]
            expected[:, output] += table[bins[0]] - table[bins[1]]
    for found in (table_differences(products, table, groups), plain_table_differences(products, table, groups)):
        assert torch.equal(found, expected) and expected.any()
    wide = products.contiguous(memory_format=torch.channels_last)
    assert torch.equal(table_differences(wide, table, groups), expected)
