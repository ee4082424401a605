# SPDX-License-Identifier: Apache-2.0
"""The order in which a folded layer reads its inputs."""

import itertools

import pytest

from bmhw.hdl.network.shape import LayerShape

SHAPES = {
    "padded": LayerShape(height=3, width=4, channels=4, kernel=(3, 3), padding=1, outputs=5, groups=2, parallel=2),
    "strided": LayerShape(height=6, width=5, channels=2, kernel=(3, 3), padding=1, stride=2, outputs=3, parallel=3),
    "pointwise": LayerShape(height=2, width=3, channels=6, outputs=4, groups=3, parallel=1),
    "dense": LayerShape(height=2, width=3, channels=4, kernel=(2, 3), outputs=3, groups=2, parallel=2),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_steps_of_the_address_lead_through_two_images(shape):
    """Against the address of each input by itself."""
    direct = []
    for image, y, x, _fold, group, row, column, channel in itertools.product(
            range(2), range(shape.out_height), range(shape.out_width), range(shape.folds), range(shape.groups),
            range(shape.kernel[0]), range(shape.kernel[1]), range(shape.group_channels)):
        line = image * shape.height + y * shape.stride - shape.padding + row
        place = x * shape.stride - shape.padding + column
        direct.append((line * shape.width + place) * shape.channels + group * shape.group_channels + channel)
    found, address = [], shape.first_address
    counts = {name: count for name, (count, _) in shape.loops.items()}
    for at in itertools.product(range(2), *(range(count) for count in reversed(counts.values()))):
        found.append(address)
        ended = itertools.takewhile(lambda loop: loop[1] == loop[0] - 1, zip(counts.values(), at[:0:-1], strict=True))
        address += shape.address_step((*counts, None)[len(list(ended))])
    assert found == direct
