# SPDX-License-Identifier: Apache-2.0
"""The README's commands run as they are written, and print what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()
            if line.startswith("bmhw ") and "pyosys" not in line]


def test_there_are_the_make_targets_and_five_commands():
    assert BLOCKS[0].splitlines()[0].startswith("make demo") and BLOCKS[0].splitlines()[1].startswith("make test")
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_run(command, tmp_path):
    done = subprocess.run([sys.executable, "-m", *[f"bmhw.{command[1]}", *command[2:]]], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_demo_prints_what_stands_there(tmp_path):
    recipe = re.search(r"^demo:.*\n\t@\$\(RUN\) ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    done = subprocess.run([sys.executable, *shlex.split(recipe.replace("\\\n", " "))], capture_output=True, text=True,
                          env={**os.environ, "COLUMNS": "80", "BMHW_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr

    def figures(text: str) -> str:  # all but which versions printed them
        return re.sub(r"^bmhw \d.*?\n(?=Next)", "", text, flags=re.MULTILINE | re.DOTALL)

    assert figures(BLOCKS[1]).split() == figures(done.stdout).split()


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
