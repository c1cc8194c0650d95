"""The table of served models: each is found by its name, or its fallback in its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from chaku.engines.base import Engine
from chaku.errors import InvalidRequest, NotFound
from chaku.nearest import did_you_mean
from chaku.policies import NO_LIMITS, Limits
from chaku.serve.served import LOOK_EVERY_S, Replica, Served
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)


class ModelTable:
    """Name to model. Starts them side by side and stops them all."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}
        self.default: str | None = None
        """The model for requests that name none, where several are served."""

    def default_name(self, limits: Limits = NO_LIMITS) -> str:
        """The model for a request that names none: `default`, or the only one that its caller may ask.

        Raises InvalidRequest.
        """
        if self.default is not None and limits.may_ask(self.default):
            return self.default
        names = self._names(limits)
        if len(names) != 1:
            fix = "send the header azureml-model-deployment, or start with --score-model"
            raise InvalidRequest(f"{len(names)} models are served: name one", fix=fix, param="model")
        return names[0]

    def add(self, engine: Engine, config: ModelConfig, *, created: int) -> Served:
        """Add a replica that has not been started, and its model where it is the first. Times are Unix seconds."""
        served = self.serve(engine.name, config, created=created)
        served.replicas.append(Replica(engine))
        served.is_configured = True
        return served

    def serve(self, name: str, config: ModelConfig, *, created: int) -> Served:
        """The model of that name; a new one, without replicas, if there is none."""
        served = self._served.get(name)
        if served is None:
            served = self._served[name] = Served(name, config, created)
        return served

    def forget(self, served: Served) -> None:
        """Take a model out whose last worker is gone; one with a fallback, or that the gateway began with, stays."""
        if not served.replicas and not served.is_configured and not served.config.fallback:
            self._served.pop(served.name, None)

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __contains__(self, name: object) -> bool:
        return name in self._served

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str, limits: Limits = NO_LIMITS) -> Served:
        """The model of that name, whether it takes requests or not.

        Raises NotFound with the nearest name. A caller with a list of models gets the same error for every name that
        is not on it, whether there is such a model or not.
        """
        served = self._served.get(name)
        if served is None or not limits.may_ask(name):
            names = self._names(limits)
            fix = did_you_mean(name, names, f"models here: {', '.join(names) or 'none'}")
            whose = " that you may ask" if limits.models else ""
            raise NotFound(f"no model {name!r}{whose} is served here", fix=fix, param="model", code="model_not_found")
        return served

    def _names(self, limits: Limits) -> list[str]:
        """The models that a caller may ask."""
        return [name for name in self._served if limits.may_ask(name)]

    def find(self, name: str) -> Served:
        """The model of that name, with a replica that takes requests.

        Raises NotFound, or EngineUnavailable with when to come back.
        """
        served = self.get(name)
        if not served.refresh():
            raise served.unavailable()
        return served

    async def available_soon(self, served: Served, limits: Limits) -> Served:
        """A model that takes requests: this one, or a fallback that the caller may ask.

        Waits for workers that were just there. Raises EngineUnavailable with when to come back.
        """
        while True:
            served = self._served.get(served.name, served)  # its last worker may have left, and joined again
            found = served if served.refresh() else self.fallback_of(served, limits)
            if found is not None:
                return found
            if not served.was_just_there:
                raise served.unavailable()
            await asyncio.sleep(LOOK_EVERY_S)

    def fallback_of(self, served: Served, limits: Limits) -> Served | None:
        """The first of a model's fallbacks, and theirs, that takes requests and that the caller may ask."""
        seen = {served.name}
        following = self._served.get(served.config.fallback or "")
        while following is not None and following.name not in seen:
            if limits.may_ask(following.name) and following.refresh():
                return following
            seen.add(following.name)
            following = self._served.get(following.config.fallback or "")
        return None

    async def start(self) -> None:
        """Start every replica. A model that can't be started stays in the table as failed, and the others serve.

        Raises the first model's failure if no model could be started.
        """
        await asyncio.gather(*(served.start_replica(replica) for served in self for replica in served.replicas))
        failures = [failure for served in self if (failure := served.failure) is not None]
        if failures and len(failures) == len(self):
            raise failures[0]

    async def stop(self) -> None:
        """Stop every engine, all at once. One that fails to stop is logged, and the others are stopped all the same."""
        replicas = [(served.name, replica) for served in self for replica in served.replicas]
        outcomes = await asyncio.gather(*(replica.engine.stop() for _, replica in replicas), return_exceptions=True)
        for (name, _), outcome in zip(replicas, outcomes, strict=True):
            if isinstance(outcome, Exception):
                log.error("engine did not stop model=%s", name, exc_info=outcome)
