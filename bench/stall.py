"""How llama.cpp's threads behave when other work takes their cores: time per answer and the longest gap between tokens.

    python bench/stall.py MODEL.gguf [--setting THREADS:SPIN ...] [--busy 0 1 2] [--clients 1 8 32] [--rounds 5]

SPIN is libgomp's GOMP_SPINCOUNT: how often a thread looks before it sleeps at a barrier, about 100,000 per millisecond.
`default` leaves libgomp its own 300,000. One server runs per setting; samples take turns, so that all settings meet the
same load. Needs xllamacpp. Prints a Markdown table; an answer that takes over 60 s counts as 60.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

_TOKENS = 32
_LONGEST_S = 60.0
_SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.n_threads_http = sys.argv[1], 32, 16384, 72
params.n_batch = params.n_ubatch = 256
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
_BUSY = "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(100000): pass"


@dataclass
class Samples:
    """What was seen with one setting under one load, in seconds."""

    answers_s: list[float] = field(default_factory=list)
    """From the request to the end of each answer."""
    gaps_s: list[float] = field(default_factory=list)
    """The longest silence of each answer after its first token."""


@contextlib.contextmanager
def server(model: str, setting: str) -> Iterator[str]:
    """A llama.cpp server with a setting; yields its address."""
    threads, spin = setting.split(":")
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    if spin != "default":
        env |= {"GOMP_SPINCOUNT": spin} | ({"OMP_WAIT_POLICY": "passive"} if spin == "0" else {})
    argv = [sys.executable, "-c", _SERVER, model, threads]
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def answer(session: aiohttp.ClientSession, url: str, prompt: str) -> tuple[float, float]:
    """Seconds of one streamed answer, and its longest silence between two pieces."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": _TOKENS, "temperature": 0}
    body |= {"ignore_eos": True, "stream": True}
    since = time.perf_counter()
    last_s, gap_s = None, 0.0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_S), session.post(url + "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for _ in response.content.iter_any():
                now = time.perf_counter()
                gap_s, last_s = max(gap_s, now - (last_s or now)), now
    elapsed_s = time.perf_counter() - since
    return elapsed_s, gap_s if elapsed_s < _LONGEST_S else _LONGEST_S


async def load(url: str, clients: int, samples: Samples) -> None:
    """`clients` answers at once."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        prompts = [f"{time.time()} Write story number {number}." for number in range(clients)]
        for elapsed_s, gap_s in await asyncio.gather(*(answer(session, url, prompt) for prompt in prompts)):
            samples.answers_s.append(elapsed_s)
            samples.gaps_s.append(gap_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL.gguf")
    cores = os.cpu_count() or 1
    settings = ["1:default", *(f"{cores}:{spin}" for spin in ("default", "10000", "1000", "0"))]
    parser.add_argument("--setting", nargs="+", default=settings, help="THREADS:SPIN; default: %(default)s")
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1, 2], help="processes that compute all the time")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32], help="answers at once")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each setting under each load")
    options = parser.parse_args()
    seen: dict[tuple[int, int, str], Samples] = {}
    with contextlib.ExitStack() as stack:
        urls = {setting: stack.enter_context(server(options.model, setting)) for setting in options.setting}
        for url in urls.values():
            asyncio.run(load(url, 1, Samples()))  # warm
        for _ in range(options.rounds):
            for count in options.busy:
                with busy(count):
                    for clients in options.clients:
                        for setting, url in urls.items():
                            samples = seen.setdefault((count, clients, setting), Samples())
                            asyncio.run(load(url, clients, samples))
                            print(count, clients, setting, f"{max(samples.answers_s):.2f}", file=sys.stderr, flush=True)
    print(f"load average at the end: {' '.join(f'{value:.1f}' for value in os.getloadavg())}\n")
    print("| busy | clients | threads:spin | tok/s | answer median s | answer max s | longest gap max s |")
    print("|---|---|---|---|---|---|---|")
    for (count, clients, setting), samples in sorted(seen.items(), key=lambda item: item[0][:2]):
        middle_s = statistics.median(samples.answers_s)
        cells = (clients * _TOKENS / middle_s, middle_s, max(samples.answers_s), max(samples.gaps_s))
        print(f"| {count} | {clients} | {setting} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
