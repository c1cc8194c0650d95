"""Real processes: a gateway without a model, and scripted workers that join it, serve, die and come back."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaku.cli.worker import as_gateway
from chaku.config import load
from chaku.serve.worker.settings import WorkerConfig
from chaku.settings import ServeConfig
from chaku_server import ChakuServer, serving
from metadata_service import Metadata
from processes import PATIENCE_S
from waiting import eventually
from workers import worker

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

        left.send(signal.SIGSTOP)
        began = time.monotonic()
        eventually(lambda: states(gateway)["left"] == "gone")
        assert time.monotonic() - began < 10, "from the first sign"
        assert {said(gateway) for _ in range(10)} == {"right"}
        left.send(signal.SIGCONT)
        eventually(lambda: states(gateway) == both, why=lambda: left.log)

        left.send(signal.SIGKILL)
        eventually(lambda: states(gateway)["left"] == "gone")
        assert {said(gateway) for _ in range(10)} == {"right"}

        with worker(tmp_path, script(tmp_path, "left"), *join, "--name", "left") as again:
            eventually(lambda: states(gateway) == both, why=lambda: again.log)
            assert {said(gateway) for _ in range(30)} == {"left", "right"}
            again.send(signal.SIGTERM)
            assert again.process.wait(PATIENCE_S) == 0, again.log
            assert states(gateway)["left"] == "gone"
        assert {said(gateway) for _ in range(5)} == {"right"}


def test_a_worker_that_drains_ends_its_answers_first(gateway: ChakuServer, tmp_path: Path) -> None:
    path = tmp_path / "slow.yaml"
    path.write_text("replies: [{text: one two three four five six, token_delay_s: 0.3}]\n")
    with worker(tmp_path, f"slow=scripted:{path}", "--join", gateway.url, "--name", "slow") as slow:
        eventually(lambda: states(gateway).get("slow") == "ready", why=lambda: slow.log)
        body = json.dumps({**HELLO, "model": "slow", "stream": True}).encode()
        request = urllib.request.Request(
            gateway.url + "/v1/chat/completions", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
            assert b"data: {" in stream.readline()
            assert gateway.post("/fleet/workers/slow/drain")[0] == 202
            text = stream.read().decode()
        assert " six" in text and text.rstrip().endswith("[DONE]")
        assert slow.process.wait(PATIENCE_S) == 0, slow.log
        assert states(gateway)["slow"] == "gone"
        assert gateway.get("/v1/models")[1]["data"][-1]["state"] == "loading"


def test_a_worker_that_is_refused_says_why_and_what_to_do(gateway: ChakuServer, tmp_path: Path) -> None:
    address = ("--port", "0", "--advertise", "http://127.0.0.1:1")
    with worker(tmp_path, "m=scripted:", "--join", gateway.url, "--name", "x", *address) as refused:
        assert refused.process.wait(PATIENCE_S) == 1, refused.log
    assert "can't call the worker back at http://127.0.0.1:1" in refused.log
    assert "--advertise" in refused.log


def test_a_spot_notice_drains_a_worker_also_one_that_is_there_at_its_start(
    gateway: ChakuServer, tmp_path: Path
) -> None:
    with Metadata.running() as cloud:
        cloud.pages = {("GET", "/computeMetadata/v1/instance/preempted", "metadata-flavor: Google"): "TRUE"}
        (tmp_path / "sitecustomize.py").write_text(
            f"from chaku import spot_notice\nspot_notice.ADDRESS = {cloud.url!r}\n"
        )
        here = os.pathsep.join([str(tmp_path), *sys.path])
        arguments = (script(tmp_path, "spot"), "--join", gateway.url, "--name", "spot", "--spot-notice")
        with worker(tmp_path, *arguments, PYTHONPATH=here) as spot:
            assert spot.process.wait(PATIENCE_S) == 75, spot.log
            assert "spot notice from Google Cloud" in spot.log and "Traceback" not in spot.log
        eventually(lambda: states(gateway).get("spot", "gone") == "gone", why=lambda: spot.log)


def test_every_setting_that_a_worker_shares_with_a_gateway_counts() -> None:
    told = {"max_connections": 7, "log_level": "DEBUG", "traces": True, "tls_cert": "c.pem", "tls_key": "k.pem"}
    model = {"source": "scripted:"}
    config = load(WorkerConfig, None, {"model": model, "join": ("http://127.0.0.1:8000",), **told}).config
    shared = WorkerConfig.model_fields.keys() & ServeConfig.model_fields.keys() - {"host", "port"}
    assert shared == told.keys()
    gateway = as_gateway(config, config.join, None)
    assert {name: getattr(gateway, name) for name in shared} == {name: getattr(config, name) for name in shared}
