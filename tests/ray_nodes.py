"""Ray nodes on this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from processes import PATIENCE_S
from waiting import eventually


class Node:
    """A Ray node on this machine, as `ray start` runs it."""

    def __init__(self, home: Path, env: dict[str, str], *words: str, python: Path = Path(sys.executable)) -> None:
        command = [str(python.parent / "ray"), "start", *words, "--num-cpus", "1", "--block"]
        memory = ["--object-store-memory", str(100 << 20), "--disable-usage-stats"]
        self.log = home / f"node-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *memory],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until_it_answers(self, port: int) -> None:
        """Wait until it listens there."""
        eventually(lambda: _answers(port), why=self.log.read_text)

    def kill(self) -> None:
        """As a lost machine: all of its processes at once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            for process in [parent, *parent.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait(PATIENCE_S)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
