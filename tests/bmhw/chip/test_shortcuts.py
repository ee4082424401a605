# SPDX-License-Identifier: Apache-2.0
"""How deep a shortcut's FIFO must be: the depth that works and the one at full speed, against the network itself."""

import pytest
from support.chips import IMAGES, assembly_of, made

from bmhw.chip.bench import Bench, Difference

IDENTITY, STRIDED = "stage0_shortcut_fifo", "stage1_shortcut_fifo"
CHANNELS = 4


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Both layers of each branch take the cycles of the slowest one: there a shortcut must be deepest."""
    bench = Bench(assembly_of(made("residual"), 2), tmp_path_factory.mktemp("bench"), limits=True)
    for block in ("stage0", "stage1"):
        layers = [layer.shape.cycles for layer in bench.plan.layers if layer.name.startswith(f"{block}_conv")]
        assert layers == [bench.plan.cycles] * 2
    bench.build()
    return bench


def rate(bench, **depths):
    return bench.run(IMAGES[:4], depths=depths).cycles_per_image


def test_a_pixel_less_than_the_fast_depth_is_slower(bench):
    depths = {name: depth.fast for name, depth in bench.assembly.fifos.items()}
    fast = rate(bench, **depths)
    # two cycles for each row of the map, as without a shortcut
    assert fast <= bench.plan.cycles + 2 * 8
    for name in depths:
        assert rate(bench, **{**depths, name: depths[name] - CHANNELS}) > fast


def test_with_the_working_depth_it_works_and_not_with_less(bench):
    depths = {name: depth.working for name, depth in bench.assembly.fifos.items()}
    assert bench.run(IMAGES[:3], depths=depths, gaps=30, seed=1).cycles
    assert bench.run(IMAGES[:3], depths={**depths, IDENTITY: depths[IDENTITY] - 1}).cycles
    with pytest.raises(Difference, match=r"^stuck: no number moved in the .* each part has given: stem_codes \d+, "):
        bench.run(IMAGES[:1], depths={**depths, IDENTITY: depths[IDENTITY] - 2})
    # a layer in the shortcut keeps two pixels itself; one more number has its place in front of the FIFO
    kept = 2 * CHANNELS + 1
    assert bench.run(IMAGES[:3], depths={**depths, STRIDED: depths[STRIDED] - kept}).cycles
    with pytest.raises(Difference, match=r"^stuck"):
        bench.run(IMAGES[:1], depths={**depths, STRIDED: depths[STRIDED] - kept - 1})
