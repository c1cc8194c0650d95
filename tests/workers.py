"""`chaku worker` as a process, as a person runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku_server import chaku_environment
from processes import PATIENCE_S


@dataclass
class WorkerProcess:
    """A running `chaku worker`."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self.log_file.read_text()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


@contextlib.contextmanager
def worker(home: Path, *arguments: str, **extra: str) -> Iterator[WorkerProcess]:
    """Run `chaku worker ARGUMENTS` until the block ends."""
    home.mkdir(parents=True, exist_ok=True)
    log_file = home / f"worker-{time.monotonic_ns()}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "chaku", "worker", *arguments],
            env=chaku_environment(home, **extra),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield WorkerProcess(process, log_file)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
        process.wait(PATIENCE_S)


def eventually(claim: Callable[[], Any], timeout_s: float = PATIENCE_S, *, why: Callable[[], str] = lambda: "") -> Any:
    """What the claim gave once it was true."""
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, f"it never held {why()}"
        time.sleep(0.05)
    return found
