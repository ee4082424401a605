# SPDX-License-Identifier: Apache-2.0
"""What memories hold, in files of their own: Yosys keeps every assignment of an ``initial`` block as a cell, and takes
minutes and gigabytes for what it reads from a file at once."""

import re

__all__ = ["with_memory_files"]

_INITIAL = re.compile(r"  initial begin\n((?:    (?P<name>\w+)\[\d+\] = \d+'h[0-9a-f]+;\n)+)  end\n")
_WORD = re.compile(r"    (\w+)\[(\d+)\] = \d+'h([0-9a-f]+);\n")

FEWEST = 64
"""Words from which a file is worth it."""


def with_memory_files(verilog: str) -> tuple[str, dict[str, str]]:
    """The same Verilog with ``$readmemh`` in the place of long lists of words, and the files by name."""
    files: dict[str, str] = {}

    def moved(block: re.Match[str]) -> str:
        words = _WORD.findall(block[1])
        whole = all(name == block["name"] and int(at) == n for n, (name, at, _) in enumerate(words))
        if not whole or len(words) < FEWEST:
            return block[0]
        file = f"memory_{len(files)}.hex"
        files[file] = "".join(f"{word}\n" for _, _, word in words)
        return f'  initial $readmemh("{file}", {block["name"]});\n'

    return _INITIAL.sub(moved, verilog), files
