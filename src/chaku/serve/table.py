"""Which models this gateway serves, and in what state each is."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from chaku.config import ModelConfig
from chaku.engines.base import Engine, State
from chaku.errors import ChakuError, EngineUnavailable, NotFound
from chaku.serve.admission import Admission

log = logging.getLogger(__name__)


@dataclass
class Served:
    """One model behind the gateway."""

    engine: Engine
    config: ModelConfig
    admission: Admission
    embedding_admission: Admission
    """Embeddings have slots of their own, so that they take none from chats."""
    created: int
    failure: ChakuError | None = None
    """Why it could not be started."""


class ModelTable:
    """Name to model. Starts them side by side and stops them all."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}

    def add(self, engine: Engine, config: ModelConfig, *, created: int) -> Served:
        """Take in a model that has not been started. Names are unique: the caller has checked."""
        assert engine.name not in self._served
        chats, embeddings = (Admission(engine.name, None, config.queue_limit) for _ in range(2))
        served = Served(engine, config, chats, embeddings, created)
        self._served[engine.name] = served
        return served

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    def find(self, name: str) -> Served:
        """The model of that name, ready or about to be.

        Raises NotFound with the nearest name, or EngineUnavailable with when to come back.
        """
        served = self._served.get(name)
        if served is None:
            near = difflib.get_close_matches(name, self._served, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"models here: {', '.join(self._served) or 'none'}"
            raise NotFound(f"no model {name!r} is served here", fix=fix, param="model", code="model_not_found")
        if served.failure is not None:
            raise EngineUnavailable(f"{name} could not be started: {served.failure.message}", fix=served.failure.fix)
        status = served.engine.status()
        if status.state not in (State.READY, State.UNLOADED):
            detail = f" ({status.detail})" if status.detail else ""
            raise EngineUnavailable(f"{name} is {status.state}{detail}", retry_after_s=status.retry_after_s or 2.0)
        return served

    async def start(self) -> None:
        """Start every model; raises the first failure once all have been tried."""
        await asyncio.gather(*(self._start(served) for served in self))
        for served in self:
            if served.failure is not None:
                raise served.failure

    async def _start(self, served: Served) -> None:
        try:
            await served.engine.start()
        except ChakuError as error:
            served.failure = error
            log.error("model failed model=%s error=%s", served.engine.name, error)
            return
        known = served.engine.capabilities
        served.admission.slots = known.slots
        served.embedding_admission.slots = known.embedding_slots
        if served.engine.status().state is not State.READY:
            return  # an upstream that is away: it has said so, and comes up by itself
        log.info(
            "model ready model=%s slots=%s tokens_per_request=%s %s",
            served.engine.name,
            known.slots or "unknown",
            known.context_tokens or "unknown",
            served.engine.status().detail,
        )

    async def stop(self) -> None:
        """Stop every engine, all at once."""
        await asyncio.gather(*(served.engine.stop() for served in self))
