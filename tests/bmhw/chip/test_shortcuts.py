# SPDX-License-Identifier: Apache-2.0
"""How deep a shortcut's FIFO must be: the depth that works and the one at full speed, against the network itself."""

import pytest
from support.chips import IMAGES, assembly_of, made

from bmhw.chip.bench import Bench, Difference
from bmhw.chip.folding import assembled

IDENTITY, STRIDED = "stage0_shortcut_fifo", "stage1_shortcut_fifo"
CHANNELS = 4
ROWS = 8


def built(assembly, folder, **options):
    bench = Bench(assembly, folder, limits=True)
    bench.build(**options)
    return bench


@pytest.fixture(scope="module", params=["residual", pytest.param("bottleneck", marks=pytest.mark.long)])
def bench(request, tmp_path_factory):
    """Branches whose layers all take the cycles of the slowest one, and such with kernels of 1 x 1 that take fewer."""
    bench = built(assembly_of(made(request.param), 2), tmp_path_factory.mktemp("bench"))
    shares = {layer.shape.cycles / bench.plan.cycles for layer in bench.plan.layers if "_conv" in layer.name}
    assert max(shares) == 1 and (min(shares) == 1) == (request.param == "residual")
    return bench


def rate(bench, **depths):
    return bench.run(IMAGES[:4], depths=depths).cycles_per_image


def channels_of(bench, fifo):
    """Of a pixel in a FIFO."""
    reader = next(reader for (reader, _), wire in bench.assembly.sources.items() if wire.part == fifo)
    layer = bench.assembly.blocks[reader][1].get("folded")
    return CHANNELS if layer is None else layer.shape.channels


def test_two_pixels_less_than_the_fast_depth_are_slower(bench):
    """What queues of results and windows of single pixels hold can make up for one, where a pixel is this small."""
    depths = {name: depth.fast for name, depth in bench.assembly.fifos.items()}
    fast = rate(bench, **depths)
    # two cycles for each row of the map, as without a shortcut
    assert fast <= bench.plan.cycles + 2 * ROWS
    for name in depths:
        assert rate(bench, **{**depths, name: depths[name] - 2 * channels_of(bench, name)}) > fast


def test_with_the_working_depth_it_works(bench):
    depths = {name: depth.working for name, depth in bench.assembly.fifos.items()}
    assert bench.run(IMAGES[:3], depths=depths, gaps=30, seed=1).cycles


@pytest.mark.parametrize("bench", ["residual"], indirect=True)
def test_with_less_than_the_working_depth_it_stops(bench):
    depths = {name: depth.working for name, depth in bench.assembly.fifos.items()}
    assert bench.run(IMAGES[:3], depths={**depths, IDENTITY: depths[IDENTITY] - 1}).cycles
    with pytest.raises(Difference, match=r"^stuck: no number moved in the .* each part has given: stem_codes \d+, "):
        bench.run(IMAGES[:1], depths={**depths, IDENTITY: depths[IDENTITY] - 2})
    # a layer in the shortcut keeps two pixels itself; one more number has its place in front of the FIFO
    kept = 2 * CHANNELS + 1
    assert bench.run(IMAGES[:3], depths={**depths, STRIDED: depths[STRIDED] - kept}).cycles
    with pytest.raises(Difference, match=r"^stuck"):
        bench.run(IMAGES[:1], depths={**depths, STRIDED: depths[STRIDED] - kept - 1})


@pytest.mark.long
def test_a_shipped_network_is_at_full_speed_and_a_pixel_less_is_slower(tmp_path):
    """Behind the stride a row comes at once, and none for the next row: more than two rows wait."""
    bench = built(assembled("digits-signed-4bit", 50000, []), tmp_path, images=100)
    images = bench.network.samples[:4]
    depths = {name: depth.fast for name, depth in bench.assembly.fifos.items()}
    fast = bench.run(images, depths=depths).cycles_per_image
    assert fast <= bench.plan.cycles + 2 * ROWS
    for name in depths:
        assert bench.run(images, depths={**depths, name: depths[name] - 16}).cycles_per_image > fast
