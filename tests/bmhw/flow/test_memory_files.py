# SPDX-License-Identifier: Apache-2.0
"""Words of memories in files mean what they meant in the Verilog."""

import pytest

from bmhw.flow.engine import Engine
from bmhw.flow.memory_files import FEWEST, with_memory_files
from bmhw.hdl.network.memories import Rom
from bmhw.hdl.verilog.convert import block_to_verilog


def test_a_memory_in_a_file_is_the_same_one():
    words = tuple(n * 37 % 251 for n in range(FEWEST))
    verilog = block_to_verilog(Rom(width=8, words=words), "rom")
    moved, files = with_memory_files(verilog)
    assert "initial begin" not in moved and len(files) == 1
    engine = Engine("auto", 60)
    script = "\n".join([
        "read_verilog a.v", "prep -flatten -top rom", "memory_map", "rename rom gold", "design -stash gold",
        "read_verilog b.v", "prep -flatten -top rom", "memory_map", "rename rom gate", "design -stash gate",
        "design -copy-from gold -as gold gold", "design -copy-from gate -as gate gate",
        "miter -equiv -flatten gold gate miter", "sat -verify -tempinduct -prove trigger 0 -set-init-undef miter", ""])
    with engine.stopping():
        engine.run(script, {"a.v": verilog, "b.v": moved, **files}, ())
        changed = {name: text.replace("25\n", "24\n", 1) for name, text in files.items()}
        with pytest.raises(Exception, match=r"proof did fail|Called with -verify"):
            engine.run(script, {"a.v": verilog, "b.v": moved, **changed}, ())


def test_a_short_list_stays():
    verilog = block_to_verilog(Rom(width=8, words=(1, 2, 3)), "rom")
    assert with_memory_files(verilog) == (verilog, {})
