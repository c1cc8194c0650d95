"""Child processes of a fleet on this machine: the gateway and its workers. Each leads a session and has a log file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from chaku.config import JOIN_TOKEN_VARIABLE
from chaku.errors import ModelError, StoreError, UsageError
from chaku.launch.fleet.spec import Pool, as_yaml

LASTING = frozenset({UsageError.exit_code, ModelError.exit_code, StoreError.exit_code})
"""Exit codes after which another start would end the same way."""
_TAIL_BYTES = 4096
_TAIL_LINES = 5


class Running(Protocol):
    """One worker that was started."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or is about to; negative after a signal."""

    @property
    def place(self) -> str:
        """Where it runs, in words."""

    def ask_to_end(self) -> None:
        """Have it finish its requests and end; asked again, it ends within seconds."""

    def kill(self) -> None:
        """End it at once."""

    def last_lines(self) -> list[str]:
        """The end of its log."""


class Workers(Protocol):
    """A place that runs workers."""

    @property
    def node_address(self) -> str:
        """This machine's address, as workers reach it where the gateway binds every address."""

    async def open(self) -> None:
        """Connect. Raises ChakuError where the place is not there."""

    def start(self, name: str, pool: Pool, settings: dict[str, Any]) -> Running:
        """Start `chaku worker` with these settings."""

    async def close(self) -> None:
        """Disconnect; the workers have ended."""


@dataclass
class Process:
    """A chaku command that runs as a child, until it ends or this process does."""

    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls, words: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> Process:
        """Run `chaku WORDS`; its output goes to `log`."""
        with log.open("ab") as output:
            popen = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "chaku", *words, "--exit-with-parent"],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(pass_fds),
                start_new_session=True,  # Ctrl-C in the terminal is for the keeper, which ends its children in order
            )
        return cls(popen, log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative after a signal."""
        return self.popen.poll()

    @property
    def place(self) -> str:
        """Its process id."""
        return f"process {self.popen.pid}"

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self.popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and what it started, and wait for its end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def last_lines(self) -> list[str]:
        """The end of its log."""
        return tail(self.log)

    async def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while self.exit_code is None:
            if loop.time() > until:
                return False
            await asyncio.sleep(0.05)
        return True


@dataclass
class LocalWorkers:
    """Workers as children of this process."""

    folder: Path
    """Of the fleet's record."""
    token: str | None
    """With which they join."""
    node_address: str = "127.0.0.1"

    async def open(self) -> None:
        """Nothing to connect to."""

    def start(self, name: str, pool: Pool, settings: dict[str, Any]) -> Process:
        """Start a worker; its settings lie in a file beside its log."""
        file = self.folder / f"{name}.yaml"
        file.write_text(as_yaml(settings))
        env = {JOIN_TOKEN_VARIABLE: self.token} if self.token else {}
        return Process.start(["worker", "--config", str(file)], self.folder / "logs" / f"{name}.log", env=env)

    async def close(self) -> None:
        """Nothing to disconnect from."""


@dataclass
class GatewayProcess:
    """`chaku serve` as a child. `url` and `api_key` reach it; the key is known to this process alone."""

    process: Process
    url: str
    api_key: str
    certificate: str | None

    @classmethod
    async def start(cls, settings: dict[str, Any], folder: Path) -> GatewayProcess:
        """Start it, and wait until its API answers. Raises UsageError with its last lines if it ends first."""
        file, log = folder / "gateway.yaml", folder / "logs" / "gateway.log"
        file.write_text(as_yaml(settings))
        reading, writing = os.pipe()
        with open(reading, "rb") as ready:  # noqa: ASYNC230, PTH123 - a pipe, read in a thread
            try:
                words = ["serve", "--config", str(file), "--ready-fd", str(writing)]
                process = Process.start(words, log, pass_fds=[writing])
            finally:
                os.close(writing)
            try:
                line = await asyncio.to_thread(ready.readline)  # empty once the process has ended
            except asyncio.CancelledError:
                process.kill()
                raise
        if not line:
            process.kill()
            said = "\n  ".join(process.last_lines())
            raise UsageError(f"the gateway did not start:\n  {said}", fix=f"its log is {log}")
        told = orjson.loads(line)
        return cls(process, told["url"], told["api_key"], told.get("certificate"))


def tail(log: Path) -> list[str]:
    """The last lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if line.strip()][-_TAIL_LINES:]
