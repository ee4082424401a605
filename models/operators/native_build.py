# SPDX-License-Identifier: Apache-2.0
"""C++ sources of this package as libraries: compiled once with g++, kept in the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from bmhw.flow.cache import NotOursError, cache_folder, claim, without_cache
from bmhw.models.files.writing import write_atomically

__all__ = ["library"]

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-Wno-psabi")


@functools.cache
def library(name: str) -> ctypes.CDLL | str:
    """The library of ``NAME.cpp`` in this folder, or why there is none."""
    source = Path(__file__).parent / f"{name}.cpp"
    compiler = _compiler()
    if compiler is None:
        return "no C++ compiler (g++) found"
    try:
        # what "native" means here is part of the key: a cache folder may be shared by unlike machines
        target = subprocess.run(
            [*compiler, "-march=native", "-Q", "--help=target"], capture_output=True, check=False
        )
        key = hashlib.sha256(
            b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
            + " ".join((*compiler, *FLAGS)).encode() + target.stdout
        ).hexdigest()
        return _kept(compiler, source, f"{name}-{key[:16]}.so")
    except subprocess.CalledProcessError as error:
        return f"{shlex.join(compiler)} can't compile {source.name}: {_reason(error.stderr)}"
    except OSError as error:
        return f"the compiled {name} can't be used: {error}"


def _compiler() -> list[str] | None:
    """The command: the variable CXX, with its options, or the first that is found."""
    for candidate in (os.environ.get("CXX", ""), "g++", "clang++"):
        words = [candidate] if shutil.which(candidate) else shlex.split(candidate)
        if words and (program := shutil.which(words[0])):
            return [program, *words[1:]]
    return None


def _kept(compiler: list[str], source: Path, name: str) -> ctypes.CDLL:
    """The library from the cache folder, where it is put once; for this process alone if it can't be kept."""
    path, trouble = cache_folder() / name, None
    try:
        claim(path.parent)
        if path.is_file():
            return ctypes.CDLL(str(path))
    except NotOursError as error:
        trouble = error
    except OSError:
        pass  # a damaged library is replaced; whatever else it is shows when it is written
    with tempfile.TemporaryDirectory(prefix="bmhw-", ignore_cleanup_errors=True) as folder:
        built = Path(folder) / name
        # a name in the folder, not a path: neither compiler nor linker sees what the folder is called
        subprocess.run(
            [*compiler, *FLAGS, "-o", name, str(source)],
            cwd=folder, check=True, capture_output=True, text=True, errors="replace",
        )
        if trouble is None:
            try:
                write_atomically(path, lambda temporary: shutil.copyfile(built, temporary))
                return ctypes.CDLL(str(path))
            except OSError as error:
                trouble = error
        without_cache(path, trouble)
        return ctypes.CDLL(str(built))


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it said nothing")
