# SPDX-License-Identifier: Apache-2.0
"""How fast ``python -m bmhw.synth`` is, against a bare run of Yosys on the same Verilog in the same minute.

Prints each figure with its limit; exit status 1 if one is missed. The machine must have nothing else to do.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.scripts import ABC_GATES, abc_files, yosys_script
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons.design import Design
from bmhw.measure.generation import generate

RUNS = 3  # the best of so many: what else the machine does only makes a run slower


def seconds(*arguments: str, cache: Path) -> float:
    """Wall-clock time of one command."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bmhw.synth", *arguments], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "BMHW_CACHE_DIR": str(cache)})
    return time.perf_counter() - start


def bare_yosys(design: Design) -> float:
    source = generate(design, Cache(None))
    inputs = {"design.v": source.verilog, **abc_files(ABC_GATES["area"])}
    start = time.perf_counter()
    Engine().run(yosys_script(source.name, [], liberty=False), inputs, ("netlist.json",))
    return time.perf_counter() - start


def main() -> int:
    missed = 0

    def report(what: str, value: float, limit: float, unit: str) -> None:
        nonlocal missed
        missed += value > limit
        print(f"{what:58} {value:7.2f} {unit:6} (at most {limit:.2f}){'' if value <= limit else '  MISSED'}")

    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder) / str(number) for number in range(RUNS)]
        neuron = ("--bits", "8", "--neuron", "bm")
        seconds(*neuron, "--no-cache", cache=caches[0])  # warm: files read, bytecode compiled
        bare = min(bare_yosys(Design(format=BmFormat(inputs=9, bits=8))) for _ in range(RUNS))
        first = min(seconds(*neuron, cache=cache) for cache in caches)
        print(f"bare Yosys on the Verilog of --bits 8 --neuron bm: {bare:.2f} s; the command: {first:.2f} s")
        report("(command - 1 s) / bare Yosys", (first - 1.0) / bare, 1.3, "times")
        again = min(seconds(*neuron, cache=cache) for cache in caches)
        report("the same from the cache", again, 1.0, "s")
        report("--compare --inputs 64 (two processors)",
               seconds("--compare", "--inputs", "64", "--no-cache", cache=caches[0]), 30.0, "s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
