# SPDX-License-Identifier: Apache-2.0
"""``bmhw`` and ``python -m bmhw.NAME``: every command is there, ends as it should and can be completed."""

import json
import os
import re
import subprocess
import sys

import pytest
from support.calls import call

from bmhw.commands import COMMANDS, module_of


def python(*arguments, **environment):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=300)


@pytest.mark.parametrize("name", COMMANDS)
def test_python_m_ends_with_the_status_of_the_command(name):
    result = python("-m", f"bmhw.{name}", "--no-such-option")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(f"python -m bmhw.{name}: error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_usage_and_no_tool_names(name):
    text = module_of(name).parser().format_help()
    assert text.startswith("usage: ") and "``" not in text


def test_alone_it_shows_five_things_that_parse():
    result = call("bmhw")
    tried = re.findall(r"^  bmhw (\w+)(.*)$", result.stdout, re.MULTILINE)
    assert result.returncode == 0 and len(tried) == 5
    for name, arguments in tried:
        module_of(name).parser().parse_args(arguments.split())


def test_help_lists_every_command():
    shown = call("bmhw", "--help").stdout
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", shown, re.MULTILINE)


@pytest.mark.parametrize("arguments, said", [
    (["sinth"], "bmhw: error: unknown command sinth (did you mean synth?); bmhw --help lists the commands\n"),
    (["--versoin"], "bmhw: error: unknown option --versoin"),
    (["synth", "--bitss", "3"], "bmhw synth: error: unknown option --bitss (did you mean --bits?)"),
    (["synth", "--bits", "30"], "bmhw synth: error: Width in bits must be an integer from 2 to 16, not 30\n"),
])
def test_what_is_wrong_is_one_line_with_the_command_as_it_was_called(arguments, said):
    result = python("-c", "from bmhw.__main__ import command; import sys; sys.argv[0] = 'bmhw'; command()", *arguments)
    assert result.returncode == 2 and result.stderr.startswith(said) and result.stderr.count("\n") == 1


def test_a_command_below_bmhw_does_what_its_module_does():
    asked = ["--bits", "2", "--inputs", "2", "--json", "-"]
    assert json.loads(call("bmhw", "synth", *asked).stdout) == json.loads(call("bmhw.synth", *asked).stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(shell):
    script = call("bmhw", "completion", shell).stdout
    for word in (*COMMANDS, "maximum-bits", "init-from"):
        assert word in script


def test_the_completion_of_bash_completes(tmp_path):
    file = tmp_path / "bmhw.bash"
    file.write_text(call("bmhw", "completion", "bash").stdout)
    ask = (f"source {file}; COMP_WORDS=(bmhw synth --maximum-b); COMP_CWORD=2; _shtab_bmhw bmhw --maximum-b synth;"
           ' echo "${COMPREPLY[@]}"')
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True).stdout.split() == ["--maximum-bits"]


def test_doctor_finds_what_is_here_and_says_how_to_get_the_rest(monkeypatch):
    found = {tool["name"]: tool for tool in json.loads(call("bmhw", "doctor", "--json", "-").stdout)["tools"]}
    assert found["Python"]["where"] == sys.executable
    for tool in found.values():
        assert (tool["version"] is None) == (tool["where"] is None) and (tool["version"] or tool["remedy"])
    from bmhw import doctor

    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    result = call("bmhw.doctor")
    [line] = [line for line in result.stdout.splitlines() if line.startswith("torch ")]
    assert "not found" in line and "pip install 'bmhw[models]'" in line and result.returncode == 0


def test_doctor_fails_where_no_neuron_can_be_measured(monkeypatch):
    from bmhw.flow import engine

    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    result = call("bmhw.doctor")
    assert result.returncode == 1 and "Next: install Yosys and abc" in result.stdout
