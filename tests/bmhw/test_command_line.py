# SPDX-License-Identifier: Apache-2.0
"""Errors in one line, the design options, files whole or not at all."""

import os
import stat
import subprocess
import sys

import pytest

from bmhw.command_line import Parser, RunError, UsageError
from bmhw.flow.files import check_writable, write_atomically
from bmhw.options import design_from, design_options, stated_command


def design(*arguments, **overrides):
    parser = Parser(prog="test")
    design_options(parser)
    return design_from(parser.parse_args(arguments), **overrides)


def test_the_defaults_are_a_relu_neuron_of_nine_inputs_of_eight_bits():
    found = design()
    assert (found.neuron, found.format.layout, found.format.inputs, found.format.bits) == ("bm", "relu", 9, 8)
    assert found.form == "parallel"


def test_every_option_reaches_its_field():
    bm = design("--bits", "6", "--inputs", "4", "--branches", "signed", "--signed-inputs", "--log-bits", "7",
                "--log-fraction", "3", "--weight-bits", "5", "--log", "mitchell", "--exp", "schraudolph",
                "--maximum", "elimination", "--maximum-bits", "6", "--adder", "ripple", "--form", "serial",
                "--combine", "logarithmic")
    fmt = bm.format
    assert (fmt.bits, fmt.inputs, fmt.layout, fmt.signed_inputs) == (6, 4, "signed", True)
    assert (fmt.log_bits, fmt.log_fraction, fmt.weight_bits, fmt.maximum_bits) == (7, 3, 5, 6)
    assert (fmt.log2, fmt.exp2, fmt.combine) == ("mitchell", "schraudolph", "logarithmic")
    assert (bm.maximum, bm.adder, bm.form) == ("elimination", "ripple", "serial")
    mac = design("--neuron", "mac", "--multiplier", "array", "--signed-inputs", "--weight-bits", "3")
    assert (mac.neuron, mac.multiplier, mac.format.signed_inputs, mac.format.weight_bits) == (
        "mac", "array", True, 3)


def test_bipolar_implies_signed_inputs_for_both_neurons_of_a_comparison():
    assert design("--branches", "bipolar").format.signed_inputs
    assert design("--branches", "bipolar", neuron="mac").format.signed_inputs
    assert not design(neuron="mac").format.signed_inputs


def test_a_comparison_gives_each_neuron_its_own_width_and_options():
    assert design("--maximum", "digits", neuron="mac", bits=5).format.bits == 5
    assert design("--multiplier", "array", neuron="bm", bits=4).format.bits == 4


@pytest.mark.parametrize("arguments, words", [
    (["--bits", "17"], ["2 to 16", "17"]),
    (["--bits", "1"], ["2 to 16", "1"]),
    (["--bits", "eight"], ["2 to 16", "'eight'"]),
    (["--bits", "8.5"], ["2 to 16", "'8.5'"]),
    (["--inputs", "0"], ["1 to 65536", "0"]),
    (["--inputs", "-3"], ["1 to 65536", "-3"]),
    (["--log-bits", "17"], ["2 to 16", "17"]),
    (["--log-fraction", "8"], ["0 to 7", "8"]),
    (["--weight-bits", "99"], ["2 to 16", "99"]),
    (["--maximum-bits", "10"], ["1 to 9", "10"]),
    (["--signed-inputs"], ["--signed-inputs", "bipolar or signed", "not relu (the default)"]),
    (["--branches", "bipolar", "--combine", "logarithmic"], ["relu, signed, wired", "bipolar"]),
    (["--multiplier", "dadda"], ["--multiplier dadda", "--neuron mac"]),
    (["--neuron", "mac", "--maximum", "tree"], ["--maximum tree", "--neuron bm"]),
    (["--neuron", "mac", "--branches", "relu"], ["--branches relu", "--neuron bm"]),
])
def test_bad_values_name_the_value_and_what_is_valid(arguments, words):
    with pytest.raises(UsageError) as caught:
        design(*arguments)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_layout_is_an_option_of_either_name():
    """Hardware says branches, networks say layout."""
    assert design("--layout", "signed") == design("--branches", "signed") != design()


@pytest.mark.parametrize("arguments, words", [
    (["--layout", "rellu"], ["--layout must be one of", "did you mean relu?"]),
    (["--branches", "rellu"], ["rellu", "did you mean relu?", "bipolar"]),
    (["--branch", "relu"], ["--branch", "did you mean --branches?"]),
    (["--adder", "sklanski"], ["sklanski", "did you mean sklansky?"]),
    (["--bits"], ["--bits", "expected one argument"]),
    (["stray"], ["unexpected argument stray"]),
    (["--out=x"], ["unknown option --out"]),
])
def test_a_misspelt_option_or_choice_is_one_line_with_the_nearest_valid_one(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        design(*arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def script(body: str) -> subprocess.CompletedProcess:
    program = f"import sys\nfrom bmhw.command_line import *\ndef main(argv):\n    {body}\nrun(main)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize("body, status, said", [
    ("return 0", 0, ""),
    ("return None", 0, ""),
    ("return 3", 3, ""),
    ("raise RunError('a\\nb')", 1, "error: a b\n"),
    ("raise UsageError('no')", 2, "error: no\n"),
    ("open('/nowhere/at/all')", 1, "No such file or directory: '/nowhere/at/all'\n"),
    ("raise KeyboardInterrupt", 130, ""),
    ("raise MemoryError", 1, "error: out of memory: take something smaller, or less at once\n"),
    ("raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: 9')", 1, "smaller, or less at once\n"),
    ("main(argv)", 1, "take something smaller\n"),
    ("import bmhw.nothing.at.all", 1, None),
    ("import sys; sys.modules['matplotlib'] = None; import matplotlib.pyplot", 1, "pip install 'bmhw[report]'\n"),
    ("raise ImportError('libx.so: no such file', name='torch._C')", 1, "can't be loaded: libx.so: no such file\n"),
    ("{}['lay\\nout']", 1, None),
    ("print(chr(0xdcff)); raise RunError('x')", 1, "error: x\n"),
])
def test_run_turns_what_a_command_raises_into_a_line_and_a_status(body, status, said):
    result = script(body)
    assert result.returncode == status
    if said is None:  # a fault of the program
        first, why, command, versions, trace = result.stderr.split("\n", 4)
        assert "internal error: " in first and first.endswith(("'lay\\nout'", "'bmhw.nothing'"))
        assert "Please report it" in why and command.startswith("Command:  ") and "bmhw 0" in versions
        assert trace.startswith("Traceback") and "Error" in trace.splitlines()[-1]
        return
    assert result.stderr.endswith(said) and result.stderr.count("\n") == (1 if said else 0)


def test_a_reader_that_leaves_early_hears_nothing():
    program = ("from bmhw.command_line import run\ndef main(argv):\n    for i in range(10**6): print(i)\n"
               "run(main)")
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait() == 1


def test_a_file_is_written_whole_and_keeps_its_rights(tmp_path):
    target = tmp_path / "figures.json"
    write_atomically(target, "old")
    assert stat.S_IMODE(target.stat().st_mode) & 0o600 == 0o600
    target.chmod(0o640)
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new" and stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["figures.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "figures.json"
    target.write_text("old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="No space left"):
        write_atomically(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["figures.json"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_what_cannot_be_written_is_known_beforehand(tmp_path):
    check_writable("-")
    check_writable(tmp_path / "new.json")
    with pytest.raises(RunError, match="folder"):
        check_writable(tmp_path)
    with pytest.raises(RunError, match=r"no folder .*missing"):
        check_writable(tmp_path / "missing" / "new.json")


def test_a_stated_command_measures_the_same_wherever_files_lie():
    given = ["folder", "--json", "out.json", "--jobs", "3", "--liberty", "/cells/a.lib", "--no-cache", "--bits", "8"]
    joined = ["folder", "--json=out.json", "--jobs=3", "--liberty=/cells/a.lib", "--bits", "8", "--no-cache"]
    for argv in (given, joined):
        assert stated_command("bmhw.layers", argv) == "python -m bmhw.layers folder --liberty a.lib --bits 8"
    assert stated_command("bmhw.layers", ["--liberty", "/cells/a.lib", "--liberty=/b.lib"]) == (
        "python -m bmhw.layers --liberty a.lib --liberty b.lib")
