# SPDX-License-Identifier: Apache-2.0
"""The C++ implementation of the operator: compiled once with g++, kept in the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from .files import write_atomically

__all__ = ["LARGEST_FAN_IN", "backward", "forward", "suits", "unavailable_reason"]

SOURCE = Path(__file__).parent / "max_product.cpp"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-Wno-psabi")
LARGEST_FAN_IN = 32767
"""Winners are kept in 16 bits."""


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The compiled library, or why there is none."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "no C++ compiler (g++) found"
    try:
        # what "native" means here is part of the key: a cache folder may be shared by unlike machines
        target = subprocess.run(
            [compiler, "-march=native", "-Q", "--help=target"], capture_output=True, check=False
        )
        key = hashlib.sha256(
            SOURCE.read_bytes() + " ".join((compiler, *FLAGS)).encode() + target.stdout
        ).hexdigest()
        path = Path(platformdirs.user_cache_dir("bmhw")) / "native" / f"max_product-{key[:16]}.so"
        if not path.is_file():
            write_atomically(
                path,
                lambda temporary: subprocess.run(
                    [compiler, *FLAGS, "-o", str(temporary), str(SOURCE)],
                    check=True,
                    capture_output=True,
                    text=True,
                ),
            )
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        return f"{compiler} can't compile {SOURCE.name}: {error.stderr.strip().splitlines()[:1]}"
    except OSError as error:
        return f"the compiled operator can't be used: {error}"


def unavailable_reason() -> str | None:
    """None if the C++ implementation can be used, else why not."""
    library = _library()
    return library if isinstance(library, str) else None


def suits(x: Tensor, w: Tensor) -> bool:
    """Whether this implementation can do these tensors."""
    return (
        x.device.type == "cpu"
        and x.dtype == w.dtype == torch.float32
        and w[0].numel() <= LARGEST_FAN_IN
        and unavailable_reason() is None
    )


def _shape(x: Tensor, w: Tensor, stride: int, padding: int) -> tuple[ctypes.Array, tuple[int, int]]:
    size = tuple((x.shape[axis] + 2 * padding - w.shape[axis]) // stride + 1 for axis in (2, 3))
    values = (*x.shape, w.shape[0], w.shape[2], w.shape[3], stride, padding, *size)
    return (ctypes.c_int64 * len(values))(*values), size


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def forward(x: Tensor, w: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """As ``operators.plain_forward``, winners in int16."""
    x, w = x.contiguous(), w.contiguous()
    shape, size = _shape(x, w, stride, padding)
    values = torch.empty(x.shape[0], w.shape[0], *size)
    winners = torch.empty(values.shape, dtype=torch.int16)
    _library().max_product_forward(shape, *map(_pointer, (x, w, values, winners)), torch.get_num_threads())
    return values, winners


def backward(
    gradient: Tensor,
    winners: Tensor,
    x: Tensor,
    w: Tensor,
    stride: int,
    padding: int,
) -> tuple[Tensor, Tensor]:
    """As ``operators.plain_backward``."""
    x, w, gradient = x.contiguous(), w.contiguous(), gradient.contiguous()
    shape, _size = _shape(x, w, stride, padding)
    x_gradient, w_gradient = torch.zeros_like(x), torch.zeros_like(w)
    _library().max_product_backward(
        shape, *map(_pointer, (gradient, winners, x, w, x_gradient, w_gradient)), torch.get_num_threads()
    )
    return x_gradient, w_gradient
