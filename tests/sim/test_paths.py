# SPDX-License-Identifier: Apache-2.0
"""Temporary folders, build folders and environments whose paths hold what tools stumble over; broken simulators."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.simulators import FAST_AND_LONG

from bmhw import errors
from bmhw.errors import RunError, UsageError
from bmhw.flow import work_folder
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.sim import find_simulator, plain_names, simulators, usable_simulators, verify

STRANGE = "t $x'y \"#[é];(a)"
DESIGN = Design(format=MacFormat(inputs=1, bits=2))
SEED = 20090719


def check(**options):
    rng = np.random.default_rng(SEED)
    inputs = {port: rng.integers(code.minimum, code.maximum, (5, count) if port != "bias" else (5,), endpoint=True)
              for port, (code, count) in DESIGN.format.inputs_of.items()}
    report = verify(DESIGN, inputs, **options)
    assert report.passed and report.outputs.size == 5, f"seed {SEED}"
    return report


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """A working folder with a strange name, a strange temporary folder, and no warning given yet."""
    folder = tmp_path / STRANGE
    (folder / "temporary").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
    monkeypatch.setattr(errors, "_warned", set())
    return folder


@pytest.mark.parametrize("simulator", FAST_AND_LONG)
def test_strange_folders(here, simulator):
    """Temporary, build, output and working folder; what was built is kept, and nothing beside it."""
    waveform = Path("c d.wave") if simulator == usable_simulators()[-1] else None  # one shows it, and builds faster
    report = check(simulator=simulator, build_dir="a b", waveform=waveform)
    assert report.simulator.name == simulator
    assert waveform is None or waveform.stat().st_size > 0
    assert {"build.log", "simulation.log", f"{DESIGN.name}.v", "results.xml"} <= set(os.listdir(here / "a b"))
    assert set(os.listdir(here)) - {"c d.wave"} == {"a b", "temporary"} and not os.listdir(here / "temporary")


def test_a_build_folder_is_used_again(here):
    for _ in range(2):
        check(simulator=usable_simulators()[-1], cache=False, build_dir="a b")


@pytest.mark.parametrize("simulator", FAST_AND_LONG)
def test_a_strange_environment(here, simulator, monkeypatch):
    """No path of the installation is taken as it is: all that makefiles and the linker get are links' names."""
    monkeypatch.setenv("BMHW_CACHE_DIR", str(here / "cache"))  # nothing is built yet
    monkeypatch.setattr(plain_names, "is_plain", lambda path: False)
    check(simulator=simulator, build_dir="built")
    if simulator == "verilator":
        made = (here / "built" / "Vtop.mk").read_text() + (here / "built" / "Vtop_classes.mk").read_text()
        assert "VERILATOR_ROOT = tools/verilator\n" in made and "-Wl,-rpath,tools/libs_dir" in made
        assert "verilator.o: tools/share_dir/" in made
    check(simulator=simulator)  # from the cache, whose build needs the links when it runs


def test_a_waveform_with_its_usual_name_in_the_build_folder(tmp_path):
    (tmp_path / "built").mkdir()
    for folder in ("built", "strange built"):
        path = tmp_path / folder / f"{DESIGN.name}.fst"
        check(simulator=usable_simulators()[-1], build_dir=tmp_path / folder, waveform=path, cache=False)
        assert path.stat().st_size > 0


@pytest.mark.parametrize("name", ["notes.txt", "result.npz", f"{DESIGN.name}.v"])
def test_a_build_folder_with_other_files_is_left_alone(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("x")
    with pytest.raises(UsageError, match=f"Build folder must be new, empty or of an earlier build.*{name}"):
        check(simulator=usable_simulators()[-1], build_dir=tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == [name] and (tmp_path / "mine" / name).read_text() == "x"


def test_a_build_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"cannot build in .*file"):
        check(simulator=usable_simulators()[-1], build_dir=tmp_path / "file")


def test_no_plain_place_for_temporary_files_is_said(monkeypatch):
    monkeypatch.setattr(work_folder, "is_plain", lambda path: False)
    with pytest.raises(RunError, match=r"no place for temporary files.*TMPDIR"):
        check(simulator=usable_simulators()[-1], cache=False)


class TestBrokenVerilator:
    """``auto`` goes on with Icarus and says why in one line; Verilator asked for by name fails with the cause."""

    @pytest.fixture
    def program(self, monkeypatch, tmp_path):
        """A function that puts a program first on the PATH."""
        if usable_simulators() != ["verilator", "icarus"]:
            pytest.skip("one simulator takes over from another: both must be installed")
        (tmp_path / "first").mkdir()
        monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "first"), os.environ["PATH"]]))

        def write(name: str, script: str) -> None:
            (tmp_path / "first" / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "first" / name).chmod(0o755)

        return write

    @pytest.mark.parametrize("script, cause", [
        ("exit 1", "ends with status 1"),
        ("echo cannot open shared object >&2; exit 127", "ends with status 127: cannot open shared object"),
        ("echo Verilator 5.048; exit 1", "ends with status 1"),
        ("true", "does not tell its version"),
        ("echo Verilator 4.200", "older than 5.36"),
    ])
    def test_one_that_does_not_start(self, program, monkeypatch, capsys, script, cause):
        monkeypatch.setattr(simulators, "_packaged_verilator", lambda: None)
        program("verilator", script)
        for _ in range(2):
            assert find_simulator().name == "icarus"
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and cause in said and "Icarus Verilog" in said
        with pytest.raises(RunError, match=cause):
            find_simulator("verilator")

    def test_a_packaged_one_that_does_not_run_here(self, program, monkeypatch, capsys, tmp_path):
        (tmp_path / "package" / "bin").mkdir(parents=True)
        for name in ("verilator", "verilator_bin"):
            (tmp_path / "package" / "bin" / name).write_text("for another machine")
            (tmp_path / "package" / "bin" / name).chmod(0o755)
        monkeypatch.setattr(simulators, "_packaged_verilator", lambda: tmp_path / "package")
        assert find_simulator().name == "icarus" and "does not run" in capsys.readouterr().err

    @pytest.mark.parametrize("tool", ["make", "g++"])
    def test_one_that_cannot_build(self, program, monkeypatch, capsys, tool):
        monkeypatch.delenv("CXX", raising=False)
        real = shutil.which(tool)
        program(tool, f'[ "$1" = --version ] && exec {real} --version; echo error: no memory >&2; exit 2')
        report = check(cache=False)
        said = capsys.readouterr().err
        assert report.simulator.name == "icarus"
        assert said.count("\n") == 1 and "Verilator" in said and "no memory" in said and "Icarus Verilog" in said
        with pytest.raises(RunError, match=r"Verilator .* cannot build .*no memory"):
            check(simulator="verilator", cache=False)
        with pytest.raises(RunError, match=r"Verilator .* cannot build .*no memory"):
            check(cache=False, waveform=Path("wave"))  # its format is the simulator's

    def test_a_broken_icarus_is_one_line(self, program):
        program("vvp", "echo vvp: no memory >&2; exit 3")
        with pytest.raises(RunError, match=r"Icarus .*no memory"):
            check(simulator="icarus", cache=False)

    def test_none_that_works_fails_with_the_first_cause(self, program):
        program("make", "echo error: no memory >&2; exit 2")
        program("iverilog", '[ "$1" = -V ] && echo Icarus Verilog version 11.0 && exit 0; exit 1')
        with pytest.raises(RunError, match=r"Verilator .* cannot build .*no memory"):
            check(cache=False)
