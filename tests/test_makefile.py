# SPDX-License-Identifier: Apache-2.0
"""``make clean`` removes what was made here and nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
OURS = (".venv/made-here", ".venv/lib/x.py", "build/lib/x.py", "build/bdist.linux/x", "build/fpga.json",
        "dist/bmhw-0.1.0-py3-none-any.whl", "dist/bmhw-0.1.0.tar.gz", "bmhw.egg-info/PKG-INFO")
THEIRS = ("build/notes", "build/export/neuron.v", "dist/other-1.0.whl", "other.egg-info/PKG-INFO", "src/a")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def clean(tmp_path):
    """A function that makes files, cleans, and gives those that are left."""
    def run(*names: str) -> set[str]:
        shutil.copy(MAKEFILE, tmp_path)
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True, capture_output=True)
        return files(tmp_path) - {"Makefile"}

    return run


def test_ours_goes_and_theirs_stays(clean, tmp_path):
    assert clean(*OURS) == set() and {path.name for path in tmp_path.iterdir()} == {"Makefile"}
    assert clean() == set()
    assert clean(*OURS, *THEIRS) == set(THEIRS)


def test_an_environment_of_another_stays(clean):
    assert clean(".venv/pyvenv.cfg") == {".venv/pyvenv.cfg"}
    assert clean(".venv/installed-test") == set()


@pytest.mark.parametrize("name", [".venv", "build", "dist", "bmhw.egg-info"])
def test_what_a_link_leads_to_stays(clean, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "lib").mkdir(parents=True)
    for inside in ("made-here", "lib/x.py", "fpga.json", "bmhw-0.1.0.tar.gz"):
        (elsewhere / inside).write_text("x")
    before = files(elsewhere)
    (tmp_path / name).symlink_to(elsewhere)
    clean()
    assert files(elsewhere) == before and (tmp_path / name).is_symlink()
