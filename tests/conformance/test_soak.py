"""Many streams at once against the real program: none is lost, and the gateway does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaku_server import MODEL, ONE_THREAD, SOURCE, ChakuServer, serving
from processes import PATIENCE_S

SHORT_S, SHORT_STREAMS = 3.0, 12
PROOF_S, PROOF_STREAMS = float(os.environ.get("CHAKU_SOAK_S", "60")), 64
"""Seconds of load; `make prove` takes the longer one, which also shows a slow leak."""
MAX_GROWTH_BYTES = 6 << 20
"""Of the idle gateway, from after a warm-up with as many streams to the end. Python's and the C library's allocators
keep 1 to 3 MB more or less; a leak of one answer's text and chunks (20 KB) would be over 6 MB after 300 streams."""
MAX_ENGINE_GROWTH_BYTES = 32 << 20
"""llama.cpp keeps its cache whole from the start; every finished prompt that it would keep beside is about 1 MB."""


def loaded(server: ChakuServer, num_streams: int, seconds: float) -> dict[str, int]:
    command = [
        sys.executable,
        str(Path(__file__).parent / "load.py"),
        server.base_url,
        MODEL,
        str(num_streams),
        str(seconds),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 150)
    assert done.returncode == 0, done.stderr
    ends: dict[str, int] = json.loads(done.stdout)
    return ends


def idle(server: ChakuServer) -> dict[str, Any]:
    """What the gateway holds once nothing runs."""
    gateway = psutil.Process(server.process.pid)
    deadline = time.monotonic() + PATIENCE_S
    while server.get(f"/v1/models/{MODEL}")[1]["running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(6)  # connections to the engine and from clients are kept for up to five seconds
    engines = server.engines()
    return {
        "rss": gateway.memory_info().rss,
        # Without the database's files: its pool opens a second connection whenever two threads meet, and keeps it.
        "fds": gateway.num_fds() - sum(".db" in file.path for file in gateway.open_files()),
        "threads": gateway.num_threads(),
        "engine_rss": sum(engine.memory_info().rss for engine in engines),
        "pids": [engine.pid for engine in engines],
    }


@pytest.mark.model
@pytest.mark.timeout(PROOF_S + 400)
@pytest.mark.parametrize(
    ("num_streams", "seconds"),
    [(SHORT_STREAMS, SHORT_S), pytest.param(PROOF_STREAMS, PROOF_S, marks=pytest.mark.prove)],
)
def test_streams_lose_nothing_and_leave_memory_and_descriptors_flat(
    tmp_path: Path, num_streams: int, seconds: float, record_property: Callable[[str, object], None]
) -> None:
    with serving(tmp_path, SOURCE, *ONE_THREAD) as server:
        warm = loaded(server, num_streams, min(seconds, 5))
        before = idle(server)
        ends = loaded(server, num_streams, seconds)
        after = idle(server)
        _, models = server.get("/v1/models")
        assert "ERROR" not in server.log
    grown = {key: (after[key] - before[key]) / 1e6 for key in ("rss", "engine_rss")}
    record_property("answers", f"{ends} in {seconds:g} s")
    record_property("gateway", f"{before['rss'] / 1e6:.1f} MB, growth in MB: {grown}")
    assert list(warm) == list(ends) == ["whole"]
    assert ends["whole"] >= num_streams
    assert (models["data"][0]["running"], models["data"][0]["waiting"]) == (0, 0)
    assert after["rss"] - before["rss"] < MAX_GROWTH_BYTES
    assert after["engine_rss"] - before["engine_rss"] < MAX_ENGINE_GROWTH_BYTES
    assert after["fds"] <= before["fds"]
    assert after["threads"] <= before["threads"] + 1
    assert after["pids"] == before["pids"], "the engine was restarted"
