# SPDX-License-Identifier: Apache-2.0
"""C++ sources of this package as libraries: compiled once with g++, kept in the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import platformdirs

from bmhw.models.files.writing import write_atomically

__all__ = ["library"]

MACHINE = "native"
"""The instruction set that is compiled for: this processor's."""

# a product and a sum rounded together, where the processor can, would give other results than where it can't
FLAGS = ("-O3", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "-fopenmp", "-Wno-psabi")


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
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "no C++ compiler (g++) found"
    try:
        flags = (f"-march={machine}", *FLAGS)
        key = hashlib.sha256(
            b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
            + " ".join((compiler, *flags)).encode() + target([compiler, *flags]).encode()
        ).hexdigest()
        path = Path(platformdirs.user_cache_dir("bmhw")) / "native" / f"{name}-{key[:16]}.so"
        if not path.is_file():
            write_atomically(
                path,
                lambda temporary: subprocess.run(
                    [compiler, *flags, "-o", str(temporary), str(source)],
                    check=True,
                    capture_output=True,
                    text=True,
                ),
            )
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        return f"{compiler} can't compile {source.name}: {error.stderr.strip().splitlines()[:1]}"
    except OSError as error:
        return f"the compiled {name} can't be used: {error}"
