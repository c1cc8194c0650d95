"""`chaku serve` answers while a model is fetched or converted, says how far it is, and can be ended meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaku_server import chaku_environment, run_chaku
from file_server import FileServer, Page
from processes import PATIENCE_S


@dataclass
class Starting:
    url: str
    process: subprocess.Popen[str]

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def row(self, name: str) -> dict[str, Any]:
        """The model in /v1/models."""
        return next(row for row in self.get("/v1/models")[1]["data"] if row["id"] == name)


@contextlib.contextmanager
def starting(home: Path, *models: str) -> Iterator[Starting]:
    """`chaku serve` from the moment that it answers."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "chaku", "serve", *models, "--port", "0", "--no-ui", "--ready-fd", str(writing)]
    environment = chaku_environment(home, CHAKU_CACHE=str(home / "cache"))
    process = subprocess.Popen(command, env=environment, pass_fds=(writing,), stderr=subprocess.PIPE, text=True)
    os.close(writing)
    try:
        with os.fdopen(reading) as ready:
            yield Starting(json.loads(ready.readline())["url"], process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def hanging() -> Iterator[FileServer]:
    """A server that stops in the middle of the file."""
    with FileServer() as server:
        server.pages["/m.gguf"] = Page(bytes(2_000_000), hang=True)
        yield server


def test_health_and_models_answer_with_progress_while_a_model_is_pulled_and_sigterm_ends_it(
    tmp_path: Path, hanging: FileServer
) -> None:
    source = f"big={hanging.url}/m.gguf#sha256={'0' * 64}"
    with starting(tmp_path, source, "small=scripted:") as gateway:
        deadline = time.monotonic() + PATIENCE_S
        while not (row := gateway.row("big"))["progress"] or gateway.get("/health")[0] != 200:
            assert time.monotonic() < deadline, row
            time.sleep(0.05)
        assert (row["state"], row["detail"], 0 < row["progress"] < 1) == ("loading", "downloading", True)
        status, health = gateway.get("/health")
        assert (status, health["status"]) == (200, "ok")  # the other model is ready
        assert health["models"] == {"big": "loading", "small": "ready"}
        gateway.process.send_signal(signal.SIGTERM)
        _, said = gateway.process.communicate(timeout=PATIENCE_S)
    assert gateway.process.returncode == 0, said
    assert "Traceback" not in said
    assert not list((tmp_path / "cache").rglob("m.gguf"))  # nothing that looks whole


START_S = 1.0
"""CPU time that a start may take until the first answer; a test asserts five times that, for slow machines. Measured:
2.3 s on two busy cores, nearly all of it imports. An idle machine was not measured."""


def test_health_and_models_answer_soon_after_the_process_starts_though_a_pull_never_ends(
    tmp_path: Path, hanging: FileServer
) -> None:
    source = f"big={hanging.url}/m.gguf#sha256={'0' * 64}"
    with starting(tmp_path, source) as gateway:
        status, health = gateway.get("/health")
        row = gateway.row("big")
        cpu = psutil.Process(gateway.process.pid).cpu_times()
    assert (status, health["status"], row["state"]) == (503, "loading", "loading")
    assert cpu.user + cpu.system < 5 * START_S  # not the clock on the wall, which a busy machine stretches


def test_a_model_that_can_not_be_opened_is_failed_with_its_reason_and_the_others_are_served(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model at all")
    with starting(tmp_path, f"broken={broken}", "small=scripted:") as gateway:
        deadline = time.monotonic() + PATIENCE_S
        while gateway.row("broken")["state"] == "loading":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        row = gateway.row("broken")
        assert (row["state"], "broken.gguf" in row["detail"]) == ("failed", True)
        assert gateway.row("small")["state"] == "ready"
        assert gateway.get("/health")[0] == 200
        printed = read_until(gateway.process, "ready: ")
        (line,) = [line for line in printed if line.startswith("broken is not served: ")]
        assert "broken.gguf" in line


def read_until(process: subprocess.Popen[str], start: str) -> list[str]:
    """The lines of standard error up to the one that begins with `start`."""
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith(start):
        lines.append(process.stderr.readline())
        assert lines[-1], lines  # the end of the command
    return lines


def test_the_only_model_that_can_not_be_opened_ends_the_command_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model at all")
    done = run_chaku(tmp_path, "serve", str(broken), "--port", "0", "--no-ui")
    assert (done.returncode, "broken.gguf" in done.stderr, "Traceback" in done.stderr) == (3, True, False)
