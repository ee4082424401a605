# SPDX-License-Identifier: Apache-2.0
"""Chips whose weights can be written: another network in one, number for number, and which ones have no place there."""

import dataclasses
import json
import re
import zlib

import numpy as np
import pytest
from support import layer_chips
from support.calls import command_of
from support.chips import ARCHITECTURES, IMAGES, HostileBench, assembly_of, made, retrained

from bmhw import network as command_line
from bmhw.chip.bench import Bench, Difference
from bmhw.chip.calibration import samples
from bmhw.chip.edge import chip_of
from bmhw.chip.estimate import pieces
from bmhw.chip.loading import image_of, layout_of, loads_of, opened, with_network
from bmhw.chip.memories import fitted
from bmhw.chip.parts import assemble
from bmhw.chip.plan import plan
from bmhw.errors import UsageError
from bmhw.flow.fpga import DEVICES
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.models.files.store import save

network_command = command_of(command_line)


def fixed(name):
    """A network's parts, and images."""
    if name in ARCHITECTURES:
        return assembly_of(made(name), 2), IMAGES
    return assemble(layer_chips.made(name), layer_chips.FOLDING), layer_chips.IMAGES


@pytest.mark.parametrize("name", [name if name == "plain" else pytest.param(name, marks=pytest.mark.long)
                                  for name in (*ARCHITECTURES, *layer_chips.NETWORKS)])
def test_every_number_is_that_of_the_network_that_is_loaded(name, tmp_path):
    """Into the chip of one network another one, and that one again; each behind the complement of all its words."""
    assembly, images = fixed(name)
    chip, images = opened(assembly), images[:4]
    bench = HostileBench(chip, tmp_path)
    bench.build()
    other = with_network(chip, retrained(chip.network))
    loaded = Bench(other, tmp_path, hardware=chip)
    for gaps in (0, 40):
        run = loaded.run(images, seed=gaps, gaps=gaps)
        assert run.classes == other.network.classify(images).tolist()
    again, never = bench.run(images), bench.run(images, load=False)
    assert again.classes == never.classes == chip.network.classify(images).tolist()
    assert again.cycles == never.cycles
    # what is compared is what was loaded
    with pytest.raises(Difference, match="image 0, "):
        loaded.run(images, load=False)


@pytest.mark.long
@pytest.mark.parametrize("name", ["pooled", "residual", "mac"])
def test_weights_that_can_be_written_cost_no_cycle(name, tmp_path):
    assembly, images = fixed(name)
    cycles = []
    for number, of in enumerate((assembly, opened(assembly))):
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Bench(of, folder)
        bench.build()
        cycles.append([bench.run(images[:4], gaps=gaps, load=False).cycles for gaps in (0, 30)])
    assert cycles[0] == cycles[1]


@pytest.mark.parametrize("name", [*ARCHITECTURES, *layer_chips.NETWORKS])
def test_another_network_is_the_same_hardware_with_other_words(name):
    chip = opened(fixed(name)[0])
    other = with_network(chip, retrained(chip.network))
    assert layout_of(other) == layout_of(chip)
    assert len(image_of(chip)) == len(image_of(other)) == layout_of(chip).length
    if name == "plain":
        texts = [block_to_verilog(chip_of(of), "chip") for of in (chip, other)]
        words = re.compile(r"(?<=    words\[)(\d+\] = \d+'h)\w+(?=;\n)")
        assert texts[0] != texts[1] and words.sub(r"\1", texts[0]) == words.sub(r"\1", texts[1])
    # nothing of a network is outside of its image
    assert image_of(with_network(other, chip.network)) == image_of(chip)
    changed = [memory for memory, table in loads_of(other).items() if table != loads_of(chip)[memory]]
    assert {memory.split(".")[1] for memory in changed} >= {"weights", "biases"}


def test_an_image_is_of_one_chip():
    """Of its shapes, widths and folding; not of its device."""
    network = made("plain")
    chips = {slowness: opened(assembly_of(network, slowness)) for slowness in (1, 2, 4)}
    assert len({layout_of(chip).chip for chip in chips.values()}) == 3
    assert layout_of(fitted(chips[2], DEVICES["ecp5-25k"])) == layout_of(opened(assembly_of(network, 2)))
    thresholds = {node: dataclasses.replace(norm, threshold=norm.threshold * 64)
                  for node, norm in network.thresholds.items()}
    wider = opened(assembly_of(dataclasses.replace(network, thresholds=thresholds), 2))
    assert layout_of(wider).chip != layout_of(chips[2]).chip


def changed(network, **layers):
    return dataclasses.replace(network, name="other", layers={
        name: dataclasses.replace(layer, **layers.get(name, {})) for name, layer in network.layers.items()})


def refusals():
    network = made("plain")
    conv, dense, norm = network.layers["conv"], network.layers["dense"], network.thresholds["conv_norm"]
    encoder = network.encoders["conv_norm"]
    far, shift = norm.threshold.copy(), encoder.shift.copy()
    far[2], shift[1] = 5000, 9
    exponent = dense.exponent + (np.arange(10) == 3)
    yield changed(network, conv={"biases": {"bias": conv.biases["bias"] + 5000}}), (
        r"conv: biases of channel 0 must be from -1024 to 1023, not \d+")
    yield dataclasses.replace(network, name="other", thresholds={
        "conv_norm": dataclasses.replace(norm, threshold=far)}), (
        r"conv_norm_codes: offsets of channel 2 must be from -\d+ to \d+, not -?\d+")
    yield dataclasses.replace(network, name="other", encoders={
        "conv_norm": dataclasses.replace(encoder, shift=shift)}), (
        r"conv_norm_codes: (shift|seen|offsets) of channel 1 must be from -?\d+ to \d+, not \d+")
    yield changed(network, dense={"exponent": exponent}), (
        r"class: exponents, as shifts of each channel, must be \(0, .*\), not \(0, 0, 0, 1, .*\)")
    yield changed(network, dense={"format": dataclasses.replace(dense.format, groups=1)}), (
        "dense: groups must be 2, not 1")
    yield changed(network, dense={"format": dataclasses.replace(dense.format, out_fraction=8)}), (
        "dense: out_fraction must be 9, not 8")
    yield dataclasses.replace(made("single"), name="other"), r"conv: kernel must be \(3, 3\), not \(1, 1\)"
    yield dataclasses.replace(made("pooled"), name="other"), r"architecture: nodes must be \[.*\], not \[.*\]"


@pytest.mark.parametrize("number", range(8))
def test_what_does_not_fit_is_refused_by_name(number):
    other, line = list(refusals())[number]
    with pytest.raises(UsageError, match=f"^Network other does not fit the chip of plain: (?:{line})$"):
        with_network(opened(assembly_of(made("plain"), 2)), other)


@pytest.mark.parametrize("name", ["residual", "pooled"])
@pytest.mark.parametrize("device", ["ecp5-25k", "ice40-hx8k"])
def test_what_can_be_written_is_planned_as_memories(name, device):
    device = DEVICES[device]
    plans = [plan(fitted(of, device), device) for of in (fixed(name)[0], opened(fixed(name)[0]))]
    assert not plans[0].tables and plans[1].tables and plans[1].table_bits > 100
    assert plans[0].number_bits == plans[1].number_bits and plans[0].weight_bits == plans[1].weight_bits
    # an iCE40 has no small memories that can be written
    assert plans[1].cells > plans[0].cells or plans[1].block_rams > plans[0].block_rams
    assembly = fitted(opened(fixed(name)[0]), device)
    named = [piece.part for piece in pieces(assembly) if piece.name in ("tables", "loader")]
    assert "loader" in named and len(set(named)) == len(named) > 3
    assert len(samples(assembly, {})) > len(named)


# -- the command


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of a network, of another one that fits, and of one that doesn't."""
    folder = tmp_path_factory.mktemp("models")
    for network in (made("plain"), retrained(made("plain")), dataclasses.replace(made("single"), name="single")):
        save(network, folder, {"data": {"name": "digits"}, "accuracy": {}, "training": {}})
    return {name: str(folder / f"{name}.json") for name in ("plain", "other", "single")}


def test_an_image_is_the_same_bytes(models, tmp_path):
    images = []
    for number, options in enumerate(([], ["--chip", models["plain"]], ["--chip", models["other"]])):
        file = tmp_path / f"{number}.bin"
        said = network_command("--model", models["plain"], "--cycles", "2000", "--weights-image", str(file), *options)
        assert (said.returncode, said.stdout, said.stderr) == (0, f"{file}\n", "")
        images.append(file.read_bytes())
    assert images[0] == images[1] and len(images[2]) == len(images[0])
    assert zlib.crc32(images[0][:-4]) == int.from_bytes(images[0][-4:], "little")
    again = tmp_path / "again.bin"
    network_command("--model", models["other"], "--chip", models["plain"], "--cycles", "2000", "--weights-image",
                    str(again))
    assert again.read_bytes()[:4] == images[0][:4] and again.read_bytes() != images[0]


def test_the_files_say_what_is_where(models, tmp_path):
    said = network_command("--model", models["plain"], "--cycles", "2000", "--weights", "writable", "--out",
                           str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    told = json.loads((tmp_path / "plain_weights.json").read_text())
    image = tmp_path / "image.bin"
    network_command("--model", models["plain"], "--cycles", "2000", "--weights-image", str(image))
    words = np.frombuffer(image.read_bytes(), dtype="<u4")
    lines = (tmp_path / "plain_weights.hex").read_text().splitlines()[3:]
    assert lines[:len(words)] == [f"{word:08x}" for word in words] and len(lines) == 2 * len(words)
    assert lines[len(words)] == lines[0] and lines[len(words):] != lines[:len(words)]  # of the bench
    assert told["length_words"] == len(words) and told["chip"] == f"{words[0]:08x}"
    ends = [1]
    for section in told["sections"]:
        assert section["first_word"] == ends[-1] and section["image_words_each"] == -(-section["bits"] // 32)
        ends.append(section["first_word"] + section["words"] * section["image_words_each"])
    assert ends[-1] == len(words) - 1
    sheet = (tmp_path / "DATASHEET.md").read_text()
    assert "## Loading weights" in sheet and f"the header `{told['chip']}`" in sheet
    for section in told["sections"]:
        assert (f"| `{section['memory']}` | {section['first_word']:,} | {section['words']:,} x {section['bits']} |"
                in sheet)
    assert "weights (ROM)" not in sheet and "| `s_load_tdata` | input | 32 |" in sheet


def test_a_check_is_of_what_is_loaded(models):
    said = network_command("--model", models["other"], "--chip", models["plain"], "--cycles", "2000", "--check", "2")
    assert said.returncode == 0 and said.stdout.startswith("2 images, every number of ")


@pytest.mark.parametrize(("arguments", "status", "line"), [
    (["--model", "plain", "--weights", "rom", "--weights-image", "x.bin"], 2,
     "--weights-image x.bin needs --weights writable, not rom"),
    (["--model", "plain", "--weights", "rom", "--chip", "other", "--check", "1"], 2,
     "--chip other.json needs --weights writable, not rom"),
    (["--model", "plain", "--chip", "other"], 2, "--chip other.json needs --weights-image FILE or --check N"),
    (["--model", "plain", "--chip", "other", "--out", "x"], 2,
     "--out x delivers the chip of --model: it contradicts --chip other.json"),
    (["--model", "plain", "--weights-image", "none/x.bin"], 1, "cannot write none/x.bin: there is no folder none"),
    (["--model", "single", "--chip", "plain", "--weights-image", "x.bin"], 2,
     "Network single does not fit the chip of plain: conv: kernel must be (3, 3), not (1, 1)"),
    (["--model", "plain", "--weights", "fixed"], 2,
     "--weights must be one of rom, writable, not 'fixed'"),
])
def test_bad_input_is_one_line(models, tmp_path, monkeypatch, arguments, status, line):
    monkeypatch.chdir(tmp_path)
    for name, path in models.items():
        for suffix in (".json", ".safetensors"):
            (tmp_path / f"{name}{suffix}").symlink_to(path.replace(".json", suffix))
    before = sorted(tmp_path.iterdir())
    result = network_command(*(f"{word}.json" if word in models else word for word in arguments))
    assert (result.returncode, result.stderr) == (status, f"python -m bmhw.network: error: {line}\n")
    assert sorted(tmp_path.iterdir()) == before
