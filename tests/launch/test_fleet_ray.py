"""`chaku up --on ray` with real Ray nodes on one machine, of which one is killed under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chaku.packages import version
from chaku.ports import free_port
from launch.test_fleet_local import Fleet
from processes import PATIENCE_S
from ray_nodes import Node
from waiting import eventually

STREAMS = 8
LOAD_S = 20.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Fleet, list[Node], str]]:
    if version("ray") is None:
        pytest.skip("needs chaku[ray]")
    port = free_port()
    script = tmp_path / "reply.yaml"
    script.write_text("replies: [{text: one two three four five six seven eight, token_delay_s: 0.05}]\nslots: 16\n")
    pools = [{"source": f"m=scripted:{script}", "replicas": 2, "cpus": 1}]
    ray = {"address": f"127.0.0.1:{port}"}
    fleet = Fleet(tmp_path, name="rays", gateway={"port": 0, "ui": False}, workers=pools, ray=ray, drain_s=5)
    env = {**fleet.env, "RAY_TMPDIR": "/tmp", "RAY_DEDUP_LOGS": "0"}
    nodes = [Node(tmp_path, env, "--head", "--port", str(port), "--include-dashboard", "false")]
    try:
        nodes[0].until_it_answers(port)
        nodes.append(Node(tmp_path, env, "--address", ray["address"]))
        up = fleet.start("--on", "ray")
        assert up.returncode == 0, up.stderr + fleet.log()
        yield fleet, nodes, ray["address"]
    finally:
        fleet.end()
        for node in reversed(nodes):
            node.kill()


async def _load(url: str, seconds: float) -> dict[str, int]:
    """Streams one after the other in several lanes; how they ended."""
    seen = {"whole": 0, "failed before the first token": 0, "broken after it": 0}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    until = time.monotonic() + seconds

    async def lane(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            has_begun = is_whole = False
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(url + "/v1/chat/completions", json=body) as answer:
                    async for line in answer.content:
                        has_begun |= b'"content":"one' in line.replace(b" ", b"")
                        is_whole |= line.startswith(b"data: [DONE]")
            key = (
                "whole"
                if has_begun and is_whole
                else "broken after it"
                if has_begun
                else "failed before the first token"
            )
            seen[key] += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(lane(session) for _ in range(STREAMS)))
    return seen


@pytest.mark.prove
async def test_a_ray_node_is_lost_without_a_failed_request_before_its_first_token_and_another_takes_its_place(
    cluster: tuple[Fleet, list[Node], str], record_property: Any
) -> None:
    fleet, nodes, address = cluster
    ready = {"rays-m-1": "ready", "rays-m-2": "ready"}
    assert fleet.states() == ready
    loading = asyncio.create_task(_load(fleet.record.state()["url"], LOAD_S))
    await asyncio.sleep(LOAD_S / 4)
    nodes.pop().kill()
    seen = await loading
    record_property("ray node lost", json.dumps(seen))
    print(json.dumps(seen))
    assert seen["whole"] > 10 and seen["failed before the first token"] == 0, seen
    assert fleet.states() != ready
    env = {**fleet.env, "RAY_TMPDIR": "/tmp"}
    nodes.append(Node(fleet.home, env, "--address", address))
    await asyncio.to_thread(eventually, lambda: fleet.states() == ready, 2 * PATIENCE_S, why=fleet.log)
    ended = await asyncio.to_thread(fleet.chaku, "down")
    assert "fleet rays is down" in ended.output, ended.exception
