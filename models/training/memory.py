# SPDX-License-Identifier: Apache-2.0
"""Memory of a process that takes and frees the same large blocks again and again."""

import ctypes
import os

__all__ = ["keep_memory"]

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # malloc.h


def keep_memory() -> None:
    """Let the C library keep what is freed, where it can be told to (glibc).

    Each step takes and frees the same large blocks, and so does each batch of an evaluation; given back to the system,
    every page of them is faulted in anew, which takes longer than an addition does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**27)):
            mallopt(parameter, value)
