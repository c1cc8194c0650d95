"""Real processes: a gateway without a model, and scripted workers that join it, serve, die and come back."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaku_server import ChakuServer, serving
from processes import PATIENCE_S
from workers import eventually, worker

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    with serving(tmp_path_factory.mktemp("gateway"), "--no-ui") as server:
        yield server


def script(folder: Path, text: str, slots: int = 4) -> str:
    path = folder / f"{text}.yaml"
    path.write_text(f"replies: [{{text: {text}}}]\nslots: {slots}\n")
    return f"m=scripted:{path}"


def states(gateway: ChakuServer) -> dict[str, str]:
    return {row["name"]: row["state"] for row in gateway.get("/fleet")[1]["workers"]}


def said(gateway: ChakuServer) -> str:
    request = urllib.request.Request(
        gateway.url + "/v1/chat/completions", json.dumps(HELLO).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        answer: Any = json.load(response)
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_two_workers_join_serve_die_are_gone_and_come_back(gateway: ChakuServer, tmp_path: Path) -> None:
    assert gateway.get("/fleet") == (200, {"workers": []})
    join = ("--join", gateway.url)
    with (
        worker(tmp_path, script(tmp_path, "left"), *join, "--name", "left") as left,
        worker(tmp_path, script(tmp_path, "right"), *join, "--name", "right") as right,
    ):
        both = {"left": "ready", "right": "ready"}
        eventually(lambda: states(gateway) == both, why=lambda: left.log + right.log)
        assert {said(gateway) for _ in range(30)} == {"left", "right"}
        row = gateway.get("/v1/models")[1]["data"][0]
        assert (row["id"], row["state"], row["slots"]) == ("m", "ready", 8)

        left.send(signal.SIGKILL)
        eventually(lambda: states(gateway)["left"] == "gone", 10)
        assert {said(gateway) for _ in range(10)} == {"right"}

        with worker(tmp_path, script(tmp_path, "left"), *join, "--name", "left") as again:
            eventually(lambda: states(gateway) == both, why=lambda: again.log)
            assert {said(gateway) for _ in range(30)} == {"left", "right"}
            again.send(signal.SIGTERM)
            assert again.process.wait(PATIENCE_S) == 0, again.log
            assert states(gateway)["left"] == "gone"
        assert {said(gateway) for _ in range(5)} == {"right"}
