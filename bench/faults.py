"""Break things under load, and count what clients see. Real processes: a gateway, three workers, streams.

    python bench/faults.py [kill drain freeze slow reset gateway all_gone real] [--streams 100] [--json]
    python bench/faults.py load [--streams 1000]

Workers are scripted, so that every answer's text is known: an answer counts as whole only if it equals it. `real` uses
the built-in 135M model, and compares with the answers of an unbroken run. `load` streams at 10 tokens/s through a
gateway, and straight from the worker, and compares the gaps between tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import struct
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

from gateway import cpu_seconds

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
        self._start(name, "worker", f"m={source or self.model}", "--join", self.url, "--name", name, *options)

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


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def kill(num: int) -> dict[str, Any]:
    """kill -9 of one of three."""
    with rig() as running:
        return report(asyncio.run(streams(running.url, num, lambda: running.send("a", signal.SIGKILL))))


def drain(num: int) -> dict[str, Any]:
    """SIGTERM of one of three."""
    with rig() as running:
        seen = asyncio.run(streams(running.url, num, lambda: running.send("a", signal.SIGTERM)))
        return {**report(seen), "exit code": running.processes["a"].wait(30)}


def freeze(num: int) -> dict[str, Any]:
    """SIGSTOP of one of three, and SIGCONT once its streams are over."""
    with rig() as running:
        seen = asyncio.run(streams(running.url, num, lambda: running.send("a", signal.SIGSTOP)))
        running.send("a", signal.SIGCONT)
        return {**report(seen), "back after s": round(running.until_ready("a"), 1)}


def slow(num: int) -> dict[str, Any]:
    """One of three is ten times slower."""
    with rig(workers=("a", "b")) as running:
        source = script(running.home, "slow", delay_s=3.0, token_delay_s=0.5)
        running.start_worker("c", source=source)
        running.until_ready("c")
        began = time.monotonic()
        seen = asyncio.run(streams(running.url, num, None))
        return {**report(seen), "seconds": round(time.monotonic() - began, 1)}


class Wire:
    """A TCP proxy in front of a worker, which can reset every connection."""

    def __init__(self) -> None:
        self.port = free_port()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, target: int) -> asyncio.Server:
        """Pass bytes on to `target`."""

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", target)
            self._writers |= {writer, back}
            await asyncio.gather(pump(reader, back), pump(there, writer))
            self._writers -= {writer, back}

        return await asyncio.start_server(connected, "127.0.0.1", self.port)

    def reset(self) -> None:
        """Reset all connections (RST)."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def reset(num: int) -> dict[str, Any]:
    """The network resets every connection to one of three workers, which lives on."""

    async def run() -> dict[str, Any]:
        with rig(workers=("a", "b")) as running:
            wire, target = Wire(), free_port()
            server = await wire.serve(target)
            advertised = ("--port", str(target), "--advertise", f"http://127.0.0.1:{wire.port}")
            running.start_worker("c", *advertised)
            await asyncio.to_thread(running.until_ready, "c")
            loop = asyncio.get_running_loop()
            seen = await streams(running.url, num, lambda: loop.call_soon_threadsafe(wire.reset))
            server.close()
            return report(seen)

    return asyncio.run(run())


def gateway(num: int) -> dict[str, Any]:
    """kill -9 of the gateway, which is started again; its workers stay."""
    with rig() as running:
        pids = {name: running.processes[name].pid for name in WORKERS}
        asyncio.run(streams(running.url, num, None, over_s=0.5))
        running.send("gateway", signal.SIGKILL)
        running.processes["gateway"].wait()
        began = time.monotonic()
        running.start_gateway()
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}).encode()
        while True:
            asked = urllib.request.Request(
                running.url + "/v1/chat/completions", body, {"content-type": "application/json"}
            )
            with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=30):
                break
            if time.monotonic() - began > PATIENCE_S:
                raise SystemExit("the gateway did not serve again")
            time.sleep(0.05)
        served_s = time.monotonic() - began
        running.until_ready(*WORKERS)
        alive = all(running.processes[name].poll() is None for name in WORKERS)
        seen = asyncio.run(streams(running.url, num, None, over_s=0.5))
        return {
            **report(seen),
            "serves again after s": round(served_s, 1),
            "workers untouched": alive and pids == {name: running.processes[name].pid for name in WORKERS},
        }


def all_gone(num: int) -> dict[str, Any]:
    """kill -9 of all workers at once; others are started at once."""
    with rig() as running:

        def fault() -> None:
            for name in WORKERS:
                running.send(name, signal.SIGKILL)
            for name in WORKERS:
                running.start_worker(f"new-{name}")

        during = report(asyncio.run(streams(running.url, num, fault)))
        running.until_ready(*(f"new-{name}" for name in WORKERS))
        after = report(asyncio.run(streams(running.url, num, None)))
        return {**during, "whole after": f"{after['whole']} of {after['streams']}"}


def real(num: int) -> dict[str, Any]:
    """kill -9 of one of two workers with the 135M model, greedy, in the middle of long answers."""
    prompts = [f"Write a short story about a {what}." for what in ("fox", "ship", "lamp", "river", "clock", "king")]
    options = ("--threads", "1", "--slots", "4", "--context", "1024")
    fields = {"max_tokens": 80, "temperature": 0}

    async def ask(url: str, fault: Callable[[], None] | None) -> list[Seen]:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            running = [asyncio.create_task(stream(http, url, prompt, **fields)) for prompt in prompts]
            if fault is not None:
                await asyncio.sleep(3)
                fault()
            return await asyncio.gather(*running)

    with rig("smollm2-135m", *options, workers=("a", "b")) as running:
        unbroken = asyncio.run(ask(running.url, None))
        broken = asyncio.run(ask(running.url, lambda: running.send("a", signal.SIGKILL)))
        pairs = [(one, other) for one, other in zip(unbroken, broken, strict=True) if other.num_continued]
        return {
            "streams": len(prompts),
            "failed": sum(one.error is not None or not one.is_done for one in broken),
            "continued": len(pairs),
            "continued and equal to the unbroken run": sum(one.text == other.text for one, other in pairs),
            "first difference at character": [
                next((i for i, (a, b) in enumerate(zip(one.text, other.text, strict=False)) if a != b), -1)
                for one, other in pairs
                if one.text != other.text
            ],
        }


async def _gaps(url: str, num: int, headers: dict[str, str]) -> tuple[list[float], int]:
    """Seconds between the tokens of all streams, and the number of failures."""
    gaps: list[float] = []
    failures = 0
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one(delay_s: float) -> None:
            nonlocal failures
            await asyncio.sleep(delay_s)
            text, last = b"", None
            async with http.post(url + "/v1/chat/completions", json=body, headers=headers) as response:
                async for piece in response.content.iter_any():
                    now = time.perf_counter()
                    if last is not None:
                        gaps.append(now - last)
                    last = now
                    text += piece
            failures += text.count(b'"content":" w') != TEXT.count(" ") or not text.endswith(b"data: [DONE]\n\n")

        await asyncio.gather(*(one(5 * i / num) for i in range(num)))
    return gaps, failures


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _p99_ms(gaps: list[float]) -> float:
    return sorted(gaps)[int(0.99 * len(gaps))] * 1000


def load(num: int) -> dict[str, Any]:
    """Streams at 10 tokens/s through one gateway process, and straight from the worker."""
    with rig(workers=("a",), delay_s=0.1, token_delay_s=0.1) as running:
        direct = free_port()
        running._start(
            "direct", "serve", f"m={running.model}", "--no-ui", "--port", str(direct), "--max-connections", "3000"
        )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{direct}/health"):
                break
            time.sleep(0.1)
        pid = running.processes["gateway"].pid
        result: dict[str, Any] = {"streams": num}
        for name, url in (("direct", f"http://127.0.0.1:{direct}"), ("gateway", running.url)):
            before, mine, began, rss = cpu_seconds(pid), cpu_seconds(os.getpid()), time.monotonic(), _rss_bytes(pid)
            gaps, failures = asyncio.run(_gaps(url, num, {}))
            took = time.monotonic() - began
            result[name] = {
                "failures": failures,
                "p99 gap ms": round(_p99_ms(gaps), 1),
                "client CPU": round((cpu_seconds(os.getpid()) - mine) / took, 2),
                "gateway CPU": round((cpu_seconds(pid) - before) / took, 2),
                "gateway grew MB": round((_rss_bytes(pid) - rss) / 1e6, 1),
            }
        result["p99 gap added ms"] = round(result["gateway"]["p99 gap ms"] - result["direct"]["p99 gap ms"], 1)
        return result


SCENARIOS = {f.__name__: f for f in (kill, drain, freeze, slow, reset, gateway, all_gone, real, load)}


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n")
    results = {}
    for name in arguments.scenarios or [name for name in SCENARIOS if name != "load"]:
        results[name] = SCENARIOS[name](arguments.streams)
        if not arguments.json:
            print(f"{name}: {SCENARIOS[name].__doc__}\n  {results[name]}", flush=True)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
