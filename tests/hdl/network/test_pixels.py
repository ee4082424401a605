# SPDX-License-Identifier: Apache-2.0
"""What stands between the layers of a network, number for number, with and without pauses at both ends."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from support.streams import collected, run_bench

from bmhw.hdl.network.pixels import Grid, LargestIndex, Pool, Rectifier
from bmhw.hdl.network.streams import Add, Fifo, Fork, Skid

PAUSES = pytest.mark.parametrize("seed", [None, 1, 2])


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def signed(numbers, bits):
    return [int(number) - (int(number) >> (bits - 1) << bits) for number in numbers]


@PAUSES
def test_a_rectifier_has_a_threshold_and_a_sign_for_each_channel(rng, seed):
    channels = ((5, False), (-100, True), (0, True), (127, False))
    values = rng.integers(-128, 128, (50, 4))
    expected = [[max(0, (threshold - y) if negative else (y - threshold))
                 for y, (threshold, negative) in zip(row, channels, strict=True)] for row in values]
    found = collected(Rectifier(width=8, channels=channels, out_width=10), values.ravel(), values.size, seed=seed)
    assert found == list(np.ravel(expected))


@PAUSES
@pytest.mark.parametrize("stride", [2, 3])
def test_a_grid_keeps_every_pixel_on_it_and_no_other(rng, stride, seed):
    values = rng.integers(0, 256, (3, 5, 7, 2))
    expected = values[:, ::stride, ::stride].ravel()
    block = Grid(height=5, width=7, channels=2, stride=stride, bits=8)
    # pixels behind the last one on the grid are dropped, too
    assert collected(block, values.ravel(), expected.size, seed=seed) == list(expected)


@PAUSES
@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 2), (5, 7)])
def test_a_pool_adds_up_whole_windows(rng, kernel, channels, seed):
    values = rng.integers(-128, 128, (3, 5, 7, channels))
    rows, columns = 5 // kernel[0], 7 // kernel[1]
    cut = values[:, :rows * kernel[0], :columns * kernel[1]]
    expected = cut.reshape(3, rows, kernel[0], columns, kernel[1], channels).sum(axis=(2, 4))
    block = Pool(height=5, width=7, channels=channels, kernel=kernel, bits=8, out_bits=14)
    assert signed(collected(block, values.ravel(), expected.size, seed=seed), 14) == list(expected.ravel())


@PAUSES
def test_the_largest_is_the_first_one_of_equals(rng, seed):
    shifts = (0, 1, 0, 2, 0)
    values = rng.integers(-4, 4, (60, 5))
    expected = (values << np.array(shifts)).argmax(axis=1)
    assert len({tuple(np.flatnonzero(row == row.max())) for row in values << np.array(shifts)}) > 5  # ties
    found = collected(LargestIndex(width=4, shifts=shifts), values.ravel() & 15, len(values), seed=seed)
    assert found == list(expected)


@pytest.mark.parametrize("shifts", [(1, 0), (0,)])
def test_an_index_waits_while_the_next_row_comes(rng, shifts):
    """However seldom one is taken; of rows of one number, too."""
    values, found = rng.integers(-4, 4, (30, len(shifts))), []
    block = LargestIndex(width=4, shifts=shifts)
    numbers = list(values.ravel())

    async def bench(ctx, rst):
        for _ in range(60 * len(values)):
            ctx.set(block.i.payload, int(numbers[0] if numbers else 0))
            ctx.set(block.i.valid, bool(numbers))
            ctx.set(block.o.ready, bool(rng.random() < 0.1))
            *_, takes, valid, ready, index = await ctx.tick().sample(
                block.i.ready, block.o.valid, block.o.ready, block.o.payload)
            if takes and numbers:
                numbers.pop(0)
            if valid and ready:
                found.append(index)

    run_bench(block, bench)
    assert found == list((values << np.array(shifts)).argmax(axis=1))


@PAUSES
@pytest.mark.parametrize("block", [Skid(width=8), Fifo(width=8, depth=2), Fifo(width=8, depth=5),
                                   Fifo(width=8, depth=2, registered=True), Fifo(width=8, depth=5, registered=True)],
                         ids=lambda block: str(block._parameters))
def test_what_stores_numbers_keeps_them_and_their_order(rng, block, seed):
    kind, parameters = type(block), block._parameters
    values = rng.integers(0, 256, 300)
    assert collected(kind(**parameters), values, len(values), seed=seed) == list(values)


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 8])
def test_a_fifo_holds_as_many_as_it_says(depth, registered):
    block, taken = Fifo(width=8, depth=depth, registered=registered), []

    async def fill(ctx):
        ctx.set(block.i.valid, 1)
        for number in range(4 * depth + 10):
            ctx.set(block.i.payload, number)
            _, _, ready = await ctx.tick().sample(block.i.ready)
            taken.append(ready)
        assert ctx.get(block.level) == depth == sum(taken) and not ctx.get(block.i.ready)

    simulator = Simulator(block)
    simulator.add_clock(1e-6)
    simulator.add_testbench(fill)
    simulator.run()


def test_a_fork_gives_each_reader_each_number_once(rng):
    block = Fork(width=8, readers=3)
    numbers, got = list(rng.integers(0, 256, 200)), [[], [], []]

    async def run(ctx):
        at = 0
        for _ in range(3000):
            ctx.set(block.i.valid, (at < len(numbers) and rng.random() < 0.7) or bool(ctx.get(block.i.valid)))
            ctx.set(block.i.payload, int(numbers[at]) if at < len(numbers) else 0)
            for n in range(3):
                ctx.set(getattr(block, f"o{n}").ready, rng.random() < 0.5)
            samples = [getattr(block, f"o{n}") for n in range(3)]
            _, _, valid, ready, *shown = await ctx.tick().sample(
                block.i.valid, block.i.ready, *(s.valid & s.ready for s in samples), *(s.payload for s in samples))
            for n in range(3):
                if shown[n]:
                    got[n].append(shown[3 + n])
            if valid and ready:
                at += 1
                ctx.set(block.i.valid, 0)
                if at == len(numbers):
                    return

    simulator = Simulator(block)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    assert got == [numbers] * 3


@PAUSES
def test_a_residual_sum_shifts_each_channel_of_both(rng, seed):
    shifts = ((0, 2), (1, 0), (3, 1))
    block = Add(widths=(6, 5), shifts=shifts, width=12)
    first, second = rng.integers(-32, 32, (40, 3)), rng.integers(-16, 16, (40, 3))
    left, right = np.array(shifts).T
    expected = ((first << left) + (second << right)).ravel()
    got, at = [], [0, 0]

    async def run(ctx):
        streams = ((block.i0, first.ravel()), (block.i1, second.ravel()))
        for _ in range(4000):
            for n, (stream, numbers) in enumerate(streams):
                if at[n] < len(numbers) and not ctx.get(stream.valid) and (seed is None or rng.random() < 0.6):
                    ctx.set(stream.valid, 1)
                    ctx.set(stream.payload, int(numbers[at[n]]))
            ctx.set(block.o.ready, seed is None or rng.random() < 0.6)
            _, _, *moved, payload = await ctx.tick().sample(
                *(s.valid & s.ready for s in (block.i0, block.i1, block.o)), block.o.payload)
            for n, (stream, _) in enumerate(streams):
                if moved[n]:
                    at[n] += 1
                    ctx.set(stream.valid, 0)
            if moved[2]:
                got.append(payload)
            if len(got) == expected.size:
                return

    simulator = Simulator(block)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    assert signed(got, 12) == list(expected)
