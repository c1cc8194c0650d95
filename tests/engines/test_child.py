"""A child process: what it hears, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop

from chaku.engines.process import Child
from engines.sleeper import CODE
from processes import PATIENCE_S, SOURCE, is_alive
from waiting import soon


async def test_a_child_hears_its_configuration_and_its_command_line_does_not_tell_it() -> None:
    child = await Child.spawn([sys.executable, "-c", CODE], config={"key": "secret"}, name="sleeper")
    try:
        message = await child.next_message()
        assert message is not None and message["config"] == {"key": "secret"}
        assert "secret" not in Path(f"/proc/{child.pid}/cmdline").read_text()
    finally:
        await child.stop()
    assert not is_alive(child.pid)


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); signal.pause()"
    child = await Child.spawn([sys.executable, "-c", stubborn], config={}, name="stubborn")
    assert await child.next_message() == {}
    await child.stop(patience_s=0.1)
    assert not child.is_running
    await child.stop()


async def test_a_line_beyond_the_limit_does_not_stop_the_child_from_being_heard() -> None:
    code = "import sys; [print(text, file=sys.stderr) for text in ('x' * (3 << 20), 'still here')]"
    child = await Child.spawn([sys.executable, "-c", code], config={}, name="talker")
    assert await asyncio.wait_for(child.wait(), PATIENCE_S) == "exited with code 0"
    await soon(lambda: "still here" in child.tail)
    await child.stop()


FLOOD = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for _ in range(4):
    for stream in (sys.stdout, sys.stderr):
        stream.write(("x" * 999 + "\\n") * 1024)
        stream.write('{"number": 1}\\n' * 1024)
print("error: last words", file=sys.stderr, flush=True)
"""


async def test_a_child_that_floods_both_outputs_is_never_held_up() -> None:
    child = await Child.spawn([sys.executable, "-c", FLOOD], config={}, name="flood")
    assert await child.next_message() == {"ready": True}
    assert await asyncio.wait_for(child.wait(), PATIENCE_S) == "exited with code 0"
    assert child.last_words() == "error: last words"
    num_kept = 0
    while await child.next_message() is not None:
        num_kept += 1
    assert num_kept <= 64
    assert await child.next_message() is None
    await child.stop()


async def test_a_child_is_given_an_environment() -> None:
    code = "import os; print('{\"seen\": \"' + os.environ['GIVEN'] + '\"}')"
    child = await Child.spawn([sys.executable, "-c", code], config={}, name="child", env={"GIVEN": "yes"})
    assert await child.next_message() == {"seen": "yes"}
    await child.stop()


async def test_how_a_child_ended_and_its_last_words_are_known() -> None:
    code = "import sys; print('out of luck', file=sys.stderr); sys.exit(7)"
    child = await Child.spawn([sys.executable, "-c", code], config={}, name="unlucky")
    assert await child.next_message() is None
    assert await child.wait() == "exited with code 7"
    await soon(lambda: list(child.tail) == ["out of luck"])
    await child.stop()


@pytest.mark.parametrize("only_pipe", [False, True])
def test_a_killed_parent_leaves_no_orphan(only_pipe: bool) -> None:
    code = CODE.replace("life = Lifeline()", "sys.platform = 'other'; life = Lifeline()") if only_pipe else CODE
    parent_code = f"""
import asyncio, sys
sys.path.insert(0, {str(SOURCE)!r})
from chaku.engines.process import Child
async def main():
    child = await Child.spawn([sys.executable, "-c", {code!r}], config={{}}, name="orphan")
    await child.next_message()
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        orphan = int(parent.stdout.readline())
        assert is_alive(orphan)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(orphan):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_gets_its_configuration_on_the_gateways_event_loop() -> None:
    async def config_that_came() -> object:
        child = await Child.spawn([sys.executable, "-c", CODE], config={"key": "secret"}, name="sleeper")
        try:
            message = await asyncio.wait_for(child.next_message(), PATIENCE_S)
        finally:
            await child.stop(patience_s=1)
        return message and message["config"]

    assert uvloop.run(config_that_came()) == {"key": "secret"}
