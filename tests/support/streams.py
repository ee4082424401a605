# SPDX-License-Identifier: Apache-2.0
"""Blocks with registers in Amaranth's own simulator: streams of numbers through them, and benches of their own."""

import numpy as np
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator

__all__ = ["collected", "moves_behind_registers", "run_bench"]


def collected(block, numbers, count, *, seed=None, cycles=None):
    """The ``count`` payloads that a block with streams ``i`` and ``o`` gives of ``numbers``; with a seed, both ends
    have random gaps. The payload and ``valid`` of the output must stay until they are taken."""
    rng = np.random.default_rng(seed)
    limit = cycles or 200 + 40 * (len(numbers) + count)
    taken = []

    def gap():
        return seed is not None and rng.random() < 0.4

    async def drive(ctx):
        for number in numbers:
            while gap():
                await ctx.tick()
            ctx.set(block.i.valid, 1)
            ctx.set(block.i.payload, int(number))
            while not (await ctx.tick().sample(block.i.ready))[2]:
                pass
            ctx.set(block.i.valid, 0)

    async def take(ctx):
        waiting = None
        for _ in range(limit):
            ready = not gap()
            ctx.set(block.o.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(block.o.valid, block.o.payload)
            assert waiting is None or (valid and payload == waiting), "an output moved before it was taken"
            waiting = int(payload) if valid and not ready else None
            if valid and ready:
                taken.append(int(payload))
            if len(taken) == count:
                return
        raise AssertionError(f"{len(taken)} of {count} numbers came in {limit} cycles")

    simulator = Simulator(block)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive, background=True)
    simulator.add_testbench(take)
    simulator.run()
    return taken


def run_bench(block, bench):
    """Run ``bench(context, reset)`` of a block, with a clock."""
    m = Module()
    m.domains.sync = domain = ClockDomain()
    m.submodules.block = block

    async def run(ctx):
        await bench(ctx, domain.rst)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


def moves_behind_registers(block, inputs, outputs, rng, cycles=600):
    """That no output moves within a cycle, whatever the inputs do; how often one moved from cycle to cycle, and the
    numbers of those that did."""
    moves, moved = 0, set()

    async def bench(ctx, rst):
        nonlocal moves
        before = None
        for _ in range(cycles):
            seen = set()
            for _ in range(6):
                for value in inputs:
                    ctx.set(value, int(rng.integers(0, 1 << len(value))))
                seen.add(tuple(ctx.get(value) for value in outputs))
            assert len(seen) == 1, "an output moved within a cycle"
            now = seen.pop()
            moves += now != before
            moved.update(n for n, value in enumerate(now) if before and value != before[n])
            before = now
            await ctx.tick()

    run_bench(block, bench)
    return moves, moved
