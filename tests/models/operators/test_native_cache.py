# SPDX-License-Identifier: Apache-2.0
"""Compiled libraries in the cache folder: kept, replaced where damaged, made without it where it can't be had."""

import ctypes
import os
import shutil
from pathlib import Path

import pytest

from bmhw import errors
from bmhw.flow.cache import cache_folder
from bmhw.models.operators import native_build

pytestmark = pytest.mark.skipif(native_build._compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that the variable names, and the temporary one, with names that a shell would take apart."""
    folder, temporary = tmp_path / "c $x'y #[é]", tmp_path / "t $x'y #[é]"
    folder.mkdir()
    temporary.mkdir()
    (folder / "a").write_text("x")
    monkeypatch.setenv("BMHW_CACHE_DIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(errors, "_warned", set())
    # quick to compile: what is optimised is not the question here
    monkeypatch.setattr(native_build, "FLAGS", (*native_build.FLAGS, "-O0"))
    yield folder
    assert (folder / "a").read_text() == "x" and not os.listdir(temporary)


def library():
    """As in a new process."""
    return native_build.library.__wrapped__("maximum_of_sums")


def test_it_is_kept_and_taken_from_there(folder, monkeypatch, capsys):
    assert isinstance(library(), ctypes.CDLL)
    (kept,) = cache_folder().glob("*.so")
    assert kept.parent == folder / "bmhw-cache"
    monkeypatch.setattr(native_build, "replacing", None)  # would fail
    assert library()._name == str(kept) and capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x7fELF"])
def test_a_damaged_one_is_replaced(content, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", str)  # a name that was loaded once isn't read again in a process
        kept = Path(library())
    kept.write_bytes(content)
    assert isinstance(library(), ctypes.CDLL)
    assert kept.stat().st_size > 1000 and capsys.readouterr().err == ""


def test_a_folder_of_another_is_left_alone(folder, capsys):
    (folder / "bmhw-cache").mkdir()
    (folder / "bmhw-cache" / "theirs").write_text("x")
    assert isinstance(library(), ctypes.CDLL)
    assert os.listdir(folder / "bmhw-cache") == ["theirs"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "holds other files" in said


def test_a_full_disk_costs_the_cache_and_nothing_else(folder, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(native_build, "replacing", full)
    assert isinstance(library(), ctypes.CDLL)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and os.strerror(28) in said
    assert os.listdir(folder / "bmhw-cache") == ["CACHEDIR.TAG"]


def test_a_compiler_with_options_is_the_variable_s(monkeypatch):
    compiler = native_build._compiler()
    monkeypatch.setenv("CXX", f"{compiler[0]} -DOPTION")
    assert native_build._compiler() == [compiler[0], "-DOPTION"] and isinstance(library(), ctypes.CDLL)


def test_a_compiler_in_a_folder_with_spaces(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "c++").symlink_to(shutil.which(native_build._compiler()[0]))
    monkeypatch.setenv("CXX", str(tmp_path / "a b" / "c++"))
    assert native_build._compiler() == [str(tmp_path / "a b" / "c++")] and isinstance(library(), ctypes.CDLL)


def test_the_compiler_s_own_words_say_why_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "g++").write_text("#!/bin/sh\necho In file x: >&2; echo fatal error: no memory >&2; exit 1\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    assert library().endswith("can't compile maximum_of_sums.cpp: fatal error: no memory")
