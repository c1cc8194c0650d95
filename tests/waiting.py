"""Wait until something is true: for the event loop's tests, and for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from processes import PATIENCE_S


async def soon(claim: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """What the claim gave once it was true."""
    async with asyncio.timeout(timeout_s):
        while not (found := claim()):
            await asyncio.sleep(0.01)
    return found


def eventually(claim: Callable[[], Any], timeout_s: float = PATIENCE_S, *, why: Callable[[], str] = lambda: "") -> Any:
    """What the claim gave once it was true."""
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, f"it never held {why()}"
        time.sleep(0.05)
    return found
