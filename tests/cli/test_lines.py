"""What is printed for a person at a terminal, and whole for a pipe."""

from __future__ import annotations

import logging
import sys

import pytest

from chaku import logs
from chaku.cli.lines import say

LINE = "  models = [{name: a, source: scripted:}, {name: a-long-name, source: https://api.example/v1/a-long-address}]"


@pytest.mark.parametrize("width", [40, 80])
def test_a_long_line_is_wrapped_between_words_on_a_terminal_and_whole_in_a_pipe(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(LINE)
    assert capsys.readouterr().out == f"{LINE}\n"
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say(LINE)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(line.strip() for line in lines) == LINE.strip()
    assert all(len(line) <= width or " " not in line.strip() for line in lines)
    assert lines[0].startswith("  models") and all(line.startswith("    ") for line in lines[1:])


@pytest.mark.parametrize(("is_terminal", "wanted"), [(True, "serve.x: ready\n"), (False, " - chaku.serve.x: ready\n")])
def test_a_terminal_gets_log_lines_without_what_all_of_them_share(
    is_terminal: bool, wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    logs.set_up()
    logging.getLogger("chaku.serve.x").info("ready")
    logging.getLogger("chaku.serve.x").warning("late")
    first, second = capsys.readouterr().err.splitlines(keepends=True)
    assert first.endswith(wanted) and ("INFO" in first) is not is_terminal
    assert "WARNING" in second


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_log_line_is_wrapped_between_words_on_a_terminal_alone(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("COLUMNS", "40")
    logs.set_up()
    said = "planned model=m 32 slots of 2,048 tokens (trained for 8,192); cache 1.51 GB\nof 21.10 GB"
    logging.getLogger("chaku.x").info(said)
    err = capsys.readouterr().err
    if is_terminal:
        lines = err.splitlines()
        assert max(map(len, lines)) <= 40 and lines[1].startswith("  ") and lines[-1] == "of 21.10 GB"
        assert " ".join(err.split()).endswith(" ".join(said.split()))
    else:
        assert err.endswith(f"{said}\n")
