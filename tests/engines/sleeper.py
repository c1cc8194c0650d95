"""A child that does nothing but say who it is, and a supervisor of such children."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chaku.engines.process import Child
from chaku.engines.supervisor import ChildSupervisor
from processes import SOURCE

SLEEPER = """
import os, sys
sys.path.insert(0, {root!r})
from chaku.engines.process import Lifeline
life = Lifeline()
life.say({{"pid": os.getpid(), "config": life.config}})
import time
time.sleep(600)
"""
CODE = SLEEPER.format(root=str(SOURCE))


@dataclass
class Sleeper:
    child: Child

    async def close(self) -> None:
        await self.child.stop(patience_s=1)


async def launch() -> Sleeper:
    child = await Child.spawn([sys.executable, "-c", CODE], config={"key": "secret"}, name="sleeper")
    assert await child.next_message() is not None
    return Sleeper(child)


@contextlib.asynccontextmanager
async def supervised(launch=launch, **options) -> AsyncIterator[ChildSupervisor[Sleeper]]:
    supervisor = ChildSupervisor("sleeper", launch, **options)
    try:
        yield supervisor
    finally:
        await supervisor.stop()
