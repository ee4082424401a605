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

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-Wno-psabi")


@functools.cache
def library(name: str) -> ctypes.CDLL | str:
    """The library of ``NAME.cpp`` in this folder, or why there is none."""
    source = Path(__file__).parent / f"{name}.cpp"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "no C++ compiler (g++) found"
    try:
        # what "native" means here is part of the key: a cache folder may be shared by unlike machines
        target = subprocess.run(
            [compiler, "-march=native", "-Q", "--help=target"], capture_output=True, check=False
        )
        key = hashlib.sha256(
            b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
            + " ".join((compiler, *FLAGS)).encode() + target.stdout
        ).hexdigest()
        path = Path(platformdirs.user_cache_dir("bmhw")) / "native" / f"{name}-{key[:16]}.so"
        if not path.is_file():
            write_atomically(
                path,
                lambda temporary: subprocess.run(
                    [compiler, *FLAGS, "-o", str(temporary), str(source)],
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
