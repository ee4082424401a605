# SPDX-License-Identifier: Apache-2.0
"""The example of a network behind a UART: built, simulated from bit to bit, and its host's side on a terminal."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import random_network

from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder
from bmhw.sim import usable_simulators

EXAMPLE = Path(__file__).parents[2] / "examples" / "uart_digits"
SOURCES = ("top_tb.v", "top.v", "uart_rx.v", "uart_tx.v", "digits.v")


def build(folder, *options):
    subprocess.run([sys.executable, EXAMPLE / "build.py", "--out", folder, *options], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """With a network of two layers for images of 8 x 8 pixels in the place of the trained one."""
    net = Builder(1, 8, 8)
    net.dense("dense", net.norm(net.conv("conv", "image", 4, 3)), 10)
    architecture, images = net.build(), np.random.default_rng(3).integers(0, 256, (8, 1, 8, 8)).astype(np.uint8)
    quantisation = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=6, out_fraction=9)
    trained = random_network(architecture, architecture.layouts("signed"), groups=2)
    network = fold(trained, torch.tensor(images).float() / 256, quantisation).to_integer("tiny", images)
    folder = tmp_path_factory.mktemp("uart")
    save(network, folder, {"data": {"name": "noise"}, "accuracy": {}, "training": {}})
    return build(folder / "build", "--model", folder / "tiny.json", "--cycles", "2000")


def simulate(folder, cycles_per_bit=8, patience=4000):
    """What the bench prints."""
    if "icarus" not in usable_simulators():
        pytest.skip("needs Icarus")
    parameters = [f"-Ptop_tb.CYCLES_PER_BIT={cycles_per_bit}", f"-Ptop_tb.PATIENCE={patience}"]
    subprocess.run(["iverilog", "-g2005", "-s", "top_tb", *parameters, "-o", "top_tb", *SOURCES], cwd=folder,
                   check=True)
    return subprocess.run(["./top_tb"], cwd=folder, check=True, capture_output=True, text=True).stdout


def classes_in(folder):
    return [int(line, 16) for line in (folder / "digits_frames.hex").read_text().splitlines()[2:]]


def test_bits_of_images_become_bits_of_classes(built):
    printed = simulate(built)
    assert printed.splitlines()[-1] == "PASS: 4 answers"
    answers = re.findall(r"image \d: (\d) ", printed)
    assert list(map(int, answers)) == classes_in(built)[:4] and len(set(answers)) > 1


@pytest.mark.parametrize(("file", "pattern", "replacement"), [
    ("top.v", r"give_up <= quiet == PATIENCE - 1;", "give_up <= 0;"),
    ("top.v", r"\.rst\(rst \|\| give_up\)", ".rst(rst)"),
    ("uart_rx.v", r"\{line, data\[7:1\]\}", "{data[6:0], line}"),
])
def test_the_bench_finds_a_fault(built, tmp_path, file, pattern, replacement):
    for path in built.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text, count = re.subn(pattern, replacement, (tmp_path / file).read_text())
    assert count == 1
    (tmp_path / file).write_text(text)
    assert "FAIL" in simulate(tmp_path)


@pytest.mark.long
def test_the_trained_network(tmp_path):
    folder = build(tmp_path, "--cycles", "12000")
    assert simulate(folder, cycles_per_bit=20, patience=25000).splitlines()[-1] == "PASS: 4 answers"


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_the_hosts_side(built):
    """A terminal answers as the board does; where it is silent, the host says so."""
    board, line = os.openpty()
    images, classes, got = 4, classes_in(built)[:4], []

    def answer():
        for digit in classes[:-1]:
            data = b""
            while len(data) < 64:
                data += os.read(board, 64 - len(data))
            got.append(data)
            os.write(board, b"%d" % digit)

    # before anything is sent: the host's side makes the line one of bytes only when it opens it
    thread = threading.Thread(target=answer)
    thread.start()
    result = subprocess.run([sys.executable, EXAMPLE / "classify.py", os.ttyname(line),
                             built / "digits_images.hex"], capture_output=True, text=True, check=False, timeout=60)
    thread.join()
    pixels = bytes(int(line, 16) for line in (built / "digits_images.hex").read_text().splitlines()[2:])
    assert b"".join(got) == pixels[:(images - 1) * 64]
    assert result.stdout.split() == [str(digit) for digit in classes[:-1]]
    assert result.returncode == 1 and result.stderr.startswith("classify.py: no answer from /dev/")
    os.close(board)
    os.close(line)
