# SPDX-License-Identifier: Apache-2.0
"""Building and running a simulation through cocotb's runner, with a cache of what was built.

The cache holds, in ``bmhw/simulations`` under the user's cache folder (or in the folder that
``BMHW_CACHE_DIR`` names), built simulations keyed by the Verilog text and the tools, and Verilator's own
run-time library, compiled once for a compiler: it takes five of the six seconds that a small neuron takes.
"""

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import RunError
from .simulators import Simulator

__all__ = ["build", "run"]

_CACHE_LIMIT_BYTES = 1 << 30
_TIMESCALE = ("1ns", "1ns")

# Widths are checked by a linter; here a warning must not end the build. Without optimisation the C++
# compiler takes minutes on large neurons, with more than this it takes longer than the simulation gains.
_BUILD_ARGUMENTS = {"verilator": ["-Wno-fatal"], "icarus": []}

# Variables by which cocotb's runner and cocotb itself take orders from outside; the caller decides here.
_FOREIGN_VARIABLES = ("WAVES", "GUI", "PYTEST_CURRENT_TEST", "COCOTB_TEST_FILTER", "COCOTB_TEST_MODULES",
                      "COCOTB_RANDOM_SEED", "COCOTB_RESULTS_FILE", "COCOTB_TOPLEVEL")

_environment_lock = threading.RLock()


def build(verilog: str, top: str, folder: Path, simulator: Simulator, *, waves: bool, cache: bool) -> None:
    """Build the simulation of module ``top`` in ``folder``; :class:`RunError` with the tool's first error."""
    program = folder / ("sim.vvp" if simulator.name == "icarus" else top)
    # a build with waveforms names its folder
    key = None if waves else _key("simulation", verilog, top, simulator.toolchain, _cocotb_place())
    store = _open_cache() if cache else None
    if store is not None and key is not None and (content := store.get(key)) is not None:
        program.write_bytes(content)
        program.chmod(0o755)
        return
    source = folder / f"{top}.v"
    source.write_text(verilog)
    runtime_key = _key("runtime", simulator.toolchain, str(waves))
    restored = _restore_runtime(store, runtime_key, folder)
    log = folder / "build.log"
    with _environment(simulator):
        runner = _runner(simulator)
        try:
            runner.build(sources=[source], hdl_toplevel=top, build_dir=folder, always=True, waves=waves,
                         timescale=_TIMESCALE, build_args=_BUILD_ARGUMENTS[simulator.name], log_file=log)
        except (RuntimeError, SystemExit) as error:
            raise RunError(f"{simulator} cannot build {top}: {_first_error(log, error)}") from None
    if store is not None:
        if key is not None:
            store.set(key, program.read_bytes())
        if not restored and simulator.name == "verilator":
            store.set(runtime_key, {path.name: path.read_bytes() for path in folder.glob("verilated*.o")})


def run(top: str, folder: Path, simulator: Simulator, *, variables: Mapping[str, str], waveform: Path | None,
        ) -> bool:
    """Run the bench in what :func:`build` left in ``folder``; whether all its tests passed.

    :class:`RunError` if the simulator ended without a result.
    """
    from cocotb_tools.check_results import get_results

    log, results = folder / "simulation.log", folder / "results.xml"
    plusargs, arguments = [], []
    if waveform is not None:
        plusargs = [f"+dumpfile_path={waveform}"] if simulator.name == "icarus" else []
        arguments = ["--trace-file", str(waveform)] if simulator.name == "verilator" else []
    with _environment(simulator):
        runner = _runner(simulator)
        try:
            runner.test("bmhw.sim.bench", top, hdl_toplevel_lang="verilog", build_dir=folder, test_dir=folder,
                        results_xml=str(results), waves=waveform is not None, plusargs=plusargs,
                        test_args=arguments, extra_env=variables, timescale=None, log_file=log)
        except (RuntimeError, SystemExit) as error:
            raise RunError(f"{simulator} ended early: {_first_error(log, error)}") from None
        except ValueError as error:  # no shared libpython
            raise RunError(f"cocotb cannot run: {error}") from None
    try:
        tests, failed = get_results(results)
    except (RuntimeError, SyntaxError) as error:
        raise RunError(f"{simulator} left no result: {_first_error(log, error)}") from None
    if tests == 0:
        raise RunError(f"{simulator} ran no test: {_first_error(log, RuntimeError('see the log'))}")
    return failed == 0


def _runner(simulator: Simulator):
    try:
        from cocotb_tools.runner import get_runner
    except ImportError:
        raise RunError("cocotb is not installed; install it with: pip install \"bmhw[sim]\"") from None
    runner = get_runner(simulator.name)
    runner.log.disabled = True  # errors are raised, and the rest is in the logs
    return runner


@contextlib.contextmanager
def _environment(simulator: Simulator) -> Iterator[None]:
    """The simulator's variables in ``os.environ``, from which cocotb's runner takes its own."""
    with _environment_lock:
        before = dict(os.environ)
        for name in _FOREIGN_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(simulator.environment)
        # an empty list: the bench's assertions carry their own messages, and pytest loads slowly
        os.environ["COCOTB_REWRITE_ASSERTION_FILES"] = ""
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _first_error(log: Path, error: BaseException) -> str:
    """The first line of the log that reads like an error, else the last one, else the exception."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] \
        if log.is_file() else []
    for line in lines:
        if "error" in line.lower():
            return line
    return lines[-1] if lines else str(error)


# -- cache


def _open_cache():
    """The cache, or None where its folder can't be used (a read-only home costs time, not the run)."""
    import sqlite3

    import diskcache
    import platformdirs

    root = os.environ.get("BMHW_CACHE_DIR") or platformdirs.user_cache_dir("bmhw")
    try:
        return diskcache.Cache(str(Path(root) / "simulations"), size_limit=_CACHE_LIMIT_BYTES)
    except (OSError, sqlite3.Error):
        return None


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _cocotb_place() -> str:
    """cocotb's version and libraries, which a simulation is linked to."""
    import cocotb
    import cocotb_tools.config

    return f"{cocotb.__version__} {cocotb_tools.config.libs_dir} {sys.version}"


def _restore_runtime(store, key: str, folder: Path) -> bool:
    objects = store.get(key) if store is not None else None
    for name, content in (objects or {}).items():
        path = folder / name
        path.write_bytes(content)
        # make compares them with a makefile that is yet to be written: only a later date keeps them
        tomorrow = time.time() + 86400
        os.utime(path, (tomorrow, tomorrow))
    return bool(objects)
