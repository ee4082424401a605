# SPDX-License-Identifier: Apache-2.0
"""The rooms: imports go one way, as the contracts in pyproject.toml say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSIDE = ("hdl", "sim", "models")
"""Folders that are packages of ``bmhw``, though they lie beside it."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The package as it is installed: an editable installation shows an import graph only what lies in ``bmhw/``."""
    package = tmp_path_factory.mktemp("tree") / "bmhw"
    package.mkdir()
    for entry in (ROOT / "bmhw").iterdir():
        (package / entry.name).symlink_to(entry)
    for folder in INSIDE:
        (package / folder).symlink_to(ROOT / folder)
    return package


def python(tree, *arguments):
    return subprocess.run([sys.executable, *arguments], cwd=tree.parent, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tree.parent)})


def lint(tree):
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return python(tree, "-c", program, str(ROOT / "pyproject.toml"), "--no-cache")


def test_imports_go_one_way(tree):
    result = lint(tree)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def test_the_graph_holds_every_module(tree):
    """Else the contracts would hold for what isn't there."""
    program = "import grimp; print(*sorted(grimp.build_graph('bmhw', cache_dir=None).modules))"
    seen = set(python(tree, "-c", program).stdout.split())
    for folder in ("bmhw", *INSIDE):
        for path in (ROOT / folder).rglob("*.py"):
            words = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join((() if folder == "bmhw" else ("bmhw",)) + words).removesuffix(".__init__")
            assert name in seen


def test_a_wrong_import_is_found(tree, tmp_path):
    """Formats that know of neurons: the contract turns red."""
    package = tmp_path / "bmhw"
    package.mkdir()
    for entry in tree.iterdir():
        if entry.name != "hdl":
            (package / entry.name).symlink_to(entry.resolve())
    for path in (ROOT / "hdl").rglob("*.py"):
        copy = package / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    codes = package / "hdl" / "formats" / "codes.py"
    codes.write_text(codes.read_text() + "\nfrom bmhw.hdl.neurons import design  # noqa\n")
    result = lint(package)
    assert result.returncode != 0 and "formats.codes -> bmhw.hdl.neurons.design" in result.stdout
