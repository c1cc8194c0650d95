"""A command that is not ours, as llama-server or vllm would be, under the guard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from chaku.engines.process import Child, python_argv
from processes import PATIENCE_S, SOURCE, is_alive
from waiting import soon

WORKER = "import time; time.sleep(600)"
COMMAND = f"""
import json, os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}])
stdin = sys.stdin.read()
print(json.dumps({{"pid": os.getpid(), "worker": worker.pid, "stdin": stdin, "argv": sys.argv[1:]}}), flush=True)
BODY
time.sleep(600)
"""


def command(body: str = "") -> list[str]:
    return [sys.executable, "-c", COMMAND.replace("BODY", body), "--port", "0"]


@contextlib.asynccontextmanager
async def guarded(argv: list[str]) -> AsyncIterator[Child]:
    child = await Child.spawn(python_argv("chaku.engines.guard"), config={"argv": argv}, name="guarded")
    try:
        yield child
    finally:
        await child.stop(patience_s=1)


async def test_a_command_runs_with_its_arguments_and_without_our_standard_input() -> None:
    async with guarded(command()) as guard:
        message = await guard.next_message()
    assert message is not None
    assert (message["argv"], message["stdin"]) == (["--port", "0"], "")
    assert not is_alive(guard.pid)
    await soon(lambda: not is_alive(message["pid"]) and not is_alive(message["worker"]))


async def test_a_crash_of_the_command_is_the_end_of_the_guard_in_the_same_way() -> None:
    async with guarded(command("sys.exit('error: out of luck')")) as guard:
        assert await asyncio.wait_for(guard.wait(), PATIENCE_S) == "exited with code 1"
        assert guard.last_words() == "error: out of luck"
    async with guarded(command()) as guard:
        message = await guard.next_message()
        assert message is not None
        os.kill(message["pid"], signal.SIGKILL)
        assert await asyncio.wait_for(guard.wait(), PATIENCE_S) == "was killed by SIGKILL"


async def test_a_command_that_does_not_exist_says_so() -> None:
    async with guarded(["/nonexistent/llama-server"]) as guard:
        assert await asyncio.wait_for(guard.wait(), PATIENCE_S) == "exited with code 127"
        assert guard.last_words() == "can't start /nonexistent/llama-server: error: No such file or directory"


async def test_sigterm_reaches_the_command_which_may_tidy_up() -> None:
    tidy = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit('error: tidied up'))"
    async with guarded(command(tidy + "; print('{}', flush=True)")) as guard:
        await guard.next_message()
        await guard.next_message()
        await guard.stop(patience_s=PATIENCE_S)
        assert guard.last_words() == "error: tidied up"


async def test_a_flood_of_output_does_not_hold_the_command_up() -> None:
    flood = "[stream.write('x' * (1 << 22)) for stream in (sys.stdout, sys.stderr)]; sys.exit(3)"
    async with guarded(command(flood)) as guard:
        assert await asyncio.wait_for(guard.wait(), PATIENCE_S) == "exited with code 3"


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_command_and_workers_end_with_a_killed_parent_or_guard(victim: str) -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(SOURCE)!r})
from chaku.engines.process import Child, python_argv
async def main():
    child = await Child.spawn(python_argv("chaku.engines.guard"), config={{"argv": {command()!r}}}, name="guarded")
    message = await child.next_message()
    print(child.pid, message["pid"], message["worker"], flush=True)
    await child.wait()
    await child.stop()
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3 and all(is_alive(pid) for pid in pids)
        os.kill(parent.pid if victim == "parent" else pids[0], signal.SIGKILL)
        parent.wait(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_guard_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import chaku.engines.guard, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert not {"pydantic", "aiohttp", "xllamacpp", "sqlalchemy"} & set(done.stdout.split())
