# SPDX-License-Identifier: Apache-2.0
"""Many words at once to one after the other."""

import numpy as np
import pytest
from support.streams import run_bench

from bmhw.hdl.network.serializer import Gather, Serializer


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize("words", [1, 2, 5, 9])
def test_words_leave_one_after_the_other(words, shifts):
    """Loads as close as they may be and further apart; steps with and without pauses between two of them."""
    block, rng = Serializer(width=4, words=words, shifts=shifts), np.random.default_rng(words)
    asked, shown = [], []  # (cycle, word)

    async def run(ctx, rst):
        cycle = 0

        async def tick(load=0, step=0, value=0):
            nonlocal cycle
            for signal, to in ((block.load, load), (block.step, step), (block.i, value)):
                ctx.set(signal, to)
            shown.append(ctx.get(block.o))
            await ctx.tick()
            cycle += 1

        waiting = [int(word) for word in rng.integers(0, 16, words)]
        await tick(load=1, value=sum(word << 4 * n for n, word in enumerate(waiting)))
        for close in (True, False, True, False):
            following = [int(word) for word in rng.integers(0, 16, words)]
            packed = sum(word << 4 * n for n, word in enumerate(following))
            for n, word in enumerate(waiting):
                if not close and n % 2:
                    await tick()
                asked.append((cycle, word))
                last = close and n == words - 1
                await tick(step=1, load=last, value=packed if last else 0)
            if not close:
                await tick(load=1, value=packed)
            waiting = following
        for _ in range(block.latency):
            await tick()

    run_bench(block, run)
    assert [shown[cycle + block.latency] for cycle, _ in asked] == [word for _, word in asked]


@pytest.mark.parametrize(("rows", "length"), [(2, 1), (2, 4), (3, 5), (4, 2)])
def test_rows_side_by_side_leave_one_after_the_other(rows, length):
    """As close as they may be and further apart."""
    block, rng = Gather(width=5, rows=rows, length=length), np.random.default_rng(rows)
    values, shown = rng.integers(0, 32, (4, rows, length)), []

    async def run(ctx, rst):
        async def tick(number=None):
            ctx.set(block.valid, number is not None)
            ctx.set(block.i, int(rng.integers(0, 1 << 5 * rows)) if number is None else
                    sum(int(value) << 5 * row for row, value in enumerate(number)))
            *_, valid, o = await ctx.tick().sample(block.o_valid, block.o)
            shown.append(o if valid else None)

        for time, value in enumerate(values):
            for number in value.T:
                await tick(number)
            for _ in range((rows - 1) * length + time):
                await tick()
        for _ in range(block.latency):
            await tick()

    run_bench(block, run)
    assert shown[:block.latency] == [None] * block.latency and shown[block.latency] is not None
    assert [number for number in shown if number is not None] == list(values.ravel())
