"""Tokens per second and time to the first token: the engine alone against the same engine behind the chaku gateway.

    python bench/engine.py MODEL.gguf                        spawns `chaku serve MODEL.gguf` beside an engine of its own
    python bench/engine.py MODEL.gguf --gateway URL --name M measures a gateway that already runs
    python bench/engine.py MODEL.gguf --two                  two engines of one gateway: each alone, then both at once

Both sides serve the same file with the same settings and are loaded by the same client, in turns; while one is measured
the other idles. Figures are medians over the repetitions; the ratio is gateway / engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
from chaku.models.fetch.pull import pull
from chaku.models.reference import parse

_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Side:
    """Something to load: an OpenAI base URL without /v1, a key, and the model's name there."""

    url: str
    key: str
    model: str


@dataclass(frozen=True)
class Load:
    """One measurement."""

    tokens_per_s: float
    ttft_p50_s: float
    ttft_max_s: float


async def measure(side: Side, *, clients: int, tokens: int) -> Load:
    """`clients` streams at once of `tokens` tokens each, every one with a connection of its own."""
    headers = {"Authorization": f"Bearer {side.key}"}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        since = time.perf_counter()
        ttfts_s = await asyncio.gather(*(_stream(session, side, number, tokens) for number in range(clients)))
        elapsed_s = time.perf_counter() - since
    return Load(clients * tokens / elapsed_s, statistics.median(ttfts_s), max(ttfts_s))


async def _stream(session: aiohttp.ClientSession, side: Side, number: int, tokens: int) -> float:
    prompt = f"Write story number {number} about a lighthouse keeper."
    body = {
        "model": side.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    since, first_s, ended = time.perf_counter(), None, b""
    async with session.post(f"{side.url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for piece in response.content.iter_any():
            if first_s is None and b'"content":"' in piece:
                first_s = time.perf_counter() - since
            ended = (ended + piece)[-4096:]
    counted = re.search(rb'"completion_tokens":\s*(\d+)', ended)
    if first_s is None or counted is None or int(counted.group(1)) != tokens:
        raise SystemExit(f"{side.url} sent an incomplete answer: {ended[-300:]!r}")
    return first_s


@contextlib.asynccontextmanager
async def engine_alone(model: Path, slots: int, context: int, threads: int | None) -> AsyncIterator[Side]:
    """llama.cpp's own server as the engine starts it, addressed directly."""
    engine = LlamaCppEngine("bench", Settings(model, slots=slots, context=context, threads=threads, embeddings=False))
    await engine.start()
    try:
        url, key = engine.endpoint
        yield Side(url, key, "bench")
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def spawned_gateway(
    model: Path, slots: int, context: int, threads: int | None, names: tuple[str, ...] = ("bench",)
) -> AsyncIterator[list[Side]]:
    """`chaku serve` on a free port with the model under each name; its address is taken from its own output."""
    argv = [sys.executable, "-m", "chaku", "serve", *(f"{name}={model}" for name in names), "--port", "0"]
    argv += ["--slots", str(slots), "--context", str(context), *(["--threads", str(threads)] if threads else [])]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        url = await asyncio.wait_for(_address(process.stdout), _START_TIMEOUT_S)
        drain = asyncio.create_task(process.stdout.read())
        sides = [Side(url, "none", name) for name in names]
        for side in sides:
            await asyncio.wait_for(_answers(side), _START_TIMEOUT_S)
        yield sides
        drain.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _address(output: asyncio.StreamReader) -> str:
    seen = b""
    while line := await output.readline():
        seen += line
        if found := re.search(rb"http://[\w.\[\]:]+:\d+", line):
            return found.group().decode()
    raise SystemExit(f"chaku serve ended without an address:\n{seen.decode(errors='replace')}")


async def _answers(side: Side) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError, SystemExit):
            await measure(side, clients=1, tokens=1)
            return
        await asyncio.sleep(0.2)


async def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Measure both sides in turns; one row per number of clients."""
    shape = (options.model, options.slots, options.context, options.threads)
    rows: list[dict[str, object]] = []
    async with contextlib.AsyncExitStack() as stack:
        alone = await stack.enter_async_context(engine_alone(*shape))
        if options.gateway:
            gateway = Side(options.gateway.rstrip("/"), options.key, options.name)
        else:
            [gateway] = await stack.enter_async_context(spawned_gateway(*shape))
        for side in (alone, gateway):
            await measure(side, clients=2, tokens=4)
        for clients in options.clients:
            loads: dict[str, list[Load]] = {"engine": [], "gateway": []}
            for repetition in range(options.repeats):
                order = [("engine", alone), ("gateway", gateway)]
                for name, side in order if repetition % 2 == 0 else reversed(order):
                    loads[name].append(await measure(side, clients=clients, tokens=options.tokens))
            medians = {name: _median(found) for name, found in loads.items()}
            ratio = medians["gateway"].tokens_per_s / medians["engine"].tokens_per_s
            rows.append({"clients": clients, **{name: asdict(load) for name, load in medians.items()}, "ratio": ratio})
            if not options.json:
                _print_row(clients, medians, ratio)
    return rows


async def run_two(options: argparse.Namespace) -> list[dict[str, object]]:
    """Two engines of one gateway, one client each: tokens per second of each alone, and of both at once."""
    shape = (options.model, options.slots, options.context, options.threads)
    rows: list[dict[str, object]] = []
    async with spawned_gateway(*shape, names=("a", "b")) as sides:
        for _ in range(options.repeats):
            alone = [await measure(side, clients=1, tokens=options.tokens) for side in sides]
            both = await asyncio.gather(*(measure(side, clients=1, tokens=options.tokens) for side in sides))
            row = {"alone": [load.tokens_per_s for load in alone], "at_once": [load.tokens_per_s for load in both]}
            rows.append({**row, "ratio": sum(row["at_once"]) / statistics.mean(row["alone"])})
            if not options.json:
                words = "   ".join(f"{name} {a:6.1f} + {b:6.1f} tok/s" for name, (a, b) in row.items())
                print(f"{words}   at once / alone {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def _median(loads: list[Load]) -> Load:
    columns = zip(*((load.tokens_per_s, load.ttft_p50_s, load.ttft_max_s) for load in loads), strict=True)
    return Load(*(statistics.median(column) for column in columns))


def _print_row(clients: int, medians: dict[str, Load], ratio: float) -> None:
    sides = "   ".join(
        f"{name} {load.tokens_per_s:7.1f} tok/s, first token {load.ttft_p50_s:5.2f} s (max {load.ttft_max_s:5.2f})"
        for name, load in medians.items()
    )
    print(f"{clients:3} clients   {sides}   ratio {ratio:.3f}", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a .gguf; by default the built-in smollm2-135m")
    parser.add_argument("--gateway", help="URL of a running gateway, without /v1")
    parser.add_argument("--name", default="bench", help="the model's name at that gateway")
    parser.add_argument("--key", default="none")
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--two", action="store_true", help="two engines at once, each with one client")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.model = options.model or pull(parse("smollm2-135m").reference).path
    rows = asyncio.run(run_two(options) if options.two else run(options))
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
