# SPDX-License-Identifier: Apache-2.0
"""Images of weights: what is written of them and when, broken ones, pauses, resets, images of pixels between them."""

import dataclasses
import zlib

import numpy as np
import pytest
from support.streams import collected, moves_behind_registers, run_bench

from bmhw.hdl.formats.codes import LinearCode, LogCode
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.hdl.network.edge import Chip
from bmhw.hdl.network.encoder import ChannelCode, Encoder
from bmhw.hdl.network.loading import Loader, LoadLayout, checksum
from bmhw.hdl.network.network import Part
from bmhw.hdl.network.pixels import LargestIndex, Rectifier
from bmhw.hdl.network.requantizer import ChannelScale, Requantization, Requantizer
from bmhw.hdl.network.streams import Skid
from bmhw.hdl.network.tables import Form, Numbers, OutOfSpanError, Span, Table
from bmhw.hdl.technology import Memory

WIDTHS = {"narrow": (3, 5), "wide": (4, 70), "bit": (5, 1), "last": (2, 32)}
"""Words and bits of the memories of a layout."""
LAYOUT = LoadLayout(0xC0DE1234, tuple((name, Memory(*of)) for name, of in WIDTHS.items()))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def tables(rng):
    return {name: Table(bits, tuple(int.from_bytes(rng.bytes(16), "little") & ((1 << bits) - 1) for _ in range(words)))
            for name, (words, bits) in WIDTHS.items()}


def loaded(sent, rng, *, pauses=False, resets=()):
    """What a loader writes of each row of words with its end, and what it says behind it: ([[(memory, address, word)]],
    [(done, error)]). ``resets``: for the first rows, behind how many words it is reset."""
    block, writes, said, resets = Loader(layout=LAYOUT), [], [], list(resets)

    async def bench(ctx, rst):

        async def cycle():
            _, _, took, write, address, data = await ctx.tick().sample(
                block.i.valid & block.i.ready, block.load_write, block.load_address, block.load_data)
            if write:
                assert write & (write - 1) == 0
                name = LAYOUT.sections[write.bit_length() - 1].name
                writes[-1].append((name, address, data & ((1 << WIDTHS[name][1]) - 1)))
            return took

        for words in sent:
            writes.append([])
            reset = resets.pop(0) if resets else None
            for at, word in enumerate(words):
                while pauses and rng.random() < 0.4:
                    await cycle()
                ctx.set(block.i.payload, word | (at == len(words) - 1) << 32)
                ctx.set(block.i.valid, 1)
                while not await cycle():
                    pass
                ctx.set(block.i.valid, 0)
                assert at < 2 or not ctx.get(block.done)
                if at + 1 == reset:
                    ctx.set(rst, 1)
                    await cycle()
                    ctx.set(rst, 0)
                    break
            for _ in range(2):
                await cycle()
            said.append((ctx.get(block.done), ctx.get(block.error)))
            assert not ctx.get(block.busy)

    run_bench(block, bench)
    return writes, said


def words_of(of):
    return [(name, address, word) for name, table in of.items() for address, word in enumerate(table.words)]


def test_an_image_is_header_memories_and_checksum(rng):
    of = tables(rng)
    image = LAYOUT.image(of)
    assert len(image) == LAYOUT.length == 2 + 3 + 4 * 3 + 5 + 2 and image[0] == 0xC0DE1234
    assert [section.first for section in LAYOUT.sections] == [1, 4, 16, 21]
    assert image[4] | image[5] << 32 | image[6] << 64 == of["wide"].words[0]
    assert image[-1] == zlib.crc32(b"".join(word.to_bytes(4, "little") for word in image[:-1]))
    with pytest.raises(ValueError, match=r"Memory bit has .*words=5.* not .*words=4"):
        LAYOUT.image({**of, "bit": Table(1, (0,) * 4)})


@pytest.mark.parametrize("pauses", [False, True])
def test_every_word_is_written_once_and_in_its_place(rng, pauses):
    first, second = tables(rng), tables(rng)
    writes, said = loaded([LAYOUT.image(first), LAYOUT.image(second)], rng, pauses=pauses)
    assert writes == [words_of(first), words_of(second)] and said == [(1, 0)] * 2


def test_a_broken_image_is_an_error_until_a_good_one(rng):
    of = tables(rng)
    good = LAYOUT.image(of)
    rows = [row for at in range(1, len(good)) for row in (
        [*good[:at], good[at] ^ 1 << int(rng.integers(32)), *good[at + 1:]], good)]
    writes, said = loaded(rows, rng)
    assert said == [(0, 1), (1, 0)] * (len(good) - 1)
    assert writes[1::2] == [words_of(of)] * (len(good) - 1)


def test_an_image_of_another_chip_is_dropped_whole(rng):
    of = tables(rng)
    good = LAYOUT.image(of)
    other = [good[0] ^ 4, *good[1:-1]]
    writes, said = loaded([[*other, checksum(other)], good[:1], good], rng)
    assert said == [(0, 1), (0, 1), (1, 0)] and writes == [[], [], words_of(of)]


def test_an_image_of_another_length_is_an_error(rng):
    of = tables(rng)
    good = LAYOUT.image(of)
    # its last word is the checksum of those before it
    rows = [good[:1], good]
    for length in range(2, len(good)):
        rows += [[*good[:length - 1], checksum(good[:length - 1])], good]
    for more in ([0], [0, 0], [good[-1]], list(good)):
        rows += [[*good, *more], good, [*good, *more, checksum([*good, *more])], good]
    writes, said = loaded(rows, rng)
    assert said == [(0, 1), (1, 0)] * (len(rows) // 2)
    assert writes[1::2] == [words_of(of)] * (len(rows) // 2) and writes[-2] == words_of(of)


def test_a_reset_in_the_middle_begins_anew(rng):
    of = tables(rng)
    good = LAYOUT.image(of)
    resets = [reset for at in range(1, len(good)) for reset in (at, None)]
    writes, said = loaded([good] * len(resets), rng, resets=resets)
    assert said == [(0, 0), (1, 0)] * (len(resets) // 2)
    assert writes[1::2] == [words_of(of)] * (len(resets) // 2)
    # a reset takes what was said back, not what was written
    _, said = loaded([[*good[:-1], good[-1] ^ 1], good, good], rng, resets=[None, 2])
    assert said == [(0, 1), (0, 0), (1, 0)]


# -- a chip: its class is the number that is the furthest above its threshold

PIXELS = 4
RECTIFIER = {"width": 9, "out_width": 12}


def chip_and_images(rng):
    """A chip, and thresholds with their images; the first ones are those it begins with."""
    sets = [tuple((int(t), bool(n)) for t, n in zip(rng.integers(0, 200, PIXELS), rng.integers(0, 2, PIXELS),
                                                    strict=True)) for _ in range(4)]
    widest = Rectifier(channels=((255, True), (-255, False)) * (PIXELS // 2), **RECTIFIER)
    form = widest.open_form()
    blocks = [Rectifier(channels=channels, form=form, **RECTIFIER) for channels in sets]
    layout = LoadLayout(77, tuple(blocks[0].memories.items()))
    parts = (Part(name="norm", kind=Rectifier, inputs=(("i", ("", "")),),
                  parameters=(("channels", sets[0]), ("form", form), *RECTIFIER.items())),
             Part(name="class", kind=LargestIndex, inputs=(("i", ("norm", "o")),),
                  parameters=(("width", 12), ("shifts", (0,) * PIXELS))))
    chip = Chip(parts=parts, pixels=PIXELS, channels=1, layout=layout)
    return chip, sets, [layout.image(block.loads) for block in blocks]


def result_of(image, channels):
    """The class, and whether the image has another length."""
    whole = [*image, *[0] * PIXELS][:PIXELS]
    numbers = [max(0, threshold - int(pixel) if negative else int(pixel) - threshold)
               for pixel, (threshold, negative) in zip(whole, channels, strict=True)]
    return int(np.argmax(numbers)), int(len(image) != PIXELS)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reset", [None, 150, 333, 600])
def test_images_between_weights(seed, reset):
    """Pixels and weights are offered at the same time, with pauses: no word is taken while an image is in the chip, no
    pixel while weights come, and each image's class is that of the weights that were there when it began, be it too
    short or too long."""
    rng = np.random.default_rng(seed)
    chip, sets, images = chip_and_images(rng)
    want, changes = [], 0

    def image():
        return rng.integers(0, 256, rng.choice([1, 2, PIXELS, PIXELS, PIXELS, PIXELS + 1, PIXELS + 3]))

    async def send_again(ctx, words):
        for word, value in enumerate(words):
            ctx.set(chip.s_load_tdata, value)
            ctx.set(chip.s_load_tlast, word == len(words) - 1)
            ctx.set(chip.s_load_tvalid, 1)
            while not (await ctx.tick().sample(chip.s_load_tready))[2]:
                pass
        ctx.set(chip.s_load_tvalid, 0)

    async def bench(ctx, rst):
        nonlocal changes
        # the weights that are there, and those that are sent; places in the image and in the weights that are sent
        current, which, pixels, at, word, under_way = 0, 1, image(), 0, 0, 0
        for cycle in range(1500):
            resetting = cycle == reset
            ctx.set(rst, resetting)
            if not ctx.get(chip.s_axis_tvalid) and rng.random() < 0.8:
                ctx.set(chip.s_axis_tdata, int(pixels[at]))
                ctx.set(chip.s_axis_tlast, at == len(pixels) - 1)
                ctx.set(chip.s_axis_tvalid, 1)
            offers = word or rng.random() < 0.02
            if not ctx.get(chip.s_load_tvalid) and offers and rng.random() < 0.8:
                ctx.set(chip.s_load_tdata, images[which][word])
                ctx.set(chip.s_load_tlast, word == len(images[which]) - 1)
                ctx.set(chip.s_load_tvalid, 1)
            ctx.set(chip.m_axis_tready, bool(rng.random() < 0.6))
            _, _, takes_pixel, takes_word, leaves, data, user = await ctx.tick().sample(
                chip.s_axis_tvalid & chip.s_axis_tready, chip.s_load_tvalid & chip.s_load_tready,
                chip.m_axis_tvalid & chip.m_axis_tready, chip.m_axis_tdata, chip.m_axis_tuser)
            if leaves and not resetting:
                assert (data, user) == want.pop(0)
                under_way -= 1
            if takes_pixel:
                assert not word, "a pixel is taken while weights come"
                at += 1
                ctx.set(chip.s_axis_tvalid, 0)
                if at == min(len(pixels), PIXELS):  # a result may leave before the end of a long image
                    want.append(result_of(pixels, sets[current]))
                    under_way += 1
                if at == len(pixels):
                    pixels, at = image(), 0
            if takes_word:
                assert not at and not under_way, "a word is taken while an image is in the chip"
                word += 1
                ctx.set(chip.s_load_tvalid, 0)
            if word == len(images[which]):
                current, which, word, changes = which, int(rng.integers(len(images))), 0, changes + 1
            if resetting:
                want.clear()
                at = under_way = 0
                for signal in (rst, chip.s_axis_tvalid, chip.s_load_tvalid):
                    ctx.set(signal, 0)
                if word:  # what is there is undefined until a whole image
                    await send_again(ctx, images[which])
                    current, word = which, 0
        assert not ctx.get(chip.load_error) and changes > 3

    run_bench(chip, bench)


def test_no_path_leads_through_the_edge(rng):
    """Whatever the inputs are within a cycle, no output moves."""
    chip, _, _ = chip_and_images(rng)
    inputs = [chip.s_axis_tdata, chip.s_axis_tvalid, chip.s_axis_tlast, chip.m_axis_tready, chip.s_load_tdata,
              chip.s_load_tvalid, chip.s_load_tlast]
    outputs = [chip.s_axis_tready, chip.m_axis_tvalid, chip.m_axis_tdata, chip.s_load_tready, chip.load_done,
               chip.load_error]
    assert {0, 1, 3, 5} <= moves_behind_registers(chip, inputs, outputs, rng)[1]


def test_as_many_images_wait_in_the_chip_as_it_counts(rng):
    """Where every beat is an image and no result is taken: weights wait until the last one has left."""
    chip, sets, images = chip_and_images(rng)
    want, taken = [], 0

    async def bench(ctx, rst):
        nonlocal taken
        ctx.set(chip.s_axis_tvalid, 1)
        ctx.set(chip.s_axis_tlast, 1)
        for _ in range(200):
            pixel = int(rng.integers(0, 256))
            ctx.set(chip.s_axis_tdata, pixel)
            *_, takes = await ctx.tick().sample(chip.s_axis_tready)
            if takes:
                want.append(result_of([pixel], sets[0]))
        ctx.set(chip.s_axis_tvalid, 0)
        ctx.set(chip.s_load_tvalid, 1)
        ctx.set(chip.s_load_tdata, images[1][0])
        taken = len(want)
        while want:
            ready = bool(rng.random() < 0.2)
            ctx.set(chip.m_axis_tready, ready)
            *_, words, valid, data, user = await ctx.tick().sample(
                chip.s_load_tready, chip.m_axis_tvalid, chip.m_axis_tdata, chip.m_axis_tuser)
            assert not words, f"a word is taken while {len(want)} images are in the chip"
            if valid and ready:
                assert (data, user) == want.pop(0)
        for _ in range(4):
            *_, words = await ctx.tick().sample(chip.s_load_tready)
            if words:
                return
        raise AssertionError("weights wait though the chip is empty")

    run_bench(chip, bench)
    # both registers of each of the edge's four, the flags of two images, and one that is taken
    assert taken <= 4 * Skid.HELD + 2 + 1


# -- forms


def test_a_span_is_as_wide_as_its_numbers():
    assert (Span(0, 8).bits, Span(-8, 7).bits, Span(-1, 8).bits, Span(3, 3).constant) == (4, 4, 5, True)
    assert Span(-5, 3).whole == Span(-8, 7) and Span(1, 5).whole == Span(0, 7) and Span(4, 4).whole == Span(4, 4)


def test_what_a_form_has_no_room_for_is_named():
    form = Form.of({"biases": Span(-8, 7), "shift": Span(2, 4), "floors": Span(0, 0)})
    assert form.table("biases", Numbers((-8, 7))) == Table(4, (8, 7))
    assert form.table("shift", Numbers((2, 4), choice=True)) == Table(2, (0, 2))
    assert form.table("floors", Numbers((0, 0))) is None
    for name, entries, said in (("biases", (0, 8), "biases of channel 1 must be from -8 to 7, not 8"),
                                ("shift", (1, 2), "shift of channel 0 must be from 2 to 4, not 1"),
                                ("floors", (0, 1), "floors of channel 1 must be 0, not 1")):
        with pytest.raises(OutOfSpanError, match=f"^{said}$"):
            form.table(name, Numbers(entries))


def channel_code(rng, offset):
    end = LinearEnd(out_fraction=9, log=LogCode(bits=4, fraction=2), offset=offset, reach=2)
    return ChannelCode(end=end, threshold=int(rng.integers(-200, 200)), negative=bool(rng.integers(2)),
                       shift=int(rng.integers(0, 3)))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_codes_of_other_constants_in_the_form_of_an_encoder(relu, seed):
    """As one gives that is made for them."""
    rng = np.random.default_rng(seed)
    first = tuple(channel_code(rng, offset) for offset in (-6, 2, 1))
    first = (*first, *(ChannelCode(end=first[0].end, threshold=300 * sign, shift=shift)
                       for sign, shift in ((-1, 0), (1, 2))))
    other = tuple(channel_code(rng, int(rng.integers(-6, 3))) for _ in first)
    form = Encoder(width=11, channels=first, relu=relu).open_form()
    values = rng.integers(-1024, 1024, 60 * len(first)) >> rng.integers(0, 11, 60 * len(first))
    blocks = [Encoder(width=11, channels=other, relu=relu, **more) for more in ({}, {"form": form})]
    assert len(blocks[1].loads) > 5
    own, loaded_ones = (collected(block, values, len(values), seed=seed) for block in blocks)
    assert own == loaded_ones
    assert own != collected(Encoder(width=11, channels=first, relu=relu, form=form), values, len(values))


@pytest.mark.parametrize("multipliers", [(128, 255), (1, 2)], ids=["scale", "shift"])
def test_codes_of_other_constants_in_the_form_of_a_requantizer(rng, multipliers):
    code, values = LinearCode(bits=4), rng.integers(-1024, 1024, 300)

    def scales(shifts):
        return Requantization(code=code, relu=True, channels=tuple(
            ChannelScale(multiplier=int(rng.integers(*multipliers)), shift=shift, negative=bool(rng.integers(2)),
                         threshold=int(rng.integers(-200, 200))) for shift in shifts))

    base = 7 if multipliers[0] > 1 else 1
    first = scales(range(base, base + 5))
    far = dataclasses.replace(first.channels[0], threshold=200)
    form = Requantizer(width=11, to=dataclasses.replace(first, channels=(far, *first.channels[1:]))).open_form()
    to = scales((base + 1, base + 3, base, base + 1, base + 4))
    own, other = (collected(Requantizer(width=11, to=to, **more), values, len(values)) for more in ({}, {"form": form}))
    assert own == other and len(set(own)) > 8


