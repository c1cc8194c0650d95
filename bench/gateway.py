"""What the gateway costs: CPU per request and added latency, against the bare upstream in the same run.

A mock upstream runs in a process of its own and is loaded directly, through `chaku serve` with API keys, metrics and
usage accounting on, and through a peer gateway where one is installed (--peer). CPU is the gateway process's own user
and system time from /proc (Linux), so that the loader and the mock, which share the machine, do not count.

    python bench/gateway.py [--requests 2000] [--streams 400] [--rounds 3] [--peer smg] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaku.ports import free_port

NUM_CHUNKS = 64
CHUNK_EVERY_S = 0.002
PROMPT = "Tell me about the vicuña, its fibre and the round-up that is called chaku. " * 10
_HEAD = b'{"id":"chatcmpl-1","created":1700000000,"model":"bench",'
_USAGE = b'"usage":{"prompt_tokens":200,"completion_tokens":64,"total_tokens":264}'
ANSWER = (
    _HEAD + b'"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","logprobs":null,'
    b'"message":{"role":"assistant","content":"' + b"word " * 100 + b'"}}],' + _USAGE + b"}"
)
CHUNK = (
    b"data: " + _HEAD + b'"object":"chat.completion.chunk","choices":[{"index":0,"finish_reason":null,'
    b'"delta":{"content":" word"}}]}\n\n'
)
LAST = b"data: " + _HEAD + b'"object":"chat.completion.chunk","choices":[],' + _USAGE + b"}\n\ndata: [DONE]\n\n"
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","created":0,"owned_by":"bench"}]}'


class Mock(asyncio.Protocol):
    """The cheapest upstream that speaks the wire: no parsing beyond what HTTP needs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        length = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in lowered else 0
        if len(body) < length:
            return
        self.buffer = body[length:]
        if head.startswith(b"GET"):
            self._send_whole(MODELS)
        elif b'"stream":true' in body:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self._chunks_left = NUM_CHUNKS
            self._send_chunk()
        else:
            self._send_whole(ANSWER)

    def _send_whole(self, answer: bytes) -> None:
        length = str(len(answer)).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + length
        self.transport.write(head + b"\r\n\r\n" + answer)

    def _send_chunk(self) -> None:
        if self.transport.is_closing():
            return
        piece = CHUNK if self._chunks_left else LAST
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if self._chunks_left == 0:
            self.transport.write(b"0\r\n\r\n")
            return
        self._chunks_left -= 1
        asyncio.get_running_loop().call_later(CHUNK_EVERY_S, self._send_chunk)


async def serve_mock() -> None:
    """Serve until killed; the port is printed."""
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass
class Target:
    """Something to load."""

    name: str
    port: int
    pid: int | None = None
    key: str = "none"
    results: dict[tuple[str, int], list[Measurement]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One round: CPU per request of the target's process, and time to the first content byte."""

    cpu_ms: float | None
    first_p50_ms: float
    first_p99_ms: float
    per_s: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(target: Target, *, streams: bool, clients: int, num_requests: int) -> Measurement:
    """Closed loop: each client sends its next request when the last is answered."""
    body = json.dumps(
        {"model": "bench", "messages": [{"role": "user", "content": PROMPT}], **({"stream": True} if streams else {})},
        separators=(",", ":"),
    ).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + target.key.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    left = num_requests
    firsts: list[float] = []

    async def client() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while left > 0:
            left -= 1
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n")[0], head + await reader.read(500)
            lowered = head.lower()
            if b"content-length:" in lowered:
                await reader.readexactly(int(lowered.split(b"content-length:")[1].split(b"\r\n")[0]))
                firsts.append(time.perf_counter() - started)
                continue
            is_first = True
            while True:
                size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
                piece = await reader.readexactly(size + 2)
                if is_first and b'"content":"' in piece:
                    firsts.append(time.perf_counter() - started)
                    is_first = False
                if size == 0:
                    break
        writer.close()

    cpu_before = cpu_seconds(target.pid) if target.pid else 0.0
    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed_s = time.perf_counter() - started
    cpu_s = cpu_seconds(target.pid) - cpu_before if target.pid else None
    firsts.sort()
    return Measurement(
        cpu_ms=None if cpu_s is None else 1000 * cpu_s / num_requests,
        first_p50_ms=1000 * firsts[len(firsts) // 2],
        first_p99_ms=1000 * firsts[int(len(firsts) * 0.99)],
        per_s=num_requests / elapsed_s,
    )


@contextlib.contextmanager
def child(argv: list[str], **kwargs: object) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block."""
    process: subprocess.Popen[str] = subprocess.Popen(argv, text=True, **kwargs)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def chaku_gateway(upstream: str) -> Iterator[Target]:
    """`chaku serve` in front of the mock, with a key, metrics and usage on, and a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CHAKU_DATABASE": f"sqlite:///{folder}/bench.db"}
        chaku = [sys.executable, "-m", "chaku"]
        made = subprocess.run(
            [*chaku, "keys", "create", "bench", "--json"], env=environment, capture_output=True, text=True, check=True
        )
        read_fd, write_fd = os.pipe()
        argv = [
            *chaku,
            "serve",
            f"bench={upstream}",
            "--port",
            "0",
            "--ready-fd",
            str(write_fd),
            "--log-level",
            "WARNING",
        ]
        with child(argv, env=environment, pass_fds=[write_fd], stderr=subprocess.DEVNULL) as process:
            os.close(write_fd)
            with os.fdopen(read_fd) as ready:
                url = json.loads(ready.readline())["url"]
            yield Target("chaku", int(url.rsplit(":", 1)[1]), process.pid, json.loads(made.stdout)["token"])


PEERS = {
    "litellm": lambda upstream, port: [
        *("litellm", "--model", "openai/bench", "--api_base", upstream, "--port", str(port), "--telemetry", "False")
    ],
    "vllm-router": lambda upstream, port: [
        *("vllm-router", "--worker-urls", upstream.removesuffix("/v1"), "--host", "127.0.0.1", "--port", str(port)),
        *("--policy", "round_robin", "--prometheus-port", str(port + 1)),
    ],
    "smg": lambda upstream, port: [
        *("smg", "launch", "--worker-urls", upstream.removesuffix("/v1"), "--host", "127.0.0.1", "--port", str(port)),
        *("--policy", "round_robin", "--backend", "openai", "--prometheus-port", str(port + 1)),
    ],
}


@contextlib.contextmanager
def peer_gateway(name: str, upstream: str) -> Iterator[Target]:
    """Another gateway in front of the mock, as its own command starts it."""
    import urllib.request

    port = free_port()
    environment = {**os.environ, "OPENAI_API_KEY": "none", "LITELLM_MASTER_KEY": "sk-bench"}
    with child(PEERS[name](upstream, port), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as p:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps({"model": "bench", "messages": [{"role": "user", "content": "up?"}]}).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"},
        )
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=5).read()
                break
            time.sleep(0.5)
        yield Target(name, port, p.pid, "sk-bench")


async def measure(targets: list[Target], args: argparse.Namespace) -> None:
    """All targets in turn, round after round, so that a drift of the machine hits all alike."""
    for round_index in range(args.rounds + 1):
        for streams in (False, True):
            for clients in (1, 32):
                num_requests = args.streams if streams else args.requests
                if clients == 1:
                    num_requests //= 4
                for target in targets:
                    is_slow = target.name == "litellm"
                    count = max(clients, num_requests // 10 if is_slow else num_requests)
                    result = await load(target, streams=streams, clients=clients, num_requests=count)
                    if round_index:  # the first round warms up
                        mode = "sse" if streams else "json"
                        target.results.setdefault((mode, clients), []).append(result)


def report(targets: list[Target]) -> dict[str, object]:
    """Medians over the rounds, with the spread, and what each gateway adds over the direct way."""
    direct = targets[0]
    rows: list[dict[str, object]] = []
    for target in targets:
        for (mode, clients), rounds in target.results.items():
            first_ms = statistics.median(r.first_p50_ms for r in rounds)
            base_ms = statistics.median(r.first_p50_ms for r in direct.results[mode, clients])
            cpus = [r.cpu_ms for r in rounds if r.cpu_ms is not None]
            rows.append(
                {
                    "target": target.name,
                    "mode": mode,
                    "clients": clients,
                    "cpu_ms": round(statistics.median(cpus), 3) if cpus else None,
                    "cpu_ms_range": [round(min(cpus), 3), round(max(cpus), 3)] if cpus else None,
                    "first_p50_ms": round(first_ms, 3),
                    "added_first_p50_ms": round(first_ms - base_ms, 3),
                    "first_p99_ms": round(statistics.median(r.first_p99_ms for r in rounds), 3),
                    "per_s": round(statistics.median(r.per_s for r in rounds)),
                }
            )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {"machine": machine, "chunks": NUM_CHUNKS, "rows": rows}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="JSON requests a round at 32 clients")
    parser.add_argument("--streams", type=int, default=400, help="streams a round at 32 clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", choices=sorted(PEERS), default=[])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mock", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mock:
        asyncio.run(serve_mock())
        return
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(child([sys.executable, __file__, "--mock"], stdout=subprocess.PIPE))
        assert mock.stdout is not None
        port = int(mock.stdout.readline())
        upstream = f"http://127.0.0.1:{port}/v1"
        targets = [Target("direct", port, mock.pid), stack.enter_context(chaku_gateway(upstream))]
        targets += [stack.enter_context(peer_gateway(name, upstream)) for name in args.peer]
        asyncio.run(measure(targets, args))
    result = report(targets)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['machine']}; {NUM_CHUNKS} chunks a stream, one every {1000 * CHUNK_EVERY_S:g} ms; medians")
    print(f"{'':9}{'':5}{'clients':>8}{'CPU ms':>9}{'first p50':>11}{'added':>8}{'p99':>9}{'per s':>8}")
    for row in result["rows"]:  # type: ignore[attr-defined]
        cpu = "-" if row["cpu_ms"] is None else f"{row['cpu_ms']:.3f}"
        print(
            f"{row['target']:9}{row['mode']:5}{row['clients']:>8}{cpu:>9}{row['first_p50_ms']:>11.3f}"
            f"{row['added_first_p50_ms']:>8.3f}{row['first_p99_ms']:>9.3f}{row['per_s']:>8}"
        )


if __name__ == "__main__":
    main()
