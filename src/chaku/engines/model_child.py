"""A child process that loads a model, ours or a command's: started with sleeping threads, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from chaku.engines.process import Child, python_argv
from chaku.errors import ChakuError, EngineError, ModelError
from chaku.http_out import NEVER_AGAIN, Transport

NO_STALL = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Environment of the child, read by libgomp when it is loaded. The threads of llama.cpp and torch meet at a barrier
hundreds of times per token and by default spin there for 3 ms. If another process takes a core, each barrier costs a
time slice, and a token takes seconds. Figures: bench/results/2026-11-28-stall.md."""
_LOADING = 503
_LOOK_EVERY_S = 0.1

WhyFailed = Callable[[Child, dict[str, Any]], Awaitable[ModelError | EngineError]]
"""The error that a child's end, or its last message, stands for."""


async def load(
    module: str, config: dict[str, Any], *, name: str, spins: bool, timeout_s: float, why_failed: WhyFailed
) -> tuple[Child, dict[str, Any]]:
    """Run `module.main()` in a child until it says at which address it listens; the child and that message.

    Raises EngineError after `timeout_s`, or what `why_failed` says. Then no child is left.
    """
    child = await Child.spawn(python_argv(module), config=config, name=name, env=_environment(spins=spins))
    try:
        message = await asyncio.wait_for(child.next_message(), timeout_s)
        if message is None or "address" not in message:
            raise await why_failed(child, message or {})
    except TimeoutError:
        await child.stop(patience_s=0)
        raise EngineError(f"{name} did not load within {timeout_s:g} s") from None
    except BaseException:
        await child.stop(patience_s=0)
        raise
    return child, message


async def run_command(
    argv: list[str], *, env: Mapping[str, str], name: str, spins: bool = False, timeout_s: float,
    ready: Callable[[], Awaitable[object]], why_failed: WhyFailed,
) -> Child:  # fmt: skip
    """Run a command that is not ours, under the guard, until `ready` returns.

    Raises EngineError after `timeout_s`, or what `why_failed` says where the command ended. Then no child is left.
    """
    env = {**_environment(spins=spins), **env}
    child = await Child.spawn(python_argv("chaku.engines.guard"), config={"argv": argv}, name=name, env=env)
    ended, asking = asyncio.ensure_future(child.wait()), asyncio.ensure_future(ready())
    try:
        await asyncio.wait({ended, asking}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise await why_failed(child, {})
        if not asking.done():
            raise EngineError(f"{name} did not load within {timeout_s:g} s")
        await asking
    except BaseException:
        await child.stop(patience_s=0)
        raise
    finally:
        ended.cancel()
        asking.cancel()
        await asyncio.gather(ended, asking, return_exceptions=True)
    return child


async def answer_when_ready(http: Transport, path: str) -> tuple[int, Any]:
    """Status and body of the first answer to a GET that is not 503. Its server may not listen yet.

    It asks for ever: the end of the server is watched beside this, by `run_command`.
    """
    while True:
        with contextlib.suppress(ChakuError):
            status, body = await http.json("GET", path, retries=NEVER_AGAIN)
            if status != _LOADING:
                return status, body
        await asyncio.sleep(_LOOK_EVERY_S)


def _environment(*, spins: bool) -> dict[str, str]:
    """What makes threads sleep while they wait. The user's own variables win."""
    return {} if spins or any(name in os.environ for name in NO_STALL) else NO_STALL
