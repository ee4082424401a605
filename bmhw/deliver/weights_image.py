# SPDX-License-Identifier: Apache-2.0
"""Images of weights as files: bytes for a chip's load port, words for benches, and what is where in them as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from bmhw.chip.assembly import Assembly
from bmhw.chip.loading import description, image_of
from bmhw.flow.files import write_atomically

__all__ = ["described", "hexadecimal", "write_image"]


def hexadecimal(words: Sequence[int], command: str) -> str:
    """Words of 32 bits of the chip's own image and of that of its bench, one a line, in the order in which the load
    port takes them, as ``$readmemh`` reads them."""
    head = ("// SPDX-License-Identifier: Apache-2.0\n"
            "// Images of weights, the chip's own and, of as many words, that of another network for the bench\n"
            f"// A word a line, written by: {command}\n")
    return head + "".join(f"{word:08x}\n" for word in words)


def described(assembly: Assembly, command: str) -> str:
    """``NAME_weights.json``: the image's length, its header, and where each memory's words lie in it."""
    fields = {"generator": "bmhw.network", "command": command, "network": assembly.network.name,
              **description(assembly)}
    return json.dumps(fields, indent=1) + "\n"


def write_image(path: Path, assembly: Assembly) -> None:
    """The image of a chip with its network: bytes, each word's lowest one first."""
    write_atomically(path, b"".join(word.to_bytes(4, "little") for word in image_of(assembly)))
