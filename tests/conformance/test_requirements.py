"""Every row of docs/requirements.md prints what it says, in the order of the page."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaku.cli.main import root
from chaku_server import chaku_environment, serving
from processes import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/requirements.md").read_text()
NUM_ROWS = 43


@dataclass(frozen=True)
class Row:
    """One heading of the page with its commands and the lines that they print."""

    heading: str
    blocks: tuple[str, ...]

    @property
    def numbers(self) -> list[int]:
        return [int(number) for number in re.findall(r"R(\d+)", self.heading.partition(":")[0])]

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        pieces = [piece for block in self.blocks for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
        return [(first, lines) for first, *lines in (piece.splitlines() for piece in pieces)]


ROWS = [
    Row(text.splitlines()[0], tuple(re.findall(r"```console\n(.*?)```", text, re.DOTALL)))
    for text in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
]
TRIED = [
    pytest.param(row, id=row.heading.partition(":")[0], marks=[pytest.mark.prove] if "(minutes)" in row.heading else [])
    for row in ROWS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What looks like a clone, in which outputs may be written."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The gateway and the worker of the page."""
    os.environ.pop("OPENAI_BASE_URL", None)
    with contextlib.chdir(folder), contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(folder / "home", "--config", "examples/requirements/serve.yaml"))
        line = [sys.executable, "-m", "chaku", "worker", "parrot=scripted:", "--join", server.url, "--name", "gpu-1"]
        with (folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                line, env=chaku_environment(folder / "worker"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        stack.callback(worker.wait, 60)
        stack.callback(worker.terminate)
        deadline = time.monotonic() + PATIENCE_S
        while [row["state"] for row in server.get("/fleet")[1]["workers"]] != ["ready"]:
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()
            time.sleep(0.1)
        yield server.url


def run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command of the page: chaku's here in this process, all else in a shell."""
    variables = chaku_environment(folder / "home", COLUMNS="120", NO_COLOR="1")
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if command.startswith("chaku ") and not re.search(r"[|&>]", command):
        monkeypatch.chdir(folder)
        for name in ("CHAKU_DATA", "CHAKU_DATABASE", "CHAKU_CACHE", "COLUMNS", "NO_COLOR"):
            monkeypatch.setenv(name, variables[name])
        result = CliRunner().invoke(root, shlex.split(command)[1:], catch_exceptions=False)
        code, printed = result.exit_code, result.output
    else:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        code, printed = done.returncode, done.stdout + done.stderr
    assert code == 0, f"$ {command}\n{printed}"
    return printed


def missing_line(expected: list[str], printed: str) -> str | None:
    """The first expected line that does not follow the one before it; `...` stands for any text."""
    lines = iter(line.rstrip() for line in printed.splitlines())
    for line in expected:
        pattern = re.escape(line.rstrip()).replace(re.escape("..."), ".*")
        if line.strip() not in ("", "...") and not any(re.fullmatch(pattern, candidate) for candidate in lines):
            return line
    return None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("row", TRIED)
def test_a_row_prints_its_lines(row: Row, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, expected in row.commands:
        printed = run(command.replace("http://127.0.0.1:8000", url), folder, monkeypatch)
        line = missing_line(expected, printed)
        assert line is None, f"$ {command}\nprinted no {line!r}, but\n{printed}"


def test_every_requirement_has_a_row_and_every_row_a_command() -> None:
    assert sorted(number for row in ROWS for number in row.numbers) == list(range(1, NUM_ROWS + 1))
    assert [row.heading for row in ROWS if not row.commands] == []
    assert all(any(line not in ("", "...") for line in lines) for row in ROWS for _, lines in row.commands[-1:])


def test_a_line_that_is_not_printed_is_found_missing() -> None:
    printed = "one\ntwo words here\nthree\n"
    assert missing_line(["one", "...", "three"], printed) is None
    assert missing_line(["two ... here"], printed) is None
    assert missing_line(["three", "one"], printed) == "one"
    assert missing_line(["two"], printed) == "two"
