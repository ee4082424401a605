# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.export``: reproducible files, a bench that fails when it must, clean errors."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from bmhw.deliver.together import write_together
from bmhw.errors import RunError, UsageError
from bmhw.export import main
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS
from bmhw.sim import find_simulator, needed_vectors, usable_simulators

SMALL = ["--bits", "4", "--inputs", "3", "--vectors", "70"]
COMMAND = "python -m bmhw.export --bits 4"
DESIGNS = {
    "bm_relu_4bit_3in": [],
    "bm_signed_4bit_3in_logarithmic_signed_inputs_pipelined": [
        "--branches",
        "signed",
        "--signed-inputs",
        "--combine",
        "logarithmic",
        "--form",
        "pipelined",
    ],
    "bm_wired_4bit_3in_pipelined": ["--branches", "wired", "--form", "pipelined"],
    "bm_bipolar_4bit_3in_serial": ["--branches", "bipolar", "--form", "serial"],
    "mac_4bit_3in_serial": ["--neuron", "mac", "--form", "serial"],
    "bm_relu_4bit_3in_groups3_residual9_pipelined": ["--groups", "3", "--residual", "9", "--form", "pipelined"],
    "bm_signed_4bit_3in_groups3_clamped_serial": [
        "--groups",
        "3",
        "--branches",
        "signed",
        "--sums",
        "clamped",
        "--form",
        "serial",
    ],
}


@pytest.fixture(scope="session")
def run_bench(tmp_path_factory):
    """Runs the exported bench as a user does, in Verilator where Icarus is missing: its status and output."""
    runtime = tmp_path_factory.mktemp("runtime")

    def build_with_verilator(folder: Path, name: str) -> None:
        (folder / "build").mkdir()
        tomorrow = time.time() + 86400
        for compiled in runtime.iterdir():  # the run-time library of an earlier build; a later date keeps it
            os.utime(shutil.copy(compiled, folder / "build"), (tomorrow, tomorrow))
        options = [
            "--binary",
            "--timing",
            "-CFLAGS",
            "-std=c++20 -fcoroutines",
            "-Wno-fatal",
            "--Mdir",
            "build",
        ]
        environment = {**os.environ, **find_simulator("verilator").environment}
        subprocess.run(
            ["verilator", *options, "--top-module", f"{name}_tb", f"{name}.v", f"{name}_tb.v"],
            cwd=folder,
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for compiled in (folder / "build").glob("verilated*.o"):
            shutil.copy(compiled, runtime)

    def run_bench(folder: Path, name: str) -> tuple[int, str]:
        if "icarus" in usable_simulators():
            subprocess.run(["iverilog", "-g2005", f"{name}.v", f"{name}_tb.v"], cwd=folder, check=True)
            program = folder / "a.out"
        else:
            build_with_verilator(folder, name)
            program = folder / "build" / f"V{name}_tb"
        result = subprocess.run([program], cwd=folder, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout

    return run_bench


def change(path: Path, pattern: str, replacement) -> None:
    """Replace the one place that the pattern names."""
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


@pytest.mark.parametrize("name", DESIGNS)
class TestBench:
    @pytest.fixture(autouse=True)
    def exported(self, name, tmp_path):
        assert main([*SMALL, *DESIGNS[name], "--out", str(tmp_path)]) == 0
        self.folder = tmp_path

    def test_passes(self, name, run_bench):
        status, printed = run_bench(self.folder, name)
        assert status == 0
        *progress, verdict = (line for line in printed.splitlines() if not line.startswith("- "))  # Verilator's own
        assert verdict == f"PASS: {name}, 70 vectors"
        assert progress == [f"{done} of 70 vectors, 0 errors" for done in range(7, 70, 7)]

    def test_fails_if_one_expected_value_is_changed(self, name, run_bench):
        # the lowest bit of the last vector's output
        change(
            self.folder / f"{name}_tb.v",
            r"(expected\[69\] = \d+'h[0-9a-f]*)([0-9a-f]);",
            lambda match: f"{match[1]}{int(match[2], 16) ^ 1:x};",
        )
        status, printed = run_bench(self.folder, name)
        assert status != 0 and f"FAIL: {name}, 1 errors in 70 vectors" in printed
        assert "vector 69: " in printed and "PASS" not in printed

    def test_fails_if_the_hardware_is_changed(self, name, run_bench):
        """One bit of the first constant in a table, or one operator of the multiply-accumulate neuron."""
        pattern = r"(value = 4'h)([1-9a-f])(;)" if name.startswith("bm") else r"( \^ )()(\w)"
        replacement = (
            (lambda match: f"{match[1]}{int(match[2], 16) ^ 8:x};") if name.startswith("bm") else r" & \3"
        )
        change(self.folder / f"{name}.v", pattern, replacement)
        status, printed = run_bench(self.folder, name)
        assert status != 0 and "FAIL" in printed


SERIAL = next(name for name in DESIGNS if name.startswith("mac") and name.endswith("serial"))


def test_a_neuron_that_takes_nothing_ends_the_bench(tmp_path, run_bench):
    main([*SMALL, *DESIGNS[SERIAL], "--out", str(tmp_path)])
    change(tmp_path / f"{SERIAL}.v", r"assign in_ready = .*;", "assign in_ready = 1'h0;")
    status, printed = run_bench(tmp_path, SERIAL)
    assert status != 0 and "after 0 elements and 0 outputs" in printed
    assert f"FAIL: {SERIAL}, 0 errors in 0 vectors" in printed and "PASS" not in printed


@pytest.mark.skipif("icarus" not in usable_simulators(), reason="needs Icarus Verilog, for unknown bits")
def test_one_pulse_of_reset_makes_every_output_known(tmp_path):
    """Registers are unknown at the start; a reset that is 1 from the start, for one rising edge, suffices."""
    main([*SMALL, *DESIGNS[SERIAL], "--out", str(tmp_path)])
    (tmp_path / "pulse.v").write_text(f"""
module pulse;
  reg clk = 0, rst = 1;
  wire in_ready, out_valid;
  wire [9:0] y;
  {SERIAL} dut (.clk(clk), .rst(rst), .in_valid(1'b0), .in_ready(in_ready), .out_ready(1'b0), .out_valid(out_valid),
                .y(y), .x(4'd0), .w(4'd0), .bias(8'd0));
  initial begin
    #1 $display("%b %b %b", in_ready, out_valid, y);
    #5 clk = 1;
    #5 clk = 0;
    rst = 0;
    #5 $display("%b %b %b", in_ready, out_valid, y);
  end
endmodule
""")
    subprocess.run(["iverilog", "-g2005", "-s", "pulse", f"{SERIAL}.v", "pulse.v"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "a.out"], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == ["x x xxxxxxxxxx", "1 0 0000000000"]


@pytest.mark.parametrize("name", DESIGNS)
def test_who_needs_a_reset_says_so(name, tmp_path):
    main([*SMALL, *DESIGNS[name], "--out", str(tmp_path)])
    serial = name.endswith("serial")
    assert ("rst must be pulsed" in (tmp_path / f"{name}.v").read_text()) == serial
    assert json.loads((tmp_path / f"{name}.json").read_text())["reset_cycles_before_use"] == int(serial)


@pytest.mark.skipif("verilator" not in usable_simulators(), reason="needs Verilator's linter")
@pytest.mark.parametrize("name", DESIGNS)
def test_lint(name, tmp_path):
    """No warning but those of unused bits and of widths, which are zero-extended on purpose."""
    main([*SMALL, *DESIGNS[name], "--out", str(tmp_path)])
    waived = ["UNUSEDSIGNAL", "WIDTHTRUNC", "WIDTHEXPAND", "VARHIDDEN", "DECLFILENAME"]
    result = subprocess.run(
        ["verilator", "--lint-only", "-Wall", *(f"-Wno-{warning}" for warning in waived), f"{name}.v"],
        cwd=tmp_path,
        env={**os.environ, **find_simulator("verilator").environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


class TestFiles:
    def test_same_parameters_same_bytes(self, tmp_path, capsys):
        for folder in ("one", "two"):
            main([*SMALL, "--form", "serial", "--out", str(tmp_path / folder)])
        printed = capsys.readouterr().out.split()
        names = sorted(path.name for path in (tmp_path / "one").iterdir())
        assert names == [f"bm_relu_4bit_3in_serial{end}" for end in (".core", ".json", ".v", "_tb.v")]
        assert sorted(printed) == sorted(
            str(tmp_path / folder / name) for folder in ("one", "two") for name in names
        )
        for name in names:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_defaults_and_order_of_options_change_nothing(self, tmp_path):
        main(["--bits", "4", "--inputs", "3", "--form", "parallel", "--out", str(tmp_path / "one")])
        main(["--out", str(tmp_path / "two"), "--inputs", "3", "--seed", "0", "--bits", "4"])
        for path in (tmp_path / "one").iterdir():
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()

    def test_description(self, tmp_path):
        main([*SMALL, "--form", "pipelined", "--maximum", "digits", "--name", "mine", "--out", str(tmp_path)])
        description = json.loads((tmp_path / "mine.json").read_text())
        ports = {port["name"]: port for port in description["ports"]}
        assert list(ports) == ["clk", "rst", "x", "k1", "k2", "bias", "y"]
        assert (ports["x"]["bits"], ports["x"]["elements"], ports["x"]["element_bits"]) == (12, 3, 4)
        assert ports["y"]["signed"] and ports["y"]["direction"] == "output" and not ports["x"]["signed"]
        assert ports["k1"]["value"] == "2^((code - 15) / 2^2)"
        assert description["latency_cycles"] == 5
        assert description["design"]["maximum"] == "digits"
        verilog = (tmp_path / "mine.v").read_text()
        for name, port in ports.items():
            high = f"[{port['bits'] - 1}:0] " if port["bits"] > 1 else ""
            assert re.search(
                rf"module mine \(.*\b{port['direction']} (wire|reg) {re.escape(high)}{name}\b", verilog, re.S
            )
        assert description["command"] in verilog and "--name mine" in description["command"]
        assert str(tmp_path) not in verilog + json.dumps(description)
        core = (tmp_path / "mine.core").read_text()
        assert core.startswith("CAPI=2:\n") and "toplevel: mine_tb" in core

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_groups_zero_and_residual_are_described(self, layout, tmp_path):
        options = ["--inputs", "8", "--groups", "2", "--residual", "9", "--branches", layout, "--bits", "4"]
        main([*options, "--name", "mine", "--vectors", "9", "--out", str(tmp_path)])
        description = json.loads((tmp_path / "mine.json").read_text())
        order = "group g of 2 has elements 4 * g to 4 * g + 3"
        order += ", the first 2 of them with positive weights" if layout == "wired" else ""
        formats, ports = description["formats"], {port["name"]: port for port in description["ports"]}
        assert formats["groups"] == {"number": 2, "inputs_each": 4, "order": order}
        assert (formats["zero"], formats["residual"]) == ("exact", {"bits": 9, "fraction_bits": 6})
        assert ports["x"]["meaning"] == "inputs, linear, 2 groups of 4"
        assert (ports["r"]["bits"], ports["r"]["signed"], ports["r"]["value"]) == (9, True, "integer / 2^6")
        weights = [port for name, port in ports.items() if name in ("k", "k1", "k2")]
        assert all(port["value"] == "2^((code - 15) / 2^2), code 0 stands for 0" for port in weights)
        head = (tmp_path / "mine.v").read_text().split("module")[0].replace("\n//             ", " ")
        assert f"// Groups:     {order}; the results of all groups are added\n" in head

    def test_one_group_says_nothing_of_groups(self, tmp_path):
        main([*SMALL, "--name", "mine", "--out", str(tmp_path)])
        assert "Groups" not in (tmp_path / "mine.v").read_text().split("module")[0]
        groups = json.loads((tmp_path / "mine.json").read_text())["formats"]["groups"]
        assert groups == {"number": 1, "inputs_each": 3, "order": "one group has all elements"}

    @pytest.mark.parametrize("gone", ["", "mine.v", "mine.json"])
    def test_what_another_command_exported_is_overwritten_by_force_only(self, gone, tmp_path):
        mine = [*SMALL, "--out", str(tmp_path), "--name", "mine"]
        main(mine)
        (tmp_path / "mine_tb.v").write_text((tmp_path / "mine_tb.v").read_text() + "// edited\n")
        main(mine)
        assert "edited" not in (tmp_path / "mine_tb.v").read_text()
        if gone:
            (tmp_path / gone).unlink()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for other in (["--seed", "3"], ["--adder", "ripple"], ["--bits", "5"]):
            with pytest.raises(RunError, match=r"mine\.\w+: it was written by another command, .*--bits 4 .*--force"):
                main([*mine, *other])
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        main([*mine, "--seed", "3", "--force"])
        for path in tmp_path.iterdir():
            assert "--seed 3" in path.read_text() and "--force" not in path.read_text()

    def test_only_its_own_files_are_overwritten(self, tmp_path):
        main([*SMALL, "--out", str(tmp_path), "--name", "mine"])
        (tmp_path / "other.txt").write_text("other")
        foreign = '{"generator": "other", "command": "python -m bmhw.export"}'
        (tmp_path / "theirs.json").write_text(foreign)
        for force in ([], ["--force"]):
            with pytest.raises(RunError, match=r"theirs\.json: it exists"):
                main([*SMALL, "--out", str(tmp_path), "--name", "theirs", *force])
        assert (tmp_path / "theirs.json").read_text() == foreign
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "mine.core",
            "mine.json",
            "mine.v",
            "mine_tb.v",
            "other.txt",
            "theirs.json",
        ]

    @pytest.mark.parametrize("existing", [{}, {"a": f"// Written by: {COMMAND}\nbefore"}])
    def test_failure_leaves_everything_as_it_was(self, existing, tmp_path, monkeypatch):
        folder, replace = tmp_path / "folder", os.replace
        if existing:
            write_together(folder, existing, command=COMMAND)

        def fail(source, target):
            if target == folder / "b":
                raise OSError(28, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(RunError, match="No space left on device"):
            write_together(folder, {"a": "a", "b": "b"}, command=COMMAND)
        if existing:
            assert {path.name: path.read_text() for path in folder.iterdir()} == existing
        else:
            assert not folder.exists()

    @pytest.mark.parametrize("existing", ["b", "nothing"])
    @pytest.mark.parametrize("stage", ["b.before", "b"])
    def test_an_interruption_loses_nothing(self, tmp_path, monkeypatch, existing, stage):
        """Also between a move and what is noted of it: after either move, and on the way back nothing is deleted."""
        before = {name: f"// Written by: {COMMAND}\n{name}" for name in ("a", "b") if name == "a" or existing == "b"}
        write_together(tmp_path, before, command=COMMAND)
        replace = os.replace

        def interrupted(source, target):
            replace(source, target)
            if (Path(target).name == stage == "b.before" or target == tmp_path / stage) and interruptions:
                raise interruptions.pop()

        interruptions = [KeyboardInterrupt()]
        monkeypatch.setattr(os, "replace", interrupted)
        files = {"a": f"// Written by: {COMMAND}\nnew", "b": f"// Written by: {COMMAND}\nnew"}
        if existing == "nothing" and stage == "b.before":
            write_together(tmp_path, files, command=COMMAND)  # nothing to move away: it isn't interrupted
            before = files
        else:
            with pytest.raises(KeyboardInterrupt):
                write_together(tmp_path, files, command=COMMAND)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(RunError, match=str(out)) as error:
                main([*SMALL, "--out", str(out)])
            assert error.value.exit_status == 1 and "\n" not in str(error.value)


class TestTrained:
    @pytest.fixture
    def network(self, monkeypatch):
        import bmhw.models
        from bmhw.hdl.formats.bm import BmFormat
        from bmhw.models import ModelError, NeuronVectors
        from bmhw.sim import vectors

        number_format = BmFormat(inputs=3, bits=4)

        class Network:
            def neuron_vectors(self, layer, channel, count, seed=0):
                if layer != "conv":
                    raise ModelError(f"Layer must be one of conv, not {layer!r}")
                inputs = vectors(number_format, count, seed + channel)
                expected = number_format.compute(**inputs)
                return NeuronVectors(number_format, inputs, expected, expected + 0.5, np.array([2, 0, 1]))

        monkeypatch.setattr(bmhw.models, "load", lambda name: Network())

    OPTIONS = ["--model", "some", "--layer", "conv", "--channel", "2"]

    def test_format_and_vectors_come_from_the_network(self, network, tmp_path, run_bench):
        main([*self.OPTIONS, "--vectors", "60", "--out", str(tmp_path)])
        description = json.loads((tmp_path / "some_conv_channel2.json").read_text())
        count = needed_vectors(BmFormat(inputs=3, bits=4))
        assert description["bench_vectors"] == (
            f"60 activations of some, layer conv, channel 2, then {count} vectors chosen by what they exercise (seed 0)"
        )
        assert description["layer_inputs"] == [2, 0, 1]
        status, printed = run_bench(tmp_path, "some_conv_channel2")
        assert status == 0 and printed.splitlines()[-1].startswith(f"PASS: some_conv_channel2, {60 + count} vectors")

    def test_other_channels_forms_and_architectures_have_other_files(self, network, tmp_path):
        every = [[], ["--channel", "1"], ["--form", "pipelined"], ["--form", "pipelined", "--registers", "maxima"],
                 ["--objective", "delay"], ["--maximum", "digits"], ["--adder", "kogge_stone"],
                 ["--model", "3/o-k.json"]]
        for options in every:
            main([*self.OPTIONS, *options, "--out", str(tmp_path)])
        names = {path.stem for path in tmp_path.glob("*.core")}
        assert len(names) == len(every)
        assert {"some_conv_channel2", "some_conv_channel1", "some_conv_channel2_pipelined_maxima",
                "o_k_conv_channel2"} <= names

    def test_networks_of_one_name_in_two_folders_are_told_apart(self, network, tmp_path):
        main([*self.OPTIONS, "--model", "a/net.json", "--out", str(tmp_path)])
        with pytest.raises(RunError, match=r"written by another command, .*--model a/net\.json"):
            main([*self.OPTIONS, "--model", "b/net.json", "--out", str(tmp_path)])

    @pytest.mark.parametrize(
        "options, message",
        [
            (["--log-bits", "8"], "--log-bits contradicts --model some"),
            (["--neuron", "mac"], "--neuron contradicts --model some"),
            (["--layer", "nope"], "Layer must be one of conv, not 'nope'"),
            (["--multiplier", "dadda"], "--multiplier dadda needs a mac layer"),
        ],
    )
    def test_bad_options(self, network, tmp_path, options, message):
        with pytest.raises(UsageError, match=re.escape(message)):
            main([*self.OPTIONS, *options, "--out", str(tmp_path)])
        assert list(tmp_path.iterdir()) == []

    def test_model_needs_layer_and_channel(self, tmp_path):
        with pytest.raises(UsageError, match="--model needs --layer as well"):
            main(["--model", "some", "--out", str(tmp_path)])
        with pytest.raises(UsageError, match="--layer needs --model as well"):
            main(["--layer", "conv", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--bits", "1"], "from 2 to 16, not 1"),
        (["--inputs", "0"], "not 0"),
        (["--vectors", "0"], "from 1 to 100000, not 0"),
        (["--seed", "-1"], "0 or more, not -1"),
        (["--name", "module"], "not 'module'"),
        (["--name", "a b"], "not 'a b'"),
        (["--neuron", "mac", "--maximum", "tree"], "--maximum tree needs --neuron bm"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(options, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        main([*options, "--out", str(tmp_path / "new")])
    assert error.value.exit_status == 2 and "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
