# SPDX-License-Identifier: Apache-2.0
"""Short relative names for what Verilator's makefile and the linker are told, where an environment's path has blanks.

GNU Make splits names at blanks and can't be told otherwise. So links in the folder of the build lead to Verilator and
to cocotb's libraries, and the tools, which work in that folder, are given the links' names.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bmhw.flow.work_folder import is_plain

from .simulators import Simulator

__all__ = ["LINKS", "plain_names"]

LINKS = "tools"
"""The folder of the links, in that of the build."""


@contextmanager
def plain_names(simulator: Simulator, folder: Path) -> Iterator[dict[str, str]]:
    """Variables that replace the simulator's; cocotb, which knows its folders by itself, gives the links' names."""
    variables = dict(simulator.environment)
    if simulator.name != "verilator":
        yield variables  # Icarus is told names one by one
        return
    import cocotb_tools.config as cocotb

    before = {"share_dir": cocotb.share_dir, "libs_dir": cocotb.libs_dir}
    root = variables.get("VERILATOR_ROOT")
    if root is not None and not is_plain(root):
        variables["VERILATOR_ROOT"] = _link(folder, "verilator", root)
        # the program itself: the script of this name hands its own path to a shell as it stands
        _link(folder, "bin/verilator", Path(root) / "bin" / "verilator_bin")
        variables["PATH"] = os.pathsep.join([str(folder / LINKS / "bin"), variables["PATH"]])
    if not is_plain(sys.executable):
        # of two values make takes the last
        variables["MAKEFLAGS"] += f" PYTHON3={_link(folder, 'bin/python', sys.executable)}"
    try:
        for name, path in before.items():
            if not is_plain(path):
                setattr(cocotb, name, Path(_link(folder, name, path)))
        yield variables
    finally:
        for name, path in before.items():
            setattr(cocotb, name, path)


def _link(folder: Path, name: str, target: str | os.PathLike) -> str:
    """A link in the folder, made once; its name from there."""
    link = folder / LINKS / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or os.readlink(link) != str(target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return f"{LINKS}/{name}"
