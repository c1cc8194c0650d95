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
import math
import os
import platform
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from chaku.ports import free_port
from fault_rig import PATIENCE_S, WORKERS, Seen, report, rig, script, stream, streams
from gateway import cpu_seconds


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
    """kill -9 of one of three workers with the 135M model, greedy, in the middle of long answers."""
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

    async def nats_apart(url: str, prompt: str, unbroken: str, broken: str) -> float:
        """How much likelier the unbroken run's token is than the other one, where the texts part."""
        asked = {"messages": [{"role": "user", "content": prompt}], "model": "m", "logprobs": True, "top_logprobs": 20}
        chat = f"{url}/v1/chat/completions"
        async with aiohttp.ClientSession() as http, http.post(chat, json={**asked, **fields}) as response:
            tokens = (await response.json())["choices"][0]["logprobs"]["content"]
        said = ""
        for token in tokens:
            if not broken.startswith(said + token["token"]):
                others = [top["logprob"] for top in token["top_logprobs"] if broken.startswith(said + top["token"])]
                return float(token["logprob"] - max(others, default=-math.inf))
            said += token["token"]
        return 0.0

    with rig("smollm2-135m", *options) as running:
        unbroken = asyncio.run(ask(running.url, None))
        broken = asyncio.run(ask(running.url, lambda: running.send("a", signal.SIGKILL)))
        pairs = [(one, other) for one, other in zip(unbroken, broken, strict=True) if other.num_continued]
        return {
            "streams": len(prompts),
            "failed": sum(one.error is not None or not one.is_done for one in broken),
            "continued": len(pairs),
            "continued and equal to the unbroken run": sum(one.text == other.text for one, other in pairs),
            "nats apart where they differ": [
                round(asyncio.run(nats_apart(running.url, prompt, one.text, other.text)), 3)
                for prompt, one, other in zip(prompts, unbroken, broken, strict=True)
                if other.num_continued and one.text != other.text
            ],
        }


LONG_TEXT = " ".join(f"w{i}" for i in range(200))
"""20 seconds at 10 tokens/s: long enough that all streams run side by side for most of it."""
BEGUN_OVER_S = 5.0


async def _gaps(url: str, num: int) -> tuple[list[float], int]:
    """Seconds between the tokens of all streams while all of them run, and the number of failures."""
    gaps: list[tuple[float, float]] = []
    first, last = [], []
    failures = 0
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one(delay_s: float) -> None:
            nonlocal failures
            await asyncio.sleep(delay_s)
            text, before = b"", None
            async with http.post(url + "/v1/chat/completions", json=body) as response:
                async for piece in response.content.iter_any():
                    now = time.perf_counter()
                    if before is None:
                        first.append(now)
                    else:
                        gaps.append((now, now - before))
                    before = now
                    text += piece
            last.append(time.perf_counter())
            is_whole = text.count(b'"content":" w') == LONG_TEXT.count(" ") and text.endswith(b"data: [DONE]\n\n")
            failures += not is_whole

        await asyncio.gather(*(one(BEGUN_OVER_S * i / num) for i in range(num)))
    return [gap for at, gap in gaps if max(first) < at - gap and at < min(last)], failures


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _p99_ms(gaps: list[float]) -> float:
    if not gaps:
        raise SystemExit("the first streams ended before the last began: this machine is too slow or too busy")
    return sorted(gaps)[int(0.99 * len(gaps))] * 1000


def load(num: int) -> dict[str, Any]:
    """Streams at 10 tokens/s straight from the worker, through one gateway process, and through it again."""
    with rig(workers=("a",), text=LONG_TEXT, delay_s=0.1, token_delay_s=0.1) as running:
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
        for name, url in (
            ("direct", f"http://127.0.0.1:{direct}"),
            *((each, running.url) for each in ("gateway", "again")),
        ):
            before, mine, began, rss = cpu_seconds(pid), cpu_seconds(os.getpid()), time.monotonic(), _rss_bytes(pid)
            gaps, failures = asyncio.run(_gaps(url, num))
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
