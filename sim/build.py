# SPDX-License-Identifier: Apache-2.0
"""Building and running a simulation through cocotb's runner, with a cache of what was built.

The cache holds, in the database ``simulations`` of :func:`bmhw.flow.cache.cache_folder`, built simulations
keyed by the Verilog text and the tools, and Verilator's own run-time library, compiled once for a compiler:
it takes five of the six seconds that a small neuron takes.
"""

import base64
import concurrent.futures
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bmhw.errors import RunError, TimeLimitError
from bmhw.flow.cache import Cache, cache_folder, digest
from bmhw.flow.children import Children

from .plain_names import plain_names
from .simulators import Simulator

__all__ = ["build", "run"]

_TIMESCALE = ("1ns", "1ns")

# Warnings are a linter's business and must not end the build. cocotb's runner makes every signal public,
# which triples the C++ of a neuron; the bench needs the ports alone (_public_ports).
_BUILD_ARGUMENTS = {"verilator": ["-Wno-fatal", "--no-public-flat-rw"], "icarus": []}

# Variables by which cocotb's runner and cocotb itself take orders from outside; the caller decides here.
_FOREIGN_VARIABLES = (
    "WAVES",
    "GUI",
    "PYTEST_CURRENT_TEST",
    "COCOTB_TEST_FILTER",
    "COCOTB_TEST_MODULES",
    "COCOTB_RANDOM_SEED",
    "COCOTB_RESULTS_FILE",
    "COCOTB_TOPLEVEL",
)

_environment_lock = threading.RLock()

_POLL_SECONDS = 0.1


def build(
    verilog: str,
    top: str,
    ports: Iterable[str],
    folder: Path,
    simulator: Simulator,
    *,
    waves: bool,
    cache: bool,
    deadline: float = float("inf"),
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Build the simulation of module ``top``, whose ``ports`` the bench uses, in ``folder``.

    :class:`RunError` with the tool's first error, :class:`TimeLimitError` when ``deadline``, of
    ``time.monotonic()``, passes. ``tick`` is called now and then meanwhile.
    """
    check_cocotb()
    store = Cache(cache_folder() if cache else None, "simulations")
    # with waveforms, what is built names its folder
    kept = None if waves else _key("simulation", simulator, verilog, top)
    if kept is not None and _restore(store, kept, folder):
        return
    source = folder / f"{top}.v"
    source.write_text(verilog)
    sources = [source]
    if simulator.name == "verilator":
        sources.append(folder / "ports.vlt")
        sources[-1].write_text(_public_ports(top, ports))
    runtime = _key("runtime", simulator, str(waves))
    runtime_restored = simulator.name == "verilator" and _restore(store, runtime, folder)
    log = folder / "build.log"
    with _environment(simulator, folder):
        runner = _runner(simulator, folder, deadline, tick)
        try:
            runner.build(
                sources=sources,
                hdl_toplevel=top,
                build_dir=folder,
                always=True,
                waves=waves,
                timescale=_TIMESCALE,
                build_args=_BUILD_ARGUMENTS[simulator.name],
                log_file=log,
            )
        except RuntimeError as error:
            raise RunError(f"{simulator} cannot build {top}: {_first_error(log, error)}") from None
    if kept is not None:
        _keep(store, kept, [folder / ("sim.vvp" if simulator.name == "icarus" else top)])
    if simulator.name == "verilator" and not runtime_restored:
        _keep(store, runtime, folder.glob("verilated*.o"))


def run(
    top: str,
    folder: Path,
    simulator: Simulator,
    *,
    variables: Mapping[str, str],
    waveform: Path | None,
    deadline: float = float("inf"),
    tick: Callable[[], None] = lambda: None,
) -> bool:
    """Run the bench in what :func:`build` left in ``folder``; whether all its tests passed.

    :class:`RunError` if the simulator ended without a result. ``deadline`` and ``tick`` as for :func:`build`.
    """
    from cocotb_tools.check_results import get_results

    log, results = folder / "simulation.log", folder / "results.xml"
    plusargs, arguments = [], []
    if waveform is not None:
        plusargs = [f"+dumpfile_path={waveform}"] if simulator.name == "icarus" else []
        arguments = ["--trace-file", str(waveform)] if simulator.name == "verilator" else []
    with _environment(simulator, folder):
        runner = _runner(simulator, folder, deadline, tick)
        try:
            runner.test(
                "bmhw.sim.bench",
                top,
                hdl_toplevel_lang="verilog",
                build_dir=folder,
                test_dir=folder,
                results_xml=str(results),
                waves=waveform is not None,
                plusargs=plusargs,
                test_args=arguments,
                extra_env=variables,
                timescale=None,
                log_file=log,
            )
        except RuntimeError as error:
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


def _public_ports(top: str, ports: Iterable[str]) -> str:
    """Verilator's configuration that lets the bench see the ports."""
    return "`verilator_config\n" + "".join(
        f'public_flat_rw -module "{top}" -var "{port}"\n' for port in ports
    )


def check_cocotb() -> None:
    """:class:`RunError` that says how to get cocotb where it isn't installed."""
    try:
        import cocotb  # noqa: F401
        import cocotb_tools.runner  # noqa: F401
    except ImportError as error:
        raise RunError(f'{error.name} is not installed; install it with: pip install "bmhw[sim]"') from None


def _runner(simulator: Simulator, folder: Path, deadline: float, tick: Callable[[], None]):
    from cocotb_tools.runner import get_runner

    runner = get_runner(simulator.name)
    runner.log.disabled = True  # errors are raised, and the rest is in the logs

    def execute(commands: Sequence[Sequence[str]], cwd: str | os.PathLike, stdout=None) -> None:
        """In the place of cocotb's own, which leaves its children running when it is interrupted."""
        for command in commands:
            status, said = _supervised(list(map(str, command)), Path(cwd), runner.env, deadline, tick)
            if stdout is not None:
                stdout.write(said)
                stdout.flush()
            if status:
                raise RuntimeError(f"{command[0]} failed with status {status}")

    if not callable(getattr(runner, "_execute_cmds", None)):
        raise RuntimeError("this version of cocotb starts its simulators in a way that is not known here")
    runner._execute_cmds = execute
    return runner


def _supervised(
    command: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    deadline: float,
    tick: Callable[[], None],
) -> tuple[int, str]:
    """Exit status and output of a command, which ends with all that it started when this is left.

    A thread of its own starts it: a signal interrupts the main thread only, so never while a child is being started
    and is not known yet.
    """
    children = Children()
    with concurrent.futures.ThreadPoolExecutor(1) as thread, children.stopping():
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeLimitError("no time left")
        child = thread.submit(children.run_child, command, folder, command[0], seconds, variables)
        while not child.done():
            tick()
            concurrent.futures.wait([child], _POLL_SECONDS)
        return child.result()


@contextlib.contextmanager
def _environment(simulator: Simulator, folder: Path) -> Iterator[None]:
    """The simulator's variables in ``os.environ``, from which cocotb's runner takes its own."""
    with _environment_lock, plain_names(simulator, folder) as variables:
        before = dict(os.environ)
        for name in _FOREIGN_VARIABLES:
            os.environ.pop(name, None)
        # temporary files of compilers, and of Icarus, which hands their names to a shell, go into our folder
        os.environ.update(variables, TMPDIR=str(folder))
        # an empty list: the bench's assertions carry their own messages, and pytest loads slowly
        os.environ["COCOTB_REWRITE_ASSERTION_FILES"] = ""
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _first_error(log: Path, error: BaseException) -> str:
    """The first line of the log that reads like an error, else the last one, else the exception."""
    lines = (
        [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if log.is_file()
        else []
    )
    for line in lines:
        if "error" in line.lower():
            return line
    return lines[-1] if lines else str(error)


# -- cache


def _key(what: str, simulator: Simulator, *details: str) -> str:
    """A key of everything that decides what a build gives; cocotb's libraries are linked by their place."""
    import cocotb
    import cocotb_tools.config

    return digest(
        what,
        simulator.toolchain,
        _BUILD_ARGUMENTS[simulator.name],
        cocotb.__version__,
        str(cocotb_tools.config.libs_dir),
        sys.version,
        *details,
    )


def _restore(store: Cache, key: str, folder: Path) -> bool:
    """Write the files kept under ``key``, if there are any."""
    files = store.get(key)
    for name, content in (files or {}).items():
        path = folder / name
        path.write_bytes(base64.b64decode(content))
        path.chmod(0o755)
        # make compares them with a makefile that is yet to be written: only a later date keeps them
        tomorrow = time.time() + 86400
        os.utime(path, (tomorrow, tomorrow))
    return bool(files)


def _keep(store: Cache, key: str, paths: Iterable[Path]) -> None:
    store.set(key, {path.name: base64.b64encode(path.read_bytes()).decode() for path in paths})
