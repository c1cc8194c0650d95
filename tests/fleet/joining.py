"""Gateways that workers join, and what is seen of the workers there."""

from __future__ import annotations

import contextlib
from typing import Any

from chaku.protocol.fleet import Join
from gateways import Running, chat, gateway


def gateway_without_models(**options: Any) -> contextlib.AbstractAsyncContextManager[Running]:
    return gateway(bare=True, **options)


def states(g: Running) -> dict[str, str]:
    assert g.serving.fleet is not None
    return {row["name"]: row["state"] for row in g.serving.fleet.rows()}


async def said(g: Running) -> str:
    status, answer, _ = await g.post("/v1/chat/completions", chat("hi") | {"model": "m"})
    assert status == 200, answer
    text: str = answer["choices"][0]["message"]["content"]
    return text


def join_of(url: str, **changed: Any) -> Join:
    return Join(name="w", generation="1", url=url, key="k" * 43, model="m", **changed)
