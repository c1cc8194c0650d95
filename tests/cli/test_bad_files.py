"""No file that a person names, whatever it is, reaches them as one of Python's own exceptions."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaku.cli import main as root_module

COMMANDS = {
    "serve a model": ["serve", "{}", "--port", "0"],
    "serve a config": ["serve", "--config", "{}", "--port", "0"],
    "serve a lora": ["serve", "smollm2-135m", "--lora", "{}", "--port", "0"],
    "serve a script": ["serve", "scripted:{}", "--port", "0"],
    "serve to a database": ["serve", "scripted:", "--port", "0", "--database", "sqlite:///{}"],
    "models show": ["models", "show", "{}"],
    "models rm": ["models", "rm", "{}"],
    "pull": ["pull", "{}"],
    "data build": ["data", "build", "{}", "-o", "new/set", "--processes", "1"],
    "data build with a recipe": ["data", "build", "--recipe", "{}", "-o", "new/set"],
    "data build with a tokenizer": ["data", "build", "good.jsonl", "-o", "new/set", "--tokenizer", "{}"],
    "data build into": ["data", "build", "good.jsonl", "-o", "{}", "--processes", "1"],
    "data report": ["data", "report", "{}"],
    "data why": ["data", "why", "{}", "x"],
    "data preview": ["data", "preview", "{}"],
    "data audit": ["data", "audit", "{}"],
    "data identity into": ["data", "identity", "--name", "a", "--org", "b", "-n", "1", "-o", "{}"],
    "train": ["train", "{}"],
    "train on a set": ["train", "on.yaml", "--set", "data={}"],
    "estimate": ["estimate", "{}", "--tokens", "1M"],
    "estimate with prices": ["estimate", "smollm2-135m", "--tokens", "1M", "--prices", "{}"],
    "launch train": ["launch", "train", "{}", "--on", "local"],
    "runs list": ["runs", "list", "{}"],
    "runs show": ["runs", "show", "{}"],
    "runs watch": ["runs", "watch", "{}"],
    "runs plot": ["runs", "plot", "{}"],
    "runs push": ["runs", "push", "{}", "me/it", "--dry-run"],
    "weights convert": ["weights", "convert", "{}", "-o", "new/out"],
    "weights convert to gguf": ["weights", "convert", "{}", "--to", "gguf", "-o", "new.gguf"],
    "weights merge": ["weights", "merge", "{}", "{}", "-o", "new/out"],
    "weights make-delta": ["weights", "make-delta", "{}", "{}", "-o", "new/out"],
    "weights apply-delta": ["weights", "apply-delta", "{}", "{}", "-o", "new/out"],
    "weights card": ["weights", "card", "{}"],
    "weights quality": ["weights", "quality", "{}", "{}", "--text", "good.jsonl"],
    "weights quality of a text": ["weights", "quality", "good.jsonl", "good.jsonl", "--text", "{}"],
    "weights plan": ["weights", "plan", "{}"],
    "keys list": ["keys", "list", "--database", "sqlite:///{}"],
    "keys create": ["keys", "create", "me", "--database", "sqlite:///{}"],
}  # fmt: skip
FILES: dict[str, Callable[[Path], Path]] = {}


def file(name: str) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    return lambda make: FILES.setdefault(name, make)


@file("missing")
def _missing(folder: Path) -> Path:
    return folder / "missing.json"


@file("empty")
def _empty(folder: Path) -> Path:
    (path := folder / "empty.jsonl").touch()
    return path


@file("empty list")
def _empty_list(folder: Path) -> Path:
    (path := folder / "list.json").write_text("[]")
    return path


@file("binary")
def _binary(folder: Path) -> Path:
    (path := folder / "binary.yaml").write_bytes(bytes(range(256)) * 8)
    return path


@file("empty folder")
def _folder(folder: Path) -> Path:
    (path := folder / "empty-folder").mkdir()
    return path


@file("below a file")
def _below(folder: Path) -> Path:
    (folder / "plain").touch()
    return folder / "plain" / "x.yaml"


@file("forbidden")
def _forbidden(folder: Path) -> Path:
    (path := folder / "forbidden.json").write_text("[]")
    path.chmod(0)
    return path


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands run in this process: a log handler of theirs would write to a stream that is closed by then."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA",):
        monkeypatch.setenv(f"CHAKU_{name}", str(tmp_path / name.lower()))
    line = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]}\n'
    (tmp_path / "good.jsonl").write_text(line)
    (tmp_path / "on.yaml").write_text("name: a\nbase: smollm2-135m\ndata: set\ntrain: {preset: tiny}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What such a file means to these commands is not a mistake: a new database, a new set, a list of nothing.
FINE = {
    ("keys create", "missing"), ("keys list", "empty"), ("keys create", "empty"),
    ("data build into", "missing"), ("data identity into", "missing"), ("data build into", "empty folder"),
    ("runs list", "missing"), ("runs list", "below a file"), ("runs list", "empty folder"),
    ("estimate with prices", "missing"),
    ("serve a script", "empty"), ("serve to a database", "missing"), ("serve to a database", "empty"),
}  # fmt: skip


_ALWAYS = {"missing", "binary", "empty folder"}


@pytest.mark.parametrize(
    "kind", [kind if kind in _ALWAYS else pytest.param(kind, marks=pytest.mark.prove) for kind in FILES]
)
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_file_that_is_not_what_it_should_be_is_one_error_and_a_way_out(
    command: str, kind: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "forbidden" and os.geteuid() == 0:
        pytest.skip("root may read every file: run the suite as a user to see this")
    if (command, kind) in FINE:
        pytest.skip("no mistake there")
    path = FILES[kind](home)
    with pytest.raises(SystemExit) as ended:
        root_module.main([word.replace("{}", str(path)) for word in COMMANDS[command]])
    printed = capfd.readouterr().err
    assert ended.value.code not in (0, None), printed
    assert "Traceback" not in printed
    assert [line.split()[0] for line in printed.splitlines()].count("error:") == 1, printed
    assert "  fix: " in printed, printed
