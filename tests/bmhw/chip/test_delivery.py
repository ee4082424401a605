# SPDX-License-Identifier: Apache-2.0
"""A network's files as their user meets them: the bench runs, finds faults and resets, and the bytes are the same."""

import re
import subprocess

import numpy as np
import pytest
import torch
from support.calls import command_of
from support.networks import random_network

from bmhw import network as command_line
from bmhw.chip import edge
from bmhw.deliver.together import recorded_command
from bmhw.flow.fpga import DEVICES
from bmhw.models.files.store import load, save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder
from bmhw.sim import usable_simulators

network_command = command_of(command_line)
QUANTISATION = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=6, out_fraction=9)
IMAGES = np.random.default_rng(3).integers(0, 256, (6, 2, 4, 4)).astype(np.uint8)
FILES = {"DATASHEET.md", "tiny.v", "tiny_tb.v", "tiny_images.hex", "tiny_frames.hex", "tiny.core", "tiny.sdc"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a network of two layers for images of 4 x 4 pixels and two channels."""
    net = Builder(2, 4, 4)
    net.dense("dense", net.norm(net.conv("conv", "image", 4, 3)), 5)
    architecture = net.build()
    trained = random_network(architecture, architecture.layouts("signed"), groups=QUANTISATION.groups)
    folded = fold(trained, torch.tensor(IMAGES).float() / 256, QUANTISATION).to_integer("tiny", IMAGES)
    folder = tmp_path_factory.mktemp("model")
    card = {"data": {"name": "noise", "test_images": 6}, "accuracy": {"bm_integer_accuracy": 12.5}, "training": {}}
    save(folded, folder, card)
    return str(folder / "tiny.json")


def deliver(model, folder, *options):
    result = network_command("--model", model, "--cycles", "600", "--out", str(folder), *options)
    assert (result.returncode, result.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def delivered(model, tmp_path_factory):
    return deliver(model, tmp_path_factory.mktemp("delivered"))


@pytest.fixture(scope="module")
def with_logits(model, tmp_path_factory):
    return deliver(model, tmp_path_factory.mktemp("logits"), "--logits", "--counters")


@pytest.fixture(scope="module")
def writable(model, tmp_path_factory):
    return deliver(model, tmp_path_factory.mktemp("writable"), "--weights", "writable", "--counters")


def run_bench(folder, *plusargs):
    """Status and output of the bench, as the data sheet says that it is run."""
    if "icarus" not in usable_simulators():
        pytest.skip("needs Icarus")
    compiled, run = re.search(r"`(iverilog .*?) && (\./.*?)`", (folder / "DATASHEET.md").read_text()).groups()
    subprocess.run(compiled.split(), cwd=folder, check=True)
    result = subprocess.run([*run.split(), *plusargs], cwd=folder, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["delivered", "with_logits", "writable"])
def test_the_bench_passes(kind, seed, request):
    """Whatever the pauses and resets are."""
    status, printed = run_bench(request.getfixturevalue(kind), f"+seed={seed}")
    assert status == 0 and printed.splitlines()[-1].startswith("PASS: tiny, ")
    latency, cycles = map(int, re.search(r"latency (\d+) cycles.*, (\d+) cycles an image", printed).groups())
    # as the data sheet computes them: two more cycles a row; the registers of five parts and the edge
    sheet = (request.getfixturevalue(kind) / "DATASHEET.md").read_text()
    figures = re.search(r"^\| an image.*? \| ([\d,]+) \|.*\n\| latency.*? \| ([\d,]+) \|", sheet, re.M).groups()
    computed, computed_latency = (int(figure.replace(",", "")) for figure in figures)
    assert computed <= cycles <= computed + 2 * 4 and computed_latency <= latency <= computed_latency + 6 * 15


def changed(folder, tmp_path, file, pattern, replacement):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text, count = re.subn(pattern, replacement, (tmp_path / file).read_text(), count=1)
    assert count == 1
    (tmp_path / file).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("file", "pattern", "replacement"), [
    # a class, a logit's lowest bit, a pixel
    ("tiny_frames.hex", r"\n0000000(\d)\n", lambda match: f"\n0000000{int(match[1]) ^ 1}\n"),
    ("tiny_frames.hex", r"\n(\w{7})([02468ace])\n", lambda match: f"\n{match[1]}{int(match[2], 16) + 1:x}\n"),
    ("tiny_images.hex", r"\n[0-9a-f]{4}\n", r"\n0000\n"),
    # an output that says nothing of bad images; one that marks no end
    ("tiny.v", r"( m_axis_tuser = )", r"\g<1>1'h0 & "),
    ("tiny.v", r"( m_axis_tlast = )", r"\g<1>1'h1 | "),
    # images that a reset interrupts go on behind it
    ("tiny.v", r"if \(rst\) begin\n      pixel <= 4'h0;", "if (1'b0) begin\n      pixel <= 4'h0;"),
])
def test_the_bench_finds_a_fault(with_logits, tmp_path, file, pattern, replacement):
    status, printed = run_bench(changed(with_logits, tmp_path, file, pattern, replacement))
    assert status != 0 and "FAIL: tiny" in printed and "PASS" not in printed


@pytest.mark.parametrize(("file", "pattern", "replacement"), [
    # a word of the image; a chip that tells of no error, or of no good image; one that isn't written
    ("tiny_weights.hex", r"\n(\w{7})([02468ace])\n", lambda match: f"\n{match[1]}{int(match[2], 16) + 1:x}\n"),
    ("tiny.v", r"(?<=\.)load_error\(load_error\)", "load_error()"),
    ("tiny.v", r"(?<=\.)load_done\(load_done\)", "load_done()"),
    ("tiny.v", r"( assign load_write = )\{", r"\g<1>0 & {"),
    # weights that come while images are under way
    ("tiny.v", r"(waits & pixels_held\)) & \w+;", r"\g<1>;"),
])
def test_the_bench_finds_a_fault_of_loading(writable, tmp_path, file, pattern, replacement):
    status, printed = run_bench(changed(writable, tmp_path, file, pattern, replacement))
    assert status != 0 and "FAIL: tiny" in printed and "PASS" not in printed


def test_what_is_in_the_files(delivered, with_logits, model):
    assert {path.name for path in delivered.iterdir()} - {"tiny_tb"} == FILES
    sheet, verilog = (delivered / "DATASHEET.md").read_text(), (delivered / "tiny.v").read_text()
    assert "12.50 % of the 6 test images of noise" in sheet and "| `s_axis_tdata` | input | 16 |" in sheet
    assert "| conv | bipolar morphological, signed, 2 groups |" in sheet
    assert re.search(r"^module tiny \(\n  input wire clk,\n  input wire rst,\n", verilog, re.M)
    assert "get_ports clk" in (delivered / "tiny.sdc").read_text()
    assert "20.000" in (delivered / "tiny.sdc").read_text() and "frames" not in verilog.split("\nmodule tiny (")[1]
    core = (delivered / "tiny.core").read_text()
    assert core.startswith("CAPI=2:\n") and all(name in core for name in FILES - {"tiny.core", "DATASHEET.md"})
    frames = [int(line, 16) for line in (with_logits / "tiny_frames.hex").read_text().splitlines()[2:]]
    network = load(model)
    expected = np.concatenate([network.logits(IMAGES[:4]), network.classify(IMAGES[:4])[:, None]], axis=1)
    assert frames[:4 * 6] == list(expected.ravel() & 0xFFFFFFFF)


@pytest.mark.parametrize(("device", "placed"), [("ecp5-45k", "--45k"), ("ice40-hx8k", "--25k"), (None, "--25k")])
def test_synthesis_is_for_the_device_or_the_smallest_one(model, tmp_path, device, placed):
    """Of the family that the core's target is for; the data sheet has the estimate for the one that was named."""
    deliver(model, tmp_path, *(["--device", device] if device else []))
    options = re.search(r"nextpnr_options: \[(.*?), (.*?)\]", (tmp_path / "tiny.core").read_text())
    assert options[1] == placed and options[2].startswith("--package, CABGA381, --lpf-allow-unconstrained")
    sheet = (tmp_path / "DATASHEET.md").read_text()
    assert ("| logic cells |" in sheet) == (device is not None)
    if device:
        assert re.search(rf"{DEVICES[device].chip}: about [\d,]+ logic cells, \d+% of {DEVICES[device].luts:,} ", sheet)


def test_the_same_parameters_give_the_same_bytes(delivered, model, tmp_path, monkeypatch):
    """Wherever the files lie, also where the model is."""
    before = {path.name: path.read_bytes() for path in delivered.iterdir() if path.name in FILES}
    after = deliver(model, tmp_path / "other" / "place")
    assert {path.name: path.read_bytes() for path in after.iterdir()} == before
    deliver(model, tmp_path / "tiny.v")
    assert (tmp_path / "tiny.v").read_bytes() == before["tiny.v"]
    monkeypatch.chdir(tmp_path)
    for text in before.values():
        assert str(tmp_path).encode() not in text and b"/" + model.encode().split(b"/")[1] + b"/" not in text


def test_what_is_the_users_stays(with_logits, model, tmp_path):
    folder = tmp_path / "build"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes((with_logits / name).read_bytes())
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = network_command("--model", model, "--cycles", "600", "--out", str(folder))
    assert other.returncode == 1 and "it was written by another command, python -m bmhw.network " in other.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    deliver(model, folder, "--force")
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "tiny.v").read_bytes() != before["tiny.v"]
    # each file says itself what wrote it
    assert {recorded_command(folder / name, "bmhw.network") for name in FILES} == {
        "python -m bmhw.network --model tiny.json --cycles 600"}


def test_logits_have_room(model, monkeypatch):
    monkeypatch.setattr(edge, "LOGIT_BITS", 8)
    result = network_command("--model", model, "--out", "x", "--logits")
    assert result.returncode == 2 and "error: --logits: Bits of a logit must be an integer of " in result.stderr


@pytest.mark.parametrize(("arguments", "status", "line"), [
    (["--out", "x.v", "--name", "y"], 2, "--name contradicts --out x.v, which names the module"),
    (["--out", "x", "--name", "wire"], 2, "--name must be no word of Verilog, SystemVerilog or Verilator, not 'wire'"),
    (["--out", "x", "--name", "dut"], 2, "--name must be no name of a signal or a part inside the module or its bench, "
                                         "not 'dut'"),
    (["--out", "x", "--vectors", "7"], 2, "--vectors must be from 2 to 6, the images that the network brings, not 7"),
    (["--out", "x", "--vectors", "1"], 2, "--vectors must be an integer from 2 to 1048576, not 1"),
    (["--out", "x", "--frequency", "0"], 2, "--frequency must be an integer from 1 to 1000, not 0"),
    (["--out", "file"], 1, "cannot write into file: it is a file"),
])
def test_bad_input_is_one_line(model, tmp_path, monkeypatch, arguments, status, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    result = network_command("--model", model, *arguments)
    assert (result.returncode, result.stderr) == (status, f"python -m bmhw.network: error: {line}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
