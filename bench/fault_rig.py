"""A gateway with three workers as processes, and clients that stream: what `bench/faults.py` breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from chaku.ports import free_port

TEXT = " ".join(f"w{i}" for i in range(60))
PATIENCE_S = 200.0


@dataclass
class Rig:
    """A gateway and its workers, as child processes."""

    home: Path
    port: int
    model: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    num_started: int = 0

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    def _start(self, name: str, *command: str) -> None:
        self.num_started += 1
        home = self.home / f"{name}-{self.num_started}"
        home.mkdir()
        environment = {**os.environ, "CHAKU_DATA": str(home), "CHAKU_DATABASE": f"sqlite:///{home / 'chaku.db'}"}
        with (home / "log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "chaku", *command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def start_gateway(self) -> None:
        """Start it, or start it again."""
        self._start(
            "gateway", "serve", "--no-ui", "--port", str(self.port), "--max-connections", "3000", "--continue-answers"
        )

    def start_worker(self, name: str, *options: str, source: str | None = None) -> None:
        """A worker that joins the gateway."""
        many = ("--max-connections", "3000")
        self._start(name, "worker", f"m={source or self.model}", "--join", self.url, "--name", name, *many, *options)

    def send(self, name: str, number: int) -> None:
        """Send a process a signal."""
        self.processes[name].send_signal(number)

    def states(self) -> dict[str, str]:
        """State of each worker, as the gateway sees it; empty while there is no gateway."""
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/fleet", timeout=5) as response:
            return {row["name"]: row["state"] for row in json.load(response)["workers"]}
        return {}

    def until(self, is_so: Callable[[dict[str, str]], bool]) -> float:
        """Wait; the seconds that it took."""
        began = time.monotonic()
        while not is_so(self.states()):
            if time.monotonic() - began > PATIENCE_S:
                raise SystemExit(f"waited {PATIENCE_S:g} s in vain: {self.states()}")
            time.sleep(0.1)
        return time.monotonic() - began

    def until_ready(self, *names: str) -> float:
        """Wait until these workers are ready."""
        return self.until(lambda states: all(states.get(name) == "ready" for name in names))

    def stop(self) -> None:
        """End what runs."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def script(home: Path, name: str, **reply: Any) -> str:
    """A scripted model that says TEXT."""
    path = home / f"{name}.yaml"
    path.write_text(json.dumps({"replies": [{"text": TEXT, **reply}], "slots": 2000}))
    return f"scripted:{path}"


WORKERS = ("a", "b", "c")


@contextlib.contextmanager
def rig(model: str | None = None, *options: str, workers: tuple[str, ...] = WORKERS, **reply: Any) -> Iterator[Rig]:
    """A gateway and workers that are ready."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        source = model or script(home, "m", **{"delay_s": 0.3, "token_delay_s": 0.05, **reply})
        running = Rig(home, free_port(), source)
        try:
            running.start_gateway()
            for name in workers:
                running.start_worker(name, *options)
            running.until_ready(*workers)
            yield running
        finally:
            running.stop()


@dataclass
class Seen:
    """What one client saw."""

    text: str = ""
    error: str | None = None
    is_done: bool = False
    num_continued: int = 0


async def stream(http: aiohttp.ClientSession, url: str, prompt: str = "hello", **fields: Any) -> Seen:
    """Ask for one answer."""
    seen = Seen()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": prompt}], **fields}
    try:
        async with http.post(url + "/v1/chat/completions", json=body) as response:
            if response.status != 200:
                seen.error = f"{response.status}: {(await response.text())[:200]}"
                return seen
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        seen.error = chunk["error"]["message"]
                        return seen
                    seen.num_continued = chunk.get("chaku", {}).get("continued", seen.num_continued)
                    seen.text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                seen.is_done |= line.startswith(b"data: [DONE]")
    except aiohttp.ClientError as error:
        seen.error = f"{type(error).__name__}: {error}"
    return seen


async def streams(url: str, num: int, fault: Callable[[], Any] | None, over_s: float = 2.0) -> list[Seen]:
    """So many streams, begun over `over_s` seconds; the fault comes in the middle of that."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def later(delay_s: float) -> Seen:
            await asyncio.sleep(delay_s)
            return await stream(http, url)

        running = [asyncio.create_task(later(over_s * i / num)) for i in range(num)]
        await asyncio.sleep(over_s / 2)
        if fault is not None:
            await asyncio.to_thread(fault)
        return await asyncio.gather(*running)


def report(seen: list[Seen]) -> dict[str, Any]:
    """Figures of all clients."""
    return {
        "streams": len(seen),
        "whole": sum(one.text == TEXT and one.is_done and one.error is None for one in seen),
        "failed before the first token": sum(one.error is not None and not one.text for one in seen),
        "ended with an error": sum(one.error is not None and bool(one.text) for one in seen),
        "lost or doubled": sum(one.error is None and one.text != TEXT for one in seen),
        "continued": sum(bool(one.num_continued) for one in seen),
        **({"errors": dict(Counter(one.error for one in seen if one.error).most_common(3))}),
    }
