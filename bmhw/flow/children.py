# SPDX-License-Identifier: Apache-2.0
"""Tools in child processes: each leads a process group, so that what it started ends with it."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bmhw.errors import RunError, TimeLimitError

__all__ = ["Children"]


class Children:
    """All running children of one tool, from any thread."""

    def __init__(self):
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run_child(self, command: Sequence[str], folder: Path, name: str, time_limit: float,
                  variables: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Exit status of a command run in ``folder``, and all it said, which is also in the file ``log`` there.

        ``RunError`` once :meth:`stop` was called, ``TimeLimitError`` after ``time_limit`` seconds, with ``name``.
        ``variables``: the child's environment (default: this process's).
        """
        # temporary files of what it starts, abc for one, go into our folder: nothing stays when they are ended
        environment = {**(os.environ if variables is None else variables), "TMPDIR": str(folder)}
        with open(folder / "log", "wb") as log:
            with self._lock:
                if self.stopped:
                    raise RunError("synthesis was stopped")
                child = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                         stderr=subprocess.STDOUT, start_new_session=True)
                self._running.add(child)
            try:
                status = child.wait(time_limit)
            except subprocess.TimeoutExpired:
                raise TimeLimitError(f"{name} took more than the time limit of {time_limit:g} s") from None
            finally:
                with self._lock:
                    self._running.discard(child)
                    _end_group(child)
                child.wait()
        return status, (folder / "log").read_text(errors="replace")

    @contextmanager
    def saying(self, command: Sequence[str], folder: Path) -> Iterator[Iterator[str]]:
        """The lines that a command run in ``folder`` says on stdout, as they come; behind the block it is ended."""
        with self._lock:
            if self.stopped:
                raise RunError("it was stopped")
            child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                     start_new_session=True)
            self._running.add(child)
        try:
            yield iter(child.stdout or ())
        finally:
            with self._lock:
                self._running.discard(child)
                _end_group(child)
            child.communicate()

    def stop(self) -> None:
        """End every running child and let none start any more (from any thread)."""
        with self._lock:
            self.stopped = True
            for child in self._running:
                _end_group(child)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """End the children if the block is left by any exception, Ctrl-C and exit included."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def failure(self, name: str, status: int, log: str) -> str:
        """Why a child failed, where the tool itself gave no reason."""
        if self.stopped:
            return "synthesis was stopped"
        if status < 0:
            return f"{name} was ended by signal {-status} ({signal.Signals(-status).name})"
        last = log.strip().splitlines()[-1:] or ["it said nothing"]
        return f"{name} failed with status {status}: {last[0]}"


def _end_group(child: subprocess.Popen) -> None:
    """End a child and all that it started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)  # it leads its group
        else:
            child.kill()
    except (ProcessLookupError, PermissionError):
        pass  # it and its children are gone
