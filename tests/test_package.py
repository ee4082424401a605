# SPDX-License-Identifier: Apache-2.0
"""What ``pip install`` gives: a wheel and a source archive that build, and commands that need no checkout."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PACKAGES = {"bmhw": "bmhw", "hdl": "bmhw/hdl", "sim": "bmhw/sim", "models": "bmhw/models"}
"""Folder -> where its files lie in a wheel."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The files that git tracks or would track: nothing that an earlier build left."""
    folder = tmp_path_factory.mktemp("source")
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True,
                           text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    """(wheel, source archive), as ``python -m build`` makes them: the wheel from the archive."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(tree)], check=True, capture_output=True)
    [wheel], [archive] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A function of (program, *arguments): run outside the checkout, in an environment with the wheel alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=True)
    programs = Path(sysconfig.get_path("scripts", vars={"base": str(folder / "venv")}))
    subprocess.run([programs / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", built[0]],
                   check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = {**clean, "BMHW_CACHE_DIR": str(folder / "cache")}

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run([programs / program, *arguments], cwd=folder, env=environment, capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_every_source_and_no_test(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        folder, _, rest = name.partition("/")
        if folder in PACKAGES:
            assert f"{PACKAGES[folder]}/{rest}" in names, name
    assert not [name for name in names if "test" in name.lower()]


def test_the_archive_holds_sources_and_weights(built):
    with tarfile.open(built[1]) as archive:
        members = archive.getnames()
    assert any(name.endswith("hdl/formats/bm.py") for name in members)
    assert any(name.endswith("models/weights/digits.safetensors") for name in members)


def test_the_main_command_runs_outside_the_checkout(installed):
    asked = ["--bits", "3", "--inputs", "2", "--json", "-"]
    figures = json.loads(installed("python", "-m", "bmhw.synth", *asked))
    assert figures["gates"] > 0 and figures == json.loads(installed("bmhw", "synth", *asked))
    assert f"bmhw {importlib.metadata.version('bmhw')}" in installed("bmhw", "--version")
    assert re.search(r"^torch +not found .*pip install 'bmhw\[models\]'", installed("bmhw", "doctor"), re.MULTILINE)


def test_an_export_needs_no_checkout(installed, tmp_path):
    installed("bmhw", "export", "--bits", "3", "--inputs", "2", "--out", str(tmp_path))
    assert len(list(tmp_path.glob("*.v"))) == 2
