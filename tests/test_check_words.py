"""scripts/check-words finds what it is for, in prose, help and the page's words, and leaves code alone."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/check-words"
LONG = "word " * 26
TABLE = "## Plain English\n\n| not | but |\n|---|---|\n| `behind a kill` | after a kill |\n"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("check_words", str(SCRIPT))
    spec = spec_from_loader("check_words", loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "CONVENTIONS", tmp_path / "docs/conventions.md")
    monkeypatch.setattr(module, "STATIC", tmp_path / "static")
    module.CONVENTIONS.write_text(TABLE)
    (tmp_path / "README.md").write_text("# chaku\n")
    return module


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("README.md", "Resumes behind\na kill.\n", "README.md:1: 'behind a kill': write after a kill"),
        ("docs/a.md", f"Short.\n\n* {LONG}.\n", "docs/a.md:3: a sentence of 26 words: " + "word " * 8 + "..."),
        ("docs/cli.md", "```text\nGoes behind a kill.\n```\n", "docs/cli.md:2: 'behind a kill': write after a kill"),
        ("static/a.js", '\nlabel="Wait behind a kill"', "static/a.js:2: 'behind a kill': write after a kill"),
    ],
)
def test_a_phrase_or_a_long_sentence_is_found_with_its_line(
    script: ModuleType, tmp_path: Path, name: str, text: str, fault: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert list(script.faults()) == [fault]


@pytest.mark.parametrize(
    "text", [f"```sh\n{LONG}\n```\n", "word " * 20 + f". {'Word ' * 20}.\n", f"`{LONG}` is code.\n"]
)
def test_code_and_sentences_of_a_fair_length_pass(script: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert list(script.faults()) == []
