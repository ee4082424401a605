# SPDX-License-Identifier: Apache-2.0
"""The table of placed networks in ``docs/results``: what the command writes, of the hardware that is generated."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bmhw import fpga, report
from bmhw.chip.edge import chip_of
from bmhw.chip.folding import assembled
from bmhw.chip.kinds import KINDS
from bmhw.chip.mapping import TOP
from bmhw.errors import RunError
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.options import cycles_from
from bmhw.show.chips import LARGE, figures, page, read_chips

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CHIPS = sorted((RESULTS / "chips").glob("*.json"))


@pytest.fixture
def folder(tmp_path):
    """The files of placed networks, and one of layers, without which there is nothing to report."""
    shutil.copytree(RESULTS / "chips", tmp_path / "chips")
    shutil.copy(RESULTS / "layers-relu-8-clamped-area.json", tmp_path)
    return tmp_path


def test_the_table_is_what_the_command_writes(folder):
    report.main(["--folder", str(folder)])
    for name in ("networks.json", "networks.md"):
        assert (folder / name).read_text() == (RESULTS / name).read_text(), f"{name}: python -m bmhw.report"
    written, there = ((of / "networks.svg").read_text() for of in (folder, RESULTS))
    versions = [re.search(r"Matplotlib v[\d.]+", text)[0] for text in (written, there)]
    assert written == there or versions[0] != versions[1]
    assert all(kind in there for kind in KINDS)


def test_a_row_for_each_file_and_pairs_that_can_be_compared(folder):
    rows = read_chips(folder)
    assert len(rows) == len(CHIPS) and {row["file"] for row in rows} == {f"chips/{path.name}" for path in CHIPS}
    assert all(sum(row["luts_by_kind"].values()) == row["luts"] <= row["placed_cells"] for row in rows)
    found = figures(rows)
    by_name = {(row["network"], row["device"]): row for row in rows}
    assert found["pairs"]
    for pair in found["pairs"]:
        bm, mac = (by_name[pair[kind], pair["device"]] for kind in ("bm", "mac"))
        assert (bm["device"], bm["planned_cycles"], bm["architecture"]) == (
            mac["device"], mac["planned_cycles"], mac["architecture"])
        elements = [sum(row["luts_by_kind"][kind] for kind in LARGE) for row in (mac, bm)]
        assert pair["elements_with_ends"] == elements[0] / elements[1]
        assert pair["frames_per_second"] == bm["frames_per_second"] / mac["frames_per_second"]
    text = page(found, "Written by hand", "plot.svg")
    for row in rows:
        assert f"[`{row['network']}`]({row['file']}) | {row['widths']} | {row['accuracy']:.2f} |" in text


def test_networks_of_other_cycles_or_devices_are_no_pair(folder):
    rows = read_chips(folder)
    mac = next(row for row in rows if row["neuron"] == "mac")
    for change in ({"planned_cycles": 1}, {"device": "ice40-up5k"}, {"architecture": "other"}, {"data": "other"}):
        others = [row for row in rows if row["neuron"] == "bm"] + [{**mac, **change}]
        assert not figures(others)["pairs"]


@pytest.mark.parametrize("change", [{"kinds": {}}, {"placed": None}, {"seeds": 1}, {"device": {}}])
def test_a_file_with_something_else_in_it_is_one_line(change, folder):
    path = folder / "chips" / CHIPS[0].name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=rf"{path.name} is no result of bmhw.fpga --model") as error:
        report.main(["--folder", str(folder)])
    assert "\n" not in str(error.value) and not (folder / "networks.json").exists()


def test_a_table_that_is_not_the_commands_own_stays(folder):
    (folder / "networks.md").write_text("mine")
    with pytest.raises(RunError, match=r"networks\.md: it exists and is not a file of bmhw\.report"):
        report.main(["--folder", str(folder)])
    assert (folder / "networks.md").read_text() == "mine" and not (folder / "networks.json").exists()


@pytest.mark.long
@pytest.mark.parametrize("path", CHIPS, ids=lambda path: path.stem)
def test_a_row_is_of_the_hardware_that_is_generated(path):
    """Else it has to be measured again, by the command that stands in it."""
    chip = json.loads(path.read_text())
    program, *arguments = shlex.split(chip["command"])[2:]
    assert program == "bmhw.fpga"
    args = fpga.parser().parse_args(arguments)
    verilog = block_to_verilog(chip_of(assembled(args.model, cycles_from(args), args.fold, args.device)), TOP)
    assert hashlib.sha256(verilog.encode()).hexdigest() == chip["verilog_sha256"], chip["command"]
