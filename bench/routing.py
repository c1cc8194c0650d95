"""What routing pays: a simulation of five kinds of traffic, and 32 real chats on four llama.cpp workers.

    python bench/routing.py simulate [--seeds 8] [--requests 3000]
    python bench/routing.py real [--chats 32] [--turns 6]

The simulation runs chaku's own router, books and prefix index against replicas whose cache, slots, prefill and decoding
are modelled. In it, all policies see the same arrivals. "Real" starts `chaku serve` and four `chaku worker` processes,
and counts the cached prompt tokens that llama.cpp reports.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import aiohttp

from chaku.serve.routing.load import CallLoad, Load, Work
from chaku.serve.routing.prefix import BLOCK_TOKENS
from chaku.serve.routing.router import Router
from chaku.settings import RoutingPolicy

POLICIES = get_args(RoutingPolicy)
NUM_REPLICAS, SLOTS = 4, 8
PREFILL_PER_S, DECODE_S, CACHE_TOKENS = 2000.0, 0.02, 60_000
SLOWER = 2.0
FLEETS = ("equal", "one slow", "one dead")


@dataclass
class Job:
    """One request; `then` gives a chat's next turn."""

    blocks: tuple[int, ...]
    num_tokens: int
    num_out: int
    then: Callable[[float], tuple[float, Job] | None] = lambda now: None
    arrived_at: float = 0.0
    first_at: float | None = None


@dataclass(eq=False)
class Replica:
    """A machine that reads one prompt at a time, and decodes beside it."""

    load: Load
    speed: float = 1.0
    running: dict[int, tuple[Job, CallLoad]] = field(default_factory=dict)
    waiting: deque[tuple[Job, CallLoad]] = field(default_factory=deque)
    reads_until: float = 0.0
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    num_read: int = 0

    def read(self, job: Job, now: float) -> tuple[float, int]:
        """When the prompt has been read, and how many of its tokens were in the cache."""
        num_hits = sum(1 for _ in itertools.takewhile(self.cache.__contains__, job.blocks)) * BLOCK_TOKENS
        num_new = job.num_tokens - num_hits
        self.num_read += num_new
        self.reads_until = max(self.reads_until, now) + num_new / (PREFILL_PER_S * self.speed)
        for block in job.blocks:
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) * BLOCK_TOKENS > CACHE_TOKENS:
            self.cache.popitem(last=False)
        return self.reads_until, num_hits


@dataclass
class Outcome:
    """Of one run."""

    first_s: list[float]
    num_hits: int
    imbalance: float
    """Tokens read by the busiest replica, in means."""


def simulate(policy: RoutingPolicy, fleet: str, arrivals: list[tuple[float, Job]], seed: int) -> Outcome:
    """Run the arrivals to their end."""
    now = 0.0
    router = Router(policy, random.Random(seed))
    replicas = [Replica(Load(lambda: now, SLOTS)) for _ in range(NUM_REPLICAS)]
    if fleet == "one slow":
        replicas[0].speed = 1 / SLOWER
    order = itertools.count()
    events: list[tuple[float, int, str, Any]] = []

    def at(when: float, kind: str, what: Any) -> None:
        heapq.heappush(events, (when, next(order), kind, what))

    alive, first_s, num_hits = list(replicas), [], 0

    def send(job: Job) -> None:
        index, entry = router.send([replica.load for replica in alive], Work(1, job.num_tokens, job.blocks))
        alive[index].waiting.append((job, entry))
        begin(alive[index])

    def begin(replica: Replica) -> None:
        nonlocal num_hits
        while replica.waiting and len(replica.running) < SLOTS:
            job, entry = replica.waiting.popleft()
            number = next(order)
            replica.running[number] = job, entry
            until, hits = replica.read(job, now)
            num_hits += hits
            at(until, "first", (replica, number))

    for when, job in arrivals:
        at(when, "arrive", job)
    if fleet == "one dead":
        at(arrivals[len(arrivals) // 2][0], "die", replicas[0])
    while events:
        now, _, kind, what = heapq.heappop(events)
        if kind == "arrive":
            what.arrived_at, what.first_at = now, None
            send(what)
        elif kind == "die":
            alive.remove(what)
            lost = [*what.running.values(), *what.waiting]
            what.running.clear()
            what.waiting.clear()
            for job, entry in lost:
                entry.end()
                send(job)
        elif what[1] in what[0].running:
            replica, number = what
            job, entry = replica.running[number]
            if kind == "first":
                entry.read()
                if job.first_at is None:
                    job.first_at = now
                    first_s.append(now - job.arrived_at)
                step_s = DECODE_S / replica.speed * (1 + 0.1 * len(replica.running))
                at(now + job.num_out * step_s, "end", what)
            else:
                del replica.running[number]
                entry.end()
                if (following := job.then(now)) is not None:
                    at(following[0], "arrive", following[1])
                begin(replica)
    assert all(replica.load.num_running == replica.load.unread_tokens == 0 for replica in replicas)
    read = [replica.num_read for replica in replicas]
    return Outcome(first_s, num_hits, max(read) / statistics.mean(read))


def _blocks(*parts: tuple[object, int]) -> tuple[int, ...]:
    """A hash chain over parts of so many tokens."""
    chain, blocks = 0, []
    for name, num_tokens in parts:
        for index in range(num_tokens // BLOCK_TOKENS):
            chain = hash((chain, name, index))
            blocks.append(chain)
    return tuple(blocks)


def _simple(rate: float, make: Callable[[random.Random, int], Job]) -> Callable[[random.Random, int], Any]:
    def arrivals(rng: random.Random, num: int) -> list[tuple[float, Job]]:
        now, jobs = 0.0, []
        for index in range(num):
            now += rng.expovariate(rate)
            jobs.append((now, make(rng, index)))
        return jobs

    return arrivals


def _alone(rng: random.Random, index: int) -> Job:
    return Job(_blocks((index, 512)), 512, rng.randint(20, 80))


def _one_prompt(rng: random.Random, index: int) -> Job:
    return Job(_blocks(("system", 1024), (index, 128)), 1152, rng.randint(20, 80))


def _tenant(rng: random.Random, index: int) -> Job:
    return Job(_blocks((rng.randrange(60), 1536), (index, 128)), 1664, rng.randint(20, 80))


def _heavy(rng: random.Random, index: int) -> Job:
    size = min(16_000, int(rng.lognormvariate(6.2, 1.2)) + 32)
    return Job(_blocks((index, size)), size, rng.randint(20, 80))


def _chats(rng: random.Random, num: int) -> list[tuple[float, Job]]:
    """Chats of six turns: the user reads and types for a while, then sends all turns so far and one more."""
    now, jobs = 0.0, []
    for chat in range(num // 6):
        now += rng.expovariate(1.1)
        turns = [(rng.randint(96, 480), rng.uniform(3, 15), rng.randint(20, 80)) for _ in range(6)]
        jobs.append((now, _turn(chat, turns, 0)))
    return jobs


def _turn(chat: int, turns: list[tuple[int, float, int]], index: int) -> Job:
    """The request with turn `index` of a chat; each turn has a size, a pause and a number of tokens to answer."""
    parts: list[tuple[object, int]] = [("system", 256)]
    parts += [((chat, i), size) for i, (size, _, _) in enumerate(turns[: index + 1])]
    _, pause_s, num_out = turns[index]

    def then(now: float) -> tuple[float, Job] | None:
        return (now + pause_s, _turn(chat, turns, index + 1)) if index + 1 < len(turns) else None

    return Job(_blocks(*parts), sum(size for _, size in parts), num_out, then)


TRAFFIC: dict[str, Callable[[random.Random, int], list[tuple[float, Job]]]] = {
    "no sharing": _simple(7.0, _alone),
    "one system prompt": _simple(7.0, _one_prompt),
    "6-turn chats": _chats,
    "many tenants": _simple(4.0, _tenant),
    "unique heavy prompts": _simple(3.5, _heavy),
}


def percentile(values: list[float], share: float) -> float:
    """By nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run_simulation(seeds: int, num_requests: int) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Cell to policy to figures; times in seconds."""
    cells: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for (traffic, make), fleet in itertools.product(TRAFFIC.items(), FLEETS):
        row = cells[traffic, fleet] = {}
        for policy in POLICIES:
            runs = [simulate(policy, fleet, make(random.Random(seed), num_requests), seed) for seed in range(seeds)]
            first_s = [value for run in runs for value in run.first_s]
            row[policy] = {
                "hits": sum(run.num_hits for run in runs) / len(runs),
                "p50": percentile(first_s, 0.5),
                "p90": percentile(first_s, 0.9),
                "imbalance": statistics.mean(run.imbalance for run in runs),
            }
    return cells


def print_simulation(cells: dict[tuple[str, str], dict[str, dict[str, float]]]) -> None:
    """As a Markdown table."""
    print("| traffic | fleet | policy | hit tokens | first token p50 / p90, ms | p90 to least_loaded | imbalance |")
    print("|---|---|---|---|---|---|---|")
    for (traffic, fleet), row in cells.items():
        for policy, cell in row.items():
            ratio = cell["p90"] / row["least_loaded"]["p90"]
            print(
                f"| {traffic} | {fleet} | {policy} | {cell['hits']:,.0f} | {cell['p50'] * 1000:,.0f} / "
                f"{cell['p90'] * 1000:,.0f} | {ratio:.2f} | {cell['imbalance']:.2f} |"
            )
    worst = max(cells.items(), key=lambda item: item[1]["prefix"]["p90"] / item[1]["least_loaded"]["p90"])
    ratio = worst[1]["prefix"]["p90"] / worst[1]["least_loaded"]["p90"]
    print(f"\nprefix against least_loaded, p90: worst cell {', '.join(worst[0])}: {100 * (ratio - 1):+.1f} %")
    for (traffic, fleet), row in cells.items():
        if fleet == "one slow":
            gain = 1 - row["least_loaded"]["p90"] / row["lottery"]["p90"]
            print(f"least_loaded against lottery, one slow, {traffic}: p90 {100 * gain:.0f} % better")


@contextlib.contextmanager
def started(folder: Path, name: str, *command: str) -> Iterator[Path]:
    """A chaku process until the block ends; its log file."""
    log = folder / f"{name}.log"
    environment = {**os.environ, "CHAKU_DATA": str(folder), "CHAKU_DATABASE": f"sqlite:///{folder / 'chaku.db'}"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "chaku", *command], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_ready(url: str, num_workers: int, limit_s: float = 300) -> None:
    """Wait until so many workers are ready."""
    give_up_at = time.monotonic() + limit_s
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError), urllib.request.urlopen(url + "/fleet", timeout=5) as response:
            rows = json.load(response)["workers"]
            if sum(row["state"] == "ready" for row in rows) >= num_workers:
                return
        time.sleep(0.2)
    raise SystemExit(f"{num_workers} workers were not ready in {limit_s:g} s")


TOPICS = ("vicuñas", "looms", "glaciers", "quinoa", "bridges of rope", "stars", "markets", "maps")


async def chat(http: aiohttp.ClientSession, url: str, number: int, turns: int, rng: random.Random) -> list[Any]:
    """One chat; the usage of each turn."""
    topic = TOPICS[number % len(TOPICS)]
    opening = f"Chat {number}. " + f"Let us talk about {topic}, slowly and in order, number {number}. " * 4
    messages: list[dict[str, str]] = []
    usages = []
    for turn in range(turns):
        await asyncio.sleep(rng.uniform(0, 2))
        messages.append({"role": "user", "content": opening if turn == 0 else f"Go on, part {turn} about {topic}."})
        body = {"model": "m", "messages": messages, "max_tokens": 16, "temperature": 0}
        async with http.post(url + "/v1/chat/completions", json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
        usages.append(answer["usage"])
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    return usages


async def chats(url: str, num_chats: int, turns: int) -> dict[str, float]:
    """All chats side by side; what they cost."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        began = time.monotonic()
        runs = await asyncio.gather(*(chat(http, url, i, turns, random.Random(i)) for i in range(num_chats)))
    usages = [usage for run in runs for usage in run]
    return {
        "prompt": sum(usage["prompt_tokens"] for usage in usages),
        "cached": sum((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0) for usage in usages),
        "seconds": time.monotonic() - began,
    }


def run_real(num_chats: int, turns: int, policies: list[str], port: int = 18790) -> None:
    """Four real workers per policy, started anew so that no cache is warm."""
    print("| policy | prompt tokens | out of a cache | to the first | seconds |")
    print("|---|---|---|---|---|")
    results: dict[str, dict[str, float]] = {}
    for policy in policies:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            home = Path(folder)
            url = f"http://127.0.0.1:{port}"
            stack.enter_context(started(home, "gateway", "serve", "--no-ui", "--port", str(port), "--routing", policy))
            for i in range(NUM_REPLICAS):
                (home / f"w{i}").mkdir()
                options = ("--threads", "1", "--slots", "8", "--context", "1024")
                command = ("worker", "m=smollm2-135m", "--join", url, "--name", f"w{i}", *options)
                stack.enter_context(started(home / f"w{i}", f"w{i}", *command))
            until_ready(url, NUM_REPLICAS)
            result = results[policy] = asyncio.run(chats(url, num_chats, turns))
        ratio = result["cached"] / max(1.0, results[policies[0]]["cached"])
        print(
            f"| {policy} | {result['prompt']:,} | {result['cached']:,} ({result['cached'] / result['prompt']:.0%}) | "
            f"{ratio:.2f} | {result['seconds']:.0f} |",
            flush=True,
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    simulation = commands.add_parser("simulate")
    simulation.add_argument("--seeds", type=int, default=8)
    simulation.add_argument("--requests", type=int, default=3000)
    real = commands.add_parser("real")
    real.add_argument("--chats", type=int, default=32)
    real.add_argument("--turns", type=int, default=6)
    real.add_argument("--policies", nargs="+", default=["lottery", "round_robin", "least_loaded", "prefix"])
    arguments = parser.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}\n"
    )
    if arguments.command == "simulate":
        print_simulation(run_simulation(arguments.seeds, arguments.requests))
    else:
        run_real(arguments.chats, arguments.turns, arguments.policies)


if __name__ == "__main__":
    main()
