# SPDX-License-Identifier: Apache-2.0
"""A simulation that is interrupted or too slow leaves no process and no folder; a long one shows how far it is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bmhw.errors import TimeLimitError, UsageError
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons.design import Design
from bmhw.show import progress
from bmhw.sim import random_vectors, usable_simulators, verify
from bmhw.simulate import main

FAST = usable_simulators()[-1]
DESIGN = Design(format=BmFormat(inputs=9, bits=4), form="serial")
ENDLESS = 200_000
"""Vectors of nine elements: minutes in every simulator."""

# A shell without job control starts its background jobs, these tests too then, with SIGINT ignored.
SCRIPT = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bmhw.command_line import run
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.formats.bm import BmFormat
from bmhw.sim import random_vectors, verify
design = Design(format=BmFormat(inputs=9, bits=4), form="serial")
run(lambda _: verify(design, random_vectors(design.format, {ENDLESS}, seed=0), simulator="SIMULATOR"))
"""

SEEN = {("icarus", "simulation"): ("vvp",), ("verilator", "simulation"): (DESIGN.name,),
        ("verilator", "build"): ("verilator_bin", "cc1plus")}
"""What runs while a simulator is at a stage."""


def processes(folder: Path) -> dict[int, str]:
    """The programs whose temporary files go to ``folder`` or below it, by process."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0TMPDIR={folder}".encode() in b"\0" + (process / "environ").read_bytes():
                found[int(process.name)] = os.path.basename((process / "cmdline").read_bytes().split(b"\0")[0].decode())
        except OSError:
            continue  # it is gone, or another user's
    return found


def all_gone(folder: Path) -> bool:
    """Whether no process and no file is left; who was ended by a signal takes the system a moment to remove."""
    patience = time.monotonic() + 10
    while processes(folder) and time.monotonic() < patience:
        time.sleep(0.05)
    return processes(folder) == {} and list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(("simulator", "stage"), [
    # Verilator's build is one of the quick tests, what it built in long runs: Icarus shows that stage
    pytest.param(*key, marks=pytest.mark.long if key == ("verilator", "simulation") else ())
    for key in SEEN if key[0] in usable_simulators()])
def test_a_signal_to_the_command_alone_ends_everything(simulator, stage, number, tmp_path):
    command = subprocess.Popen([sys.executable, "-c", SCRIPT.replace("SIMULATOR", simulator)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "TMPDIR": str(tmp_path), "BMHW_CACHE_DIR": os.devnull
                                    if stage == "build" else os.environ["BMHW_CACHE_DIR"]})
    try:
        while not any(program.startswith(SEEN[simulator, stage]) for program in processes(tmp_path).values()):
            assert command.poll() is None, command.stderr.read()
            time.sleep(0.05)
        command.send_signal(number)
        printed, said = command.communicate()
    finally:
        command.kill()
    assert command.returncode == 128 + number and printed == "" and "Traceback" not in said
    assert all_gone(tmp_path)


@pytest.mark.parametrize("simulator", usable_simulators())
def test_time_limit(simulator, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(TimeLimitError, match=f"{DESIGN.name} took more than the time limit of 2 s") as error:
        verify(DESIGN, random_vectors(DESIGN.format, ENDLESS, seed=0), simulator=simulator, time_limit=2)
    assert "\n" not in str(error.value)
    assert all_gone(tmp_path)


NEURON = ["--model", "stand-in", "--layer", "conv", "--channel", "1", "--count", "400", "--simulator", FAST]


def test_options_of_the_command(stand_in, capsys):
    with pytest.raises(TimeLimitError, match=r"time limit of 0\.001 s"):
        main([*NEURON, "--time-limit", "0.001"])
    with pytest.raises(UsageError, match="Time limit must be a number of seconds above 0, not '0'"):
        main([*NEURON, "--time-limit", "0"])


def test_progress_is_a_line_now_and_then(stand_in, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    assert main([*NEURON, "--no-cache", "--form", "serial", "--json", "-"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["passed"]
    lines = output.err.splitlines()
    assert any(line.startswith("building bm_relu_5bit_9in_serial with ") for line in lines)
    assert any("400 vectors in " in line and "%, " in line for line in lines)


def test_progress_tells_the_share(tmp_path):
    told = []
    assert verify(DESIGN, random_vectors(DESIGN.format, 3000, seed=0), simulator=FAST, build_dir=tmp_path,
                  progress=lambda step, share: told.append(share)).passed
    shares = [share for share in told if share is not None]
    assert shares == sorted(shares) and all(0 <= share <= 1 for share in shares)
    assert (tmp_path / "progress").read_text() == "3000"


def test_a_short_step_prints_nothing(capsys):
    with progress.activity() as tell:
        tell("short", 0.5)
    assert capsys.readouterr().err == ""
