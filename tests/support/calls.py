# SPDX-License-Identifier: Apache-2.0
"""Commands as tests call them: in this process, for their figures, their exit status and what they write."""

import importlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bmhw.command_line import called_as, run
from bmhw.flow.blocks import BlockMapper
from bmhw.measure import layers as measured_layers
from bmhw.measure import network_elements
from bmhw.measure.element_cells import Counted
from bmhw.measure.generation import Generated


def figures_of(module: ModuleType) -> Callable[..., Any]:
    """A function of (capsys, *arguments): what the command gives for ``--json -``."""

    def figures(capsys, *arguments):
        assert module.main([*arguments, "--json", "-"]) == 0
        return json.loads(capsys.readouterr().out)

    return figures


def assert_one_line(result: subprocess.CompletedProcess, status: int, words: Iterable[str]) -> None:
    """The command ended with that status, and all that it wrote is one line on stderr that holds the words."""
    assert result.returncode == status and result.stdout == ""
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def call(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """``python -m NAME ARGUMENTS`` without an interpreter of its own, which takes seconds to start: its exit status,
    and all that Python wrote. ``environment``: variables that differ.

    That ``python -m`` itself ends so is asked of each command once (``test_commands.py``).
    """
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for variable, value in environment.items():
            patch.setenv(variable, value)
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            with called_as(f"python -m {name}"):
                run(lambda _: module.main(list(arguments)))
        except SystemExit as end:
            status = end.code
        finally:
            signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess([name, *arguments], status or 0, out.getvalue(), err.getvalue())


def command_of(module: ModuleType) -> Callable[..., subprocess.CompletedProcess]:
    """A function of (*arguments, **environment): the command, called as :func:`call` does."""
    return partial(call, module.__name__)


def figures_without_yosys(verilog: str) -> SimpleNamespace:
    """What stands for the figures of a mapping in tests that ask what is mapped and shown, not what Yosys finds."""
    return SimpleNamespace(gates=len(verilog), depth=verilog.count("\n"), yosys="none")


def map_blocks_without_yosys(patch: pytest.MonkeyPatch) -> None:
    """Have ``bmhw.layers`` get its figures from :func:`figures_without_yosys`."""
    patch.setattr(BlockMapper, "figures", lambda self, verilog, top, **options: figures_without_yosys(verilog))


def count_without_yosys(patch: pytest.MonkeyPatch) -> None:
    """Have ``bmhw.tradeoff`` get the tables of elements and ends, in thousands, from a text that only names each
    block: for tests that ask what is made of the counts."""
    patch.setattr(network_elements, "block_verilog", lambda block, cache: repr(block.key))
    patch.setattr(network_elements, "count_block", lambda text, chip, engine, cache, block_ram: Counted(
        {"luts": sum(text.encode()) % 5000 + 1000 * len(chip.device), "flip_flops": len(text)}, "Yosys 0.0 (none)"))


def measure_without_building(patch: pytest.MonkeyPatch) -> None:
    """Have ``bmhw.layers`` get its figures from :func:`figures_without_yosys` of a text that only names each design:
    for tests that ask which designs are measured."""
    patch.setattr(measured_layers, "generate", lambda design, cache: Generated(
        design.name, f"{design!r}\n" * design.format.inputs, 0))
    map_blocks_without_yosys(patch)
