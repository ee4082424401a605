# SPDX-License-Identifier: Apache-2.0
"""The compiled operators give the same bits on every machine: any instruction set, any number of threads."""

import platform

import numpy as np
import pytest
import torch

from bmhw.models.operators import maximum_of_sums, native, native_build, smoothed, tables
from bmhw.models.operators.max_product import max_product, max_product_difference
from bmhw.models.operators.precision import VARIABLE

BASELINES = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "armv8-a", "arm64": "armv8-a"}
"""What every processor of a kind can do: other registers, and on x86 no product and sum in one instruction."""


def results():
    """Of every compiled function, in both precisions: a few registers and a rest of columns, images for every part."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(37, 5, 6, 7, generator=generator).relu().requires_grad_()
    w = torch.randn(2, 19, 5, 3, 3, generator=generator).requires_grad_()
    found = []
    values = max_product(x, w[0], 1, 1, implementation="native")
    direction = torch.randn(values.shape, generator=generator)
    found += [values, *torch.autograd.grad(values, (x, w), direction)]
    for groups in (1, 5):
        values = max_product_difference(x, w, 1, 1, groups, implementation="native")
        found += [values, *torch.autograd.grad(values, (x, w), direction)]
    wide = torch.randn(5, 6, 17, 19, generator=generator).requires_grad_()
    pair = torch.randn(2, 7, 6, 1, 1, generator=generator).requires_grad_()
    values = max_product_difference(wide, pair, 1, 0, 2, implementation="native")
    gradient = torch.randn(values.shape, generator=generator)
    found += [values, *torch.autograd.grad(values, (wide, pair), gradient)]
    for precision in ("float32", "bfloat16"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, precision)
            # the steps alone: the convolution between them is PyTorch's
            dtype = smoothed.powers_dtype(x)
            x_scale, x_powers = smoothed._Compiled.powers(x.detach(), 15.0, dtype)
            w_scale, w_powers = smoothed._Compiled.powers(w.detach().abs().flatten(0, 1), 15.0, dtype)
        sums = torch.rand(37, 38, 6, 7, generator=generator)
        for _ in range(4):  # to the 16th power, which PyTorch's own takes by other ways in other threads
            sums = sums * sums
        sums = sums.to(dtype)
        sums = sums.contiguous(memory_format=torch.channels_last)
        for groups in (1, 2):  # of 19 outputs and of 9
            part = sums[:, : 38 // (2 * groups) * 2 * groups].contiguous(memory_format=torch.channels_last)
            scales = x_scale, w_scale[: part.shape[1]]
            values, quotients = smoothed._Compiled.difference(part, groups, 15.0, *scales)
            came = direction[:, : values.shape[1]].contiguous(memory_format=torch.channels_last)
            gradient = smoothed._Compiled.sums_gradient(came, groups, quotients, *scales)
            found += [values, quotients, gradient]
        # four groups of three channels, and no whole number of registers of rows
        few, rows = (torch.rand(3, 12, 5, 7, generator=generator), torch.rand(4 * 2 * 19, 3, 1, 1, generator=generator))
        few, rows = (values.to(dtype).contiguous(memory_format=torch.channels_last) for values in (few, rows))
        each = smoothed._Compiled.sums(few, rows, 1, 0, 4)
        found += [each, *smoothed._Compiled.powers_gradients(each, few, rows, 1, 0, 4, (True, True))]
        assert smoothed._Compiled.values_gradient(x_powers, x_powers, x.detach()).abs().sum() > 0
        found += [x_scale, x_powers, w_scale, w_powers]
        found.append(smoothed._Compiled.values_gradient(x_powers, x_powers, x.detach()))
    table = torch.randint(0, 1000, (1 << 16,), generator=generator).float()
    found.append(tables.table_differences(torch.rand(5, 12, 7, 9, generator=generator), table, 3))
    rng = np.random.default_rng(0)
    rows = maximum_of_sums.Rows(
        np.array([0, 20, 27]), rng.integers(0, 20, 27).astype(np.int32), rng.integers(0, 256, 27).astype(np.int16)
    )
    candidates = rng.integers(-255, 256, (20, 300)).astype(np.int16)
    found.append(torch.from_numpy(maximum_of_sums.maxima_of_rows(candidates, rows, torch.get_num_threads())))
    return [tensor.detach().clone() for tensor in found]


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b) and a.any()


@pytest.fixture
def compiled():
    assert native.unavailable_reason() is None, "needs a C++ compiler"


def test_any_number_of_threads_gives_the_same_bits(compiled):
    usual, expected = torch.get_num_threads(), None
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found = results()
            assert_same(found, expected or found)
            expected = found
    finally:
        torch.set_num_threads(usual)


def test_any_instruction_set_gives_the_same_bits(compiled, monkeypatch):
    expected, usual = results(), native_build.library
    baseline = BASELINES[platform.machine()]
    for module in (native, smoothed, maximum_of_sums, tables):
        monkeypatch.setattr(module, "library", lambda name: usual(name, baseline))
    assert usual("p_norm", baseline) is not usual("p_norm")
    assert_same(results(), expected)


def test_a_library_of_another_machine_or_compiler_is_not_loaded(compiled, monkeypatch, tmp_path):
    """The cache folder may lie on a disk that unlike machines share."""
    for variable in ("XDG_CACHE_HOME", "BMHW_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    build, usual, names = native_build.library.__wrapped__, native_build.target, []
    for other in ("", "", "#define __NOVEL_INSTRUCTIONS__ 1\n", '#define __VERSION__ "99"\n'):
        monkeypatch.setattr(native_build, "target", lambda command, other=other: usual(command) + other)
        names.append(build("maximum_of_sums")._name)
    assert names[0] == names[1] and len(set(names)) == 3
