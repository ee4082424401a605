# SPDX-License-Identifier: Apache-2.0
"""Progress: drawn on a terminal, plain lines in a log."""

import contextlib
import os
import sys

import pytest

from bmhw.show.progress import on_terminal, shares, steps, waiting

ESCAPE = "\x1b"


@pytest.fixture(params=[{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}], ids=str)
def log(request, monkeypatch):
    """Variables that colour what goes to a file make no terminal of it."""
    monkeypatch.setenv("TERM", "xterm")
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


def test_a_log_has_a_line_a_step(log, capsys):
    with steps("generating") as progress:
        progress("synthesising")
        assert capsys.readouterr().err == "synthesising ...\n"  # at once
        progress("placing, seed 1")
    assert capsys.readouterr().err == "placing, seed 1 ...\n"


def test_a_log_has_a_line_a_tenth(log, capsys):
    with shares("measuring") as progress:
        for _ in range(3):
            progress(1 / 3)
    assert capsys.readouterr().err == "".join(f"measuring: {share} %\n" for share in (30, 60, 100))
    with shares("measuring") as progress:
        for _ in range(977):  # their sum is less than 1
            progress(1 / 977)
    assert capsys.readouterr().err == "".join(f"measuring: {share} %\n" for share in range(10, 101, 10))


def test_a_log_says_nothing_of_a_wait(log, capsys):
    with waiting("generating"):
        pass
    assert capsys.readouterr().err == ""


@contextlib.contextmanager
def terminal(monkeypatch, kind: str):
    """stderr is a terminal of that kind; yields a function that gives what was written to it."""
    reader, writer = os.openpty()
    os.set_blocking(reader, False)
    with open(writer, "w") as stderr, monkeypatch.context() as patch:
        patch.setenv("TERM", kind)
        patch.setattr(sys, "stderr", stderr)

        def written() -> str:
            stderr.flush()
            parts = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    parts.append(os.read(reader, 1 << 16))
            return b"".join(parts).decode()

        yield written
    os.close(reader)


def test_a_terminal_is_drawn_on(monkeypatch):
    with terminal(monkeypatch, "xterm") as written:
        drawable = on_terminal()
        with steps("generating") as progress:
            progress("placing")
        stepped = written()
        with shares("measuring") as progress:
            progress(1.0)
        shared = written()
    assert drawable and ESCAPE in stepped and "placing" in stepped and ESCAPE in shared


def test_a_terminal_without_a_cursor_gets_lines(monkeypatch):
    with terminal(monkeypatch, "dumb") as written:
        with steps("generating") as progress:
            progress("placing")
        said = written()
    assert said.replace("\r", "") == "placing ...\n"
