# SPDX-License-Identifier: Apache-2.0
"""The two commands that ``bmhw train --help`` shows, run as they stand there; the rest is few images and a CPU."""

import json
import re
import shlex

import numpy as np
import pytest

from bmhw import train
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.training import datasets
from bmhw.models.training.datasets import Dataset

SMALL = ["--classical-epochs=1", "--bm-epochs=1", "--quantised-epochs=1", "--epoch-images=32", "--batch=16",
         "--validation-images=20", "--accept-import"]


def commands():
    text = train.parser().format_help().replace("\\\n", " ")
    return [shlex.split(line)[3:] for line in re.findall(r"^ *python -m bmhw\.train .*$", text, flags=re.MULTILINE)]


@pytest.fixture(autouse=True)
def photographs(monkeypatch):
    """Of noise, in the place of CIFAR-10; and a small network in the place of its own."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (160, 3, 32, 32), dtype=np.uint8), np.arange(160) % 10
    few = Dataset(name="cifar10", description="noise", train_images=images[:100], train_labels=labels[:100],
                  test_images=images[100:], test_labels=labels[100:])  # fmt: skip
    monkeypatch.setitem(datasets.DATASETS, "cifar10", lambda folder: few)
    for name in list(ARCHITECTURES):
        monkeypatch.setitem(ARCHITECTURES, name, lambda channels, size: resnet_small(channels, size, filters=4))


def test_the_commands_of_the_help_run(tmp_path):
    on_a_gpu, without_one = commands()
    assert on_a_gpu[on_a_gpu.index("--device") + 1] == "cuda" and "--device" not in without_one
    first, second = tmp_path / "first", tmp_path / "second"
    small = [option for option in SMALL if option != "--accept-import"]
    assert train.main([*on_a_gpu, *small, "--device=cpu", f"--out={first}", "--name=net"]) == 0
    words = [str(first / "net-float.safetensors") if word.startswith("NAME-float") else word for word in without_one]
    assert words != without_one
    assert train.main([*words, *SMALL, f"--out={second}", "--name=net"]) == 0
    for folder, layout in ((first, "auto"), (second, "signed")):
        training = json.loads((folder / "net.json").read_text())["training"]
        quantisation = training["quantisation"]
        assert training["layout"] == layout and quantisation["groups"] == 4
        assert (quantisation["log_bits"], quantisation["log_fraction"], quantisation["edge_bits"]) == (5, 2, 8)
