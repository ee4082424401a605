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
from bmhw.flow.files import replacing

__all__ = ["library"]

MACHINE = "native"
"""The instruction set that is compiled for: this processor's."""

# a product and a sum rounded together, where the processor can, would give other results than where it can't; that
# nobody asks for floating-point exceptions lets loops with choices be vectorised
FLAGS = ("-O3", "-std=c++17", "-ffp-contract=off", "-fno-trapping-math", "-shared", "-fPIC", "-fopenmp", "-Wno-psabi")


def target(command: list[str]) -> str:
    """What a compiler with these options compiles for, and its version: the macros that it predefines.

    Part of a library's key, since a cache folder may be shared by unlike machines. g++ and clang++ both say it.
    """
    macros = [*command, "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(macros, capture_output=True, check=True, text=True).stdout


@functools.cache
def library(name: str, machine: str = MACHINE) -> ctypes.CDLL | str:
    """The library of ``NAME.cpp`` in this folder, or why there is none. Its results don't depend on ``machine``."""
    source = Path(__file__).parent / f"{name}.cpp"
    compiler = _compiler()
    if compiler is None:
        return "no C++ compiler (g++) found"
    try:
        command = [*compiler, f"-march={machine}", *FLAGS]
        key = hashlib.sha256(
            b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
            + shlex.join(command).encode() + target(command).encode()
        ).hexdigest()
        return _kept(command, source, f"{name}-{key[:16]}.so")
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


def _kept(command: list[str], source: Path, name: str) -> ctypes.CDLL:
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
            [*command, "-o", name, str(source)],
            cwd=folder, check=True, capture_output=True, text=True, errors="replace",
        )
        if trouble is None:
            try:
                with replacing(path) as temporary:
                    shutil.copyfile(built, temporary)
                return ctypes.CDLL(str(path))
            except OSError as error:
                trouble = error
        without_cache(path, trouble)
        return ctypes.CDLL(str(built))


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it said nothing")
