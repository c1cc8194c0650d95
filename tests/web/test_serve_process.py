"""`chaku serve` as a process: the page comes with it, and a kill in mid-answer costs a second of text at most."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaku.store.leases import LEASE_S
from processes import PATIENCE_S, environment
from tabs import tab

SCRIPT = "replies:\n- {text: 'one two three four five', token_delay_s: 0.02, fault: hang, fault_after_tokens: 4}\n"


@dataclass
class Served:
    url: str
    process: subprocess.Popen[str]

    def end(self, number: int) -> tuple[int, str]:
        """Exit status and what it wrote, after a signal."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors


@contextlib.contextmanager
def serve(database: Path, script: Path, *flags: str) -> Iterator[Served]:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "chaku", "serve", f"m=scripted:{script}", "--port", "0", *flags]
    command += ["--database", f"sqlite:///{database}", "--ready-fd", str(writing)]
    process = subprocess.Popen(command, pass_fds=[writing], env=environment(), stderr=subprocess.PIPE, text=True)
    os.close(writing)
    with os.fdopen(reading) as ready:
        line = ready.readline()
    try:
        yield Served(json.loads(line)["url"] if line else "", process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    return path


async def test_an_answer_survives_the_gateways_death_with_what_was_said(database: Path, script: Path) -> None:
    with serve(database, script) as first:
        async with tab(first.url) as me:
            chat = await me.chat(model="m")
            _, answer = await me.say(chat, "Hi", model="m")
            await asyncio.sleep(2.2)
        assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    with serve(database, script) as second:
        async with tab(second.url) as me:
            asked = time.monotonic()
            message = await me.whole(chat, answer["id"])
            assert time.monotonic() - asked < 1.5 * LEASE_S + 3
            assert (message["state"], message["content"]) == ("failed", "one two three four")
            assert message["error"]["code"] == "gateway_restarted"
            async with me.stream("/events") as events:
                await anext(events)
                begun = time.monotonic()
                status, log = second.end(signal.SIGTERM)
    assert (status, time.monotonic() - begun < 5) == (0, True), log


async def test_no_ui_is_the_api_alone(database: Path, script: Path) -> None:
    with serve(database, script, "--no-ui") as served:
        async with tab(served.url) as me:
            assert [(await me.raw("GET", path))[0] for path in ("/", "/api/session", "/v1/models")] == [404, 404, 200]
