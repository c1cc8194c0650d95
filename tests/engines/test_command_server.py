"""A server that is not ours, as llama-server or vllm would be: guard, supervisor and speaker together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

from chaku.engines.base import Call, State
from chaku.engines.openai_speaker import OpenAiSpeaker
from chaku.engines.process import Child, python_argv
from chaku.engines.supervisor import BackOff, ChildSupervisor
from chaku.errors import EngineError
from chaku.http_out import Retries, Transport
from chaku.ports import free_port
from processes import PATIENCE_S, is_alive
from waiting import soon

STAND_IN = """
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print("x" * 100_000, flush=True)

    def do_GET(self):
        self.answer({"data": [{"id": "theirs"}], "pid": os.getpid()})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": str(os.getpid())}
        self.answer({"model": "theirs", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass
class Served:
    child: Child
    http: Transport
    speaker: OpenAiSpeaker

    async def close(self) -> None:
        await self.http.close()
        await self.child.stop(patience_s=1)


async def launch() -> Served:
    port = free_port()
    argv = [sys.executable, "-c", STAND_IN, str(port)]
    child = await Child.spawn(python_argv("chaku.engines.guard"), config={"argv": argv}, name="stand-in")
    http = Transport(f"http://127.0.0.1:{port}/v1", who="stand-in", retries=Retries(limit=0))
    served = Served(child, http, OpenAiSpeaker("ours", http, model="theirs"))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                assert await served.speaker.models() == ["theirs"]
                return served
            except EngineError:
                await asyncio.sleep(0.02)


async def pid_that_answers(supervisor: ChildSupervisor[Served]) -> int:
    async with supervisor.use() as served, served.speaker.ask(Call("chat", {"messages": []}, False, "1")) as answer:
        return int((await answer.whole())["choices"][0]["message"]["content"])


async def test_a_command_that_crashes_is_started_again_and_ends_with_its_engine() -> None:
    supervisor = ChildSupervisor("stand-in", launch, back_off=BackOff(first_s=0.01))
    await supervisor.start()
    try:
        for _ in range(30):  # each answer floods its standard output
            first = await pid_that_answers(supervisor)
        os.kill(first, signal.SIGKILL)
        await soon(lambda: supervisor.status().state is not State.READY)
        assert "SIGKILL" in supervisor.status().detail
        await soon(lambda: supervisor.status().state is State.READY)
        second = await pid_that_answers(supervisor)
        assert second != first
    finally:
        await supervisor.stop()
    assert not is_alive(second)
