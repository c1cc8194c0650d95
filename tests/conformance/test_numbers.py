"""`make numbers`: the published figures, computed again, are those of docs/numbers.md."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from shared_data import SHARED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/numbers.md"


def write_numbers(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the script here and give its exit code."""
    monkeypatch.setattr("sys.argv", ["write-numbers", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts/write-numbers"), run_name="__main__")
    assert isinstance(ended.value.code, int), ended.value.code
    return ended.value.code


def test_every_figure_that_can_be_computed_here_is_the_published_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = write_numbers(monkeypatch, "--data", SHARED)
    printed = capsys.readouterr().out
    assert code == 0, printed
    num_skipped = 0 if SHARED.is_dir() else 3
    assert printed.splitlines()[-1].endswith(f"0 faults, {num_skipped} sections skipped")


def test_a_changed_figure_is_a_fault_and_absent_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "numbers.md"
    page.write_text(PAGE.read_text().replace("v1.5 | 125K | 125K", "v1.5 | 125K | 126K").replace("$440", "$441"))
    assert write_numbers(monkeypatch, "--page", page, "--data", tmp_path) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line[:30] for line in printed if line.startswith("changed")] == [
        "changed: | model card: convers", "changed: | training 7B on dema",
    ]  # fmt: skip
    assert sum(line.startswith("skipped: ") and str(tmp_path) in line for line in printed) == 3


def test_writing_without_the_files_keeps_what_the_page_says_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "numbers.md"
    page.write_text(PAGE.read_text())
    assert write_numbers(monkeypatch, "--page", page, "--data", tmp_path, "--write") == 0
    assert page.read_text() == PAGE.read_text()
