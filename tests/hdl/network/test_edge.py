# SPDX-License-Identifier: Apache-2.0
"""The edge of a chip: images of every length in, whole ones behind it, frames out, and resets at any time."""

import numpy as np
import pytest
from support.streams import collected, moves_behind_registers, run_bench

from bmhw.hdl.network.edge import Chip, Downsizer
from bmhw.hdl.network.network import Part
from bmhw.hdl.network.pixels import LargestIndex, Logits

PAUSES = pytest.mark.parametrize("seed", [None, 1, 2])
PIXELS, CHANNELS = 6, 3
NUMBERS = PIXELS * CHANNELS
SHIFTS = tuple(n % 3 for n in range(NUMBERS))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def chip(*, logits=False, **parameters):
    """A chip whose network takes each number of an image as the score of a class: nothing hides a wrong one."""
    kind, more = (Logits, (("bits", 32),)) if logits else (LargestIndex, ())
    part = Part(name="class", kind=kind, parameters=(("width", 9), ("shifts", SHIFTS), *more),
                inputs=(("i", ("", "")),))
    return Chip(parts=(part,), pixels=PIXELS, channels=CHANNELS, beats=1 + NUMBERS * logits, **parameters)


def expected(image, logits=False):
    """The beats (data, last, user) of an image of any length."""
    whole = np.zeros((PIXELS, CHANNELS), dtype=int)
    whole[:len(image)] = image[:PIXELS]
    numbers = whole.ravel() << np.array(SHIFTS)
    wrong = int(len(image) != PIXELS)
    return [(int(number), 0, 0) for number in numbers if logits] + [(int(numbers.argmax()), 1, wrong)]


def beats_of(image):
    return [(sum(int(value) << 8 * n for n, value in enumerate(pixel)), int(at == len(image) - 1))
            for at, pixel in enumerate(image)]


def images_of(rng, lengths):
    return [rng.integers(0, 256, (length, CHANNELS)) for length in lengths]


class Edge:
    """A chip in a simulation: what is sent and what comes, both with pauses where there is a ``seed``."""

    def __init__(self, block, *, seed=None, reset=None):
        self.block, self.reset_cycle, self.got, self.counts = block, reset, [], []
        self.rng, self.seed = np.random.default_rng(seed), seed

    def run(self, images, logits=False, limit=4000):
        """Send images and compare their frames, in :attr:`cycles`. At the reset, the image that is being sent and all
        that are under way are given up; the other ones follow."""
        queue, beats, want = [beats_of(image) for image in images], [], []
        want = [beat for image in images for beat in expected(image, logits)]
        block, waiting = self.block, None

        async def bench(ctx, rst):
            nonlocal queue, beats, want, waiting
            for self.cycles in range(limit):
                reset = self.cycles == self.reset_cycle
                if not beats and queue:
                    beats = queue.pop(0)
                if not ctx.get(block.s_axis_tvalid):
                    shows = bool(beats) and not self.pauses()
                    ctx.set(block.s_axis_tvalid, shows)
                    # what is there without tvalid is no beat
                    data, last = beats[0] if shows else (0x5A5A5A, 1)
                    ctx.set(block.s_axis_tdata, data)
                    ctx.set(block.s_axis_tlast, last)
                ctx.set(block.m_axis_tready, not self.pauses())
                ctx.set(rst, reset)
                _, _, sent, valid, ready, *beat = await ctx.tick().sample(
                    block.s_axis_tvalid & block.s_axis_tready, block.m_axis_tvalid, block.m_axis_tready,
                    block.m_axis_tdata, block.m_axis_tlast, block.m_axis_tuser)
                assert waiting is None or (valid and beat == waiting), "a beat moved before it was taken"
                waiting = beat if valid and not ready else None
                if sent:
                    beats.pop(0)
                    ctx.set(block.s_axis_tvalid, 0)
                if valid and ready:
                    self.got.append(tuple(int(value) for value in beat))
                if reset:
                    ctx.set(block.s_axis_tvalid, 0)
                    beats, waiting, self.got = [], None, []
                    want = [beat for image in images[len(images) - len(queue):] for beat in expected(image, logits)]
                    assert not ctx.get(block.m_axis_tvalid)
                if len(self.got) == len(want) and self.cycles > (self.reset_cycle or 0):
                    break
            assert self.got == want
            if block.counters:
                self.counts = [ctx.get(count) for count in (block.frames, block.input_stalls, block.output_stalls)]

        run_bench(block, bench)
        return self

    def pauses(self):
        return self.seed is not None and self.rng.random() < 0.4


@PAUSES
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_word_leaves_as_its_numbers_the_lowest_first(rng, count, seed):
    numbers = rng.integers(0, 256, 20 * count)
    words = [sum(int(n) << 8 * at for at, n in enumerate(row)) for row in numbers.reshape(-1, count)]
    assert collected(Downsizer(width=8, count=count), words, numbers.size, seed=seed) == list(numbers)


def test_numbers_leave_without_a_gap(rng):
    assert collected(Downsizer(width=8, count=3), [1] * 20, 60, cycles=64) == [1, 0, 0] * 20


@PAUSES
def test_logits_and_their_largest(rng, seed):
    values, shifts = rng.integers(-8, 8, (30, 5)), (0, 2, 1, 0, 3)
    shifted = values << np.array(shifts)
    want = [n % (1 << 16) for row in shifted for n in (*row, row.argmax())]
    found = collected(Logits(width=4, shifts=shifts, bits=16), values.ravel() & 15, len(want), seed=seed)
    assert found == want


def test_logits_must_have_room():
    with pytest.raises(ValueError, match="Bits of a logit must be an integer of 7 or more, not 6"):
        Logits(width=4, shifts=(0, 3), bits=6)


@PAUSES
@pytest.mark.parametrize("logits", [False, True])
def test_an_image_of_any_length_gives_one_frame(rng, logits, seed):
    Edge(chip(logits=logits), seed=seed).run(images_of(rng, [6, 6, 1, 6, 5, 7, 6, 20, 6, 4, 8, 6, 6]), logits)


def test_images_follow_without_a_gap(rng):
    """A number a cycle: the whole chip takes as long as there are numbers, but for what it takes once."""
    edge = Edge(chip()).run(images_of(rng, [6] * 10))
    # LargestIndex holds the next row back for two cycles
    assert edge.cycles <= 10 * (NUMBERS + 2) + 12


@pytest.mark.parametrize("logits", [False, True])
def test_nothing_from_before_a_reset_comes_behind_it(rng, logits):
    """A reset in every cycle of some images' way through the chip: of those behind it, every beat is right."""
    for reset in range(1, 100, 3):
        lengths = rng.choice([4, 6, 9], 9)
        edge = Edge(chip(logits=logits), seed=reset, reset=reset).run(images_of(rng, lengths), logits)
        assert edge.got


def test_stalls_and_frames_are_counted(rng):
    edge = Edge(chip(counters=True)).run(images_of(rng, [6] * 8))
    # a pixel is taken while the ones before it leave number by number; nothing waits for a reader that is always ready
    frames, input_stalls, output_stalls = edge.counts
    assert (frames, output_stalls) == (8, 0) and input_stalls > 7 * (NUMBERS - PIXELS)
    _, _, output_stalls = Edge(chip(counters=True), seed=5).run(images_of(rng, [6] * 8)).counts
    assert output_stalls > 0
    assert "frames" not in chip().ports


def test_no_path_leads_through_the_edge(rng):
    """Whatever the inputs are within a cycle, no output moves."""
    block = chip()
    inputs = [block.s_axis_tdata, block.s_axis_tvalid, block.s_axis_tlast, block.m_axis_tready]
    outputs = [block.s_axis_tready, block.m_axis_tvalid, block.m_axis_tdata, block.m_axis_tlast, block.m_axis_tuser]
    assert moves_behind_registers(block, inputs, outputs, rng)[0] > 100
