# SPDX-License-Identifier: Apache-2.0
"""Every option of every command with values that make no sense: one line each, never a fault of the program."""

import importlib

import pytest

from bmhw import export
from bmhw.command_line import Parser
from bmhw.errors import BmhwError, RunError, UsageError
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import NextPnr
from bmhw.measure import exploration, fpga, layers, network_elements, neurons

NONSENSE = ("", "-1", "0", "999999999999", "nan", "x", "folder", "missing", "binary")
# Command -> what it needs to get as far as its work.
COMMANDS = {
    "bmhw.synth": ["--bits", "2", "--inputs", "2"],
    "bmhw.fpga": ["--bits", "2", "--inputs", "2"],
    "bmhw.layers": ["--layers", "stem"],
    "bmhw.tradeoff": ["--dataset", "digits", "--architecture", "resnet-small"],
    "bmhw.explore": ["--out", "table", "--bits", "3", "--inputs", "2"],
    "bmhw.export": ["--bits", "2", "--inputs", "2", "--out", "out"],
    "bmhw.report": [],
    "bmhw.accuracy": ["--threads", "1"],
    "bmhw.evaluate": ["--threads", "1"],
    "bmhw.train": ["--out", "runs"],
    "bmhw.model_list": ["list"],
    "bmhw.simulate": ["--model", "digits", "--layer", "stem", "--channel", "0", "--count", "3"],
}


class WorkError(RunError):
    """Raised where the work would begin."""


def work(*_, **__):
    raise WorkError("work")


@pytest.fixture(autouse=True)
def no_work(monkeypatch, tmp_path):
    """Options are checked, files are read, and nothing is measured, trained or simulated."""
    from bmhw import simulate as sim
    from bmhw.models.integer.network import IntegerNetwork
    from bmhw.models.training.trainer import Trainer

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for owner, name in ((Engine, "run"), (NextPnr, "place"), (IntegerNetwork, "classify"), (Trainer, "run"),
                        (sim, "verify"), (export, "export_files"), (network_elements, "block_verilog"),
                        *((module, "generate") for module in (exploration, fpga, layers, neurons))):
        monkeypatch.setattr(owner, name, work)


def parser_of(main, monkeypatch) -> Parser:
    """The parser that a command reads its options with."""
    found, parse = [], Parser.parse_args

    def keep(self, *arguments):
        if self.description:
            found.append(self)
            raise WorkError("parser")
        return parse(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(WorkError):
        patch.setattr(Parser, "parse_args", keep)
        main([])
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_nonsense_is_one_line(name, monkeypatch, capsys):
    main = importlib.import_module(name).main
    for action in parser_of(main, monkeypatch)._actions:
        if action.nargs == 0:  # a flag
            continue
        for value in NONSENSE:
            given, option = list(COMMANDS[name]), next(iter(action.option_strings), None)
            if option in given:
                at = given.index(option)
                del given[at:at + 2]
            given.append(value if option is None else f"{option}={value}")
            said = ""
            try:
                main(given)
            except SystemExit as ended:
                said = capsys.readouterr().err
                assert ended.code == 2 and said.count("\n") == 1, given
            except (BmhwError, OSError) as error:
                said = str(error)
                assert "\n" not in said, given
            except Exception as error:
                raise AssertionError(f"{name} {given}: {error!r}") from error
            if value == "":
                assert "must not be empty" in said, given
            capsys.readouterr()


@pytest.mark.parametrize("name, option", [
    ("bmhw.layers", "--jobs"), ("bmhw.tradeoff", "--jobs"), ("bmhw.explore", "--jobs"), ("bmhw.train", "--threads"),
    ("bmhw.evaluate", "--threads"), ("bmhw.accuracy", "--threads"), ("bmhw.synth", "--inputs"),
])
def test_no_number_is_taken_that_would_fill_the_memory(name, option):
    with pytest.raises(UsageError, match="999999999999"):
        importlib.import_module(name).main([*COMMANDS[name], f"{option}=999999999999"])
