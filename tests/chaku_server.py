"""`python -m chaku serve` as a process, as a person runs it: started, asked over its port, and ended by its pid."""

from __future__ import annotations

import contextlib
import json
import os
import select
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

from chaku.config import cache_dir
from in_process import run_here
from processes import PATIENCE_S, environment

CACHE = cache_dir()  # the user's own, read before any test points elsewhere: the model is pulled once
MODEL = "smollm2-135m"
SOURCE = f"{MODEL}={given}" if (given := os.environ.get("CHAKU_TEST_MODEL")) else MODEL
ONE_THREAD = ("--threads", "1")
"""llama.cpp's threads wait for each other by spinning: with tests and other programs on the same two cores, two threads
fall from 100 to 3 tokens/s, one does not."""
SMALL = ("--context", "512", "--slots", "2", *ONE_THREAD)
"""An engine that starts in a second."""


def chaku_environment(home: Path, **extra: str) -> dict[str, str]:
    """A fresh user's, with the models that are on this machine."""
    database = f"sqlite:///{home / 'chaku.db'}"
    fresh = {"CHAKU_DATA": str(home), "CHAKU_DATABASE": database, "CHAKU_CACHE": str(CACHE)}
    return environment(**{**fresh, **extra})


def run_chaku(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, in this process."""
    return run_here(*arguments, env=chaku_environment(home, **extra))


@dataclass
class ChakuServer:
    """A running `chaku serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def base_url(self) -> str:
        """For OpenAI clients."""
        return f"{self.url}/v1"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self.log_file.read_text()

    def engines(self) -> list[psutil.Process]:
        """Every process below the gateway."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON body."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON body."""
        content = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.url + path, content, {"content-type": "application/json"}))

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def wait_until_ready(self, model: str | None = None, timeout_s: float = 2 * PATIENCE_S) -> None:
        """Until the model (by default all of them) takes requests."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            states = self.get("/health")[1]["models"]
            if all(state == "ready" for name, state in states.items() if model in (None, name)):
                return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout_s:g} s:\n{self.log}")

    def end(self, signal_number: int = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        """Send it a signal and give its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def serving(home: Path, *arguments: str, wait: bool = True, **extra: str) -> Iterator[ChakuServer]:
    """Run `chaku serve ARGUMENTS`, at a free port unless they name one, until the block ends; no process is left."""
    home.mkdir(parents=True, exist_ok=True)
    read_fd, write_fd = os.pipe()
    ready = (*(() if "--port" in arguments else ("--port", "0")), "--ready-fd", str(write_fd))
    log_file = home / f"serve-{time.monotonic_ns()}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "chaku", "serve", *arguments, *ready],
            env=chaku_environment(home, **extra),
            pass_fds=(write_fd,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(write_fd)
    try:
        server = ChakuServer(_ready_line(read_fd, log_file)["url"], process, log_file)
        if wait:
            server.wait_until_ready()
        yield server
    finally:
        os.close(read_fd)
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"SIGTERM did not end it within {PATIENCE_S:g} s:\n{log_file.read_text()}") from None
        _, left = psutil.wait_procs(below, timeout=PATIENCE_S)
        assert not left, f"processes left behind: {left}"


def _ready_line(read_fd: int, log_file: Path) -> Any:
    line = b""
    deadline = time.monotonic() + PATIENCE_S
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([read_fd], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(read_fd, 65536) if readable else b""
        assert piece, f"chaku serve did not start:\n{log_file.read_text()}"
        line += piece
    return json.loads(line)
