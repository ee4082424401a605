# SPDX-License-Identifier: Apache-2.0
"""Streams of numbers through a block, in Amaranth's own simulator."""

import numpy as np
from amaranth.sim import Simulator

__all__ = ["collected"]


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
