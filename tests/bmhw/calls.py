# SPDX-License-Identifier: Apache-2.0
"""Commands as tests call them: in this process for their figures, as a process of their own for status and output."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bmhw.flow.blocks import BlockMapper
from bmhw.measure import layers as measured_layers
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


def command_of(module: ModuleType) -> Callable[..., subprocess.CompletedProcess]:
    """A function of (*arguments, **environment): the command run by ``python -m``."""

    def command(*arguments, **environment):
        return subprocess.run([sys.executable, "-m", module.__name__, *arguments], capture_output=True, text=True,
                              env={**os.environ, **environment})

    return command


def figures_without_yosys(verilog: str) -> SimpleNamespace:
    """What stands for the figures of a mapping in tests that ask what is mapped and shown, not what Yosys finds."""
    return SimpleNamespace(gates=len(verilog), depth=verilog.count("\n"), yosys="none")


def map_blocks_without_yosys(patch: pytest.MonkeyPatch) -> None:
    """Have ``bmhw.layers`` get its figures from :func:`figures_without_yosys`."""
    patch.setattr(BlockMapper, "figures", lambda self, verilog, top, **options: figures_without_yosys(verilog))


def measure_without_building(patch: pytest.MonkeyPatch) -> None:
    """Have ``bmhw.layers`` get its figures from :func:`figures_without_yosys` of a text that only names each design:
    for tests that ask which designs are measured."""
    patch.setattr(measured_layers, "generate", lambda design, cache: Generated(
        design.name, f"{design!r}\n" * design.format.inputs, 0))
    map_blocks_without_yosys(patch)
