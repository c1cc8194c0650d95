"""How an evaluation calls models: a limit per host, Retry-After honoured, tokens counted, the budget kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from chaku.client import Client, Completion, Message, Retries
from chaku.errors import AuthenticationFailed, EngineError, EngineUnavailable, NotFound, Overloaded, PermissionRefused
from chaku.evals.prices import Budget
from chaku.evals.records import CallUsage

RETRIES = Retries(limit=30, budget_s=600.0)
"""A full queue, a limit of calls per minute and an engine that restarts are waited for."""
_UNLIMITED = replace(RETRIES, statuses=frozenset({503}))
ENDING = (EngineUnavailable, Overloaded, AuthenticationFailed, PermissionRefused, NotFound)
"""Failures that hold for all further calls too: a run ends with them. Others belong to one call and are recorded."""


@dataclass(frozen=True)
class ModelHost:
    """An OpenAI-compatible API."""

    base_url: str
    api_key: str | None = None


@dataclass(frozen=True)
class Called:
    """An answer and what it cost."""

    completion: Completion
    usage: CallUsage


class ModelCaller:
    """`async with ModelCaller({"model": host}, parallel=8) as caller: await caller.chat("model", messages)`.

    Two models on one host share its limit.
    """

    def __init__(
        self,
        hosts: Mapping[str, ModelHost],
        *,
        parallel: int,
        budget: Budget | None = None,
        served: Mapping[str, str] | None = None,
        waits_for_limits: bool = True,
    ) -> None:
        """`hosts`: model to host. `parallel`: calls at once to one host, at most.

        `served`: what a host calls a model, where it is another name. Without `waits_for_limits` a 429 is raised.
        """
        self._hosts = dict(hosts)
        self._served = dict(served or {})
        self._budget = budget or Budget(None, {})
        self._limits = {_place(host): asyncio.Semaphore(parallel) for host in self._hosts.values()}
        self._clients = {
            host: Client(host.base_url, host.api_key, retries=RETRIES if waits_for_limits else _UNLIMITED)
            for host in dict.fromkeys(self._hosts.values())
        }
        self._open = contextlib.AsyncExitStack()
        self.num_workers = parallel * len(self._limits)
        """Tasks that keep all hosts busy."""

    async def __aenter__(self) -> Self:
        for client in self._clients.values():
            await self._open.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def declares(self, model: str, capability: str) -> bool:
        """Whether the model's server says that it has a capability; a server that says nothing of them has none."""
        with contextlib.suppress(NotFound):
            rows = await self._clients[self._hosts[model]].model_rows()
            return capability in (rows.get(self._served.get(model, model), {}).get("capabilities") or ())
        return False

    async def chat(self, model: str, messages: Sequence[Message], *, max_tokens: int, **sampling: Any) -> Called:
        """One answer. Raises BudgetReached before a call that may not fit, and what `Client.chat` raises."""
        host = self._hosts[model]
        async with self._limits[_place(host)]:
            reserved = self._budget.reserve(model, messages, max_tokens)
            usage = CallUsage()
            started = time.monotonic()
            try:
                completion = await self._clients[host].chat(
                    messages, self._served.get(model, model), max_tokens=max_tokens, **sampling
                )
                counted = completion.usage
                usage = CallUsage(
                    prompt_tokens=counted.prompt_tokens if counted else 0,
                    completion_tokens=counted.completion_tokens if counted else 0,
                    seconds=round(time.monotonic() - started, 3),
                )
            except EngineError:
                usage = CallUsage(dollars=reserved)  # it may have worked on the call, and will be paid for it
                raise
            finally:
                usage = self._budget.settle(model, reserved, usage)
            return Called(completion, usage)


def _place(host: ModelHost) -> str:
    return urlsplit(host.base_url).netloc
