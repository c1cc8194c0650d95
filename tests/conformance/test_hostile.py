"""The worst bodies of each route, sent beside a running stream: it hardly pauses, and memory stays near the size.

Timed on purpose: it bounds how long the event loop is blocked, at five times what an idle machine shows
(bench/hostile.py, bench/results/2026-11-28-hostile.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaku_server import ChakuServer, serving
from hostile_bodies import BOMB, HOSTILE, Hostile, MiB
from steady_stream import SteadyStream, memory_bytes, request_of, reset_peak, send, steady_stream, write_script

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
LIMIT_S = {1: 5 * 0.05, 8: 5 * 0.2, 32: 5 * 0.2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    folder = tmp_path_factory.mktemp("hostile")
    with serving(folder, f"scripted=scripted:{write_script(folder)}") as server:
        yield server


@pytest.fixture(scope="module")
def stream(server: ChakuServer) -> Iterator[SteadyStream]:
    with steady_stream(port_of(server)) as stream:
        yield stream


def port_of(server: ChakuServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


@pytest.mark.parametrize(
    ("hostile", "size_mib"),
    [(hostile, size_mib) for hostile in (*HOSTILE, BOMB) for size_mib in sorted({1, hostile.largest_mib})],
    ids=lambda value: value.name if isinstance(value, Hostile) else f"{value}MiB",
)
def test_a_hostile_body_stops_nobodys_stream(
    server: ChakuServer, stream: SteadyStream, hostile: Hostile, size_mib: int
) -> None:
    request = request_of(hostile, size_mib * MiB)
    pid = server.process.pid
    before = memory_bytes(pid, peak=False)
    reset_peak(pid)
    stream.reset()
    status, answer = send(port_of(server), request)
    assert status in (0, 200, 400, 413), answer
    assert stream.pause_s() < LIMIT_S[size_mib], answer
    assert memory_bytes(pid, peak=True) - before < (4 * size_mib + 64) * MiB
