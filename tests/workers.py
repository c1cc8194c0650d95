"""Workers: `chaku worker` as a process, as a person runs it, and the same inside the test's event loop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaku.engines.scripted import ScriptedEngine
from chaku.serve.fleet.routes import add_worker_route
from chaku.serve.server import Serving
from chaku.serve.traces import Traces
from chaku.serve.worker.companion import Identity, Throughput, WorkerCompanion, WorkerKey, new_key
from chaku_server import chaku_environment
from gateways import Running, gateway, scripted
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


@contextlib.asynccontextmanager
async def worker_here(
    *gateways: str,
    name: str = "w",
    token: str | None = None,
    advertise: str | None = None,
    replies: Any = (),
    port: int = 0,
    traces: Traces | None = None,
    **model: Any,
) -> AsyncIterator[Running]:
    """A worker with a scripted engine that joins `gateways`; it leaves them at the block's end."""

    def engine() -> ScriptedEngine:
        return scripted(*replies, name="m", slots=4)

    key, throughput = WorkerKey(new_key()), Throughput()

    def extend(serving: Serving, url: str) -> None:
        identity = Identity(
            name=name,
            key=key,
            port=urlsplit(url).port or 0,
            advertise=advertise,
            generation=str(time.monotonic_ns()),
        )
        (served,) = serving.table
        add_worker_route(serving.app, name, identity.generation, key.token)
        WorkerCompanion(identity, serving, served, throughput, engine, gateways, token)

    options = {"joins": False, "ui": False, "extend": extend, "port": port, "model": model, "traces": traces}
    async with gateway(engine(), keys=key, **options) as running:
        yield running


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
