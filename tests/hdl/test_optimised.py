# SPDX-License-Identifier: Apache-2.0
"""``python -OO`` has no docstrings and no ``assert``: what is written is the same."""

import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import bmhw.hdl
import bmhw.sim
from bmhw.hdl.block import Block, _docstring

COMMANDS = ("synth", "fpga", "layers", "tradeoff", "explore", "export", "report", "accuracy", "evaluate", "train")


def descriptions() -> dict[str, str]:
    """Class of a block -> what the Verilog says of it."""
    for module in pkgutil.walk_packages(bmhw.hdl.__path__, "bmhw.hdl."):
        importlib.import_module(module.name)
    found, kinds = {}, [Block]
    while kinds:
        kind = kinds.pop()
        found[f"{kind.__module__}.{kind.__qualname__}"] = _docstring(kind)
        kinds += kind.__subclasses__()
    return found


def written(folder: str) -> dict[str, str]:
    """What exports of both neurons write, one input a cycle, and the helps of all commands."""
    from bmhw.command_line import Parser
    from bmhw.export import main

    helps: list[str] = []

    def keep(self, *_):
        helps.append(self.format_help())
        raise SystemExit

    for neuron in ("mac", "bm"):
        main(["--neuron", neuron, "--bits", "3", "--inputs", "2", "--form", "serial", "--vectors", "5",
              "--out", folder])
    Parser.parse_args, parse = keep, Parser.parse_args
    try:
        for command in COMMANDS:
            try:
                importlib.import_module(f"bmhw.{command}").main([])
            except SystemExit:
                continue
    finally:
        Parser.parse_args = parse
    return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())} | {"help": "\n".join(helps)}


def test_the_same_bytes_without_docstrings_and_asserts(tmp_path):
    """Every block's description, exports, and the commands' helps."""
    script = ("import json, sys, test_optimised as test\n"
              "found = [test.descriptions(), test.written(sys.argv[1])]\nprint(json.dumps(found))")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "100"}
    runs = [subprocess.run([sys.executable, *options, "-c", script, str(tmp_path / folder)],
                           capture_output=True, text=True, env=environment, check=True)
            for options, folder in (([], "here"), (["-OO"], "there"))]
    (here, files), (there, others) = (json.loads(run.stdout.splitlines()[-1]) for run in runs)
    blocks = {name: text for name, text in here.items() if name != "bmhw.hdl.block.Block"}
    assert all(blocks.values()) and len(blocks) > 40
    assert there == here
    assert others == files and len(files) == 9


def test_no_check_of_a_bench_is_an_assert():
    """cocotb's tests run in the simulator's Python, which takes PYTHONOPTIMIZE from the user's environment."""
    for path in Path(bmhw.sim.__file__).parent.glob("*.py"):
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)], path
