"""Adapters on one base model: each is an engine under a name of its own, and all share the base's child."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from chaku.engines.base import Answer, Call, Capabilities, Engine, Status


class BaseEngine(Engine):
    """An engine whose model can carry adapters."""

    @property
    @abstractmethod
    def adapter_names(self) -> Iterable[str]:
        """The adapters, by the names that clients use."""

    @abstractmethod
    def ask_model(self, model: str, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Ask the base or an adapter by its name."""

    def ask(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Ask the base; see `Engine.ask`."""
        return self.ask_model(self.name, call)

    def adapters(self) -> list[AdapterEngine]:
        """The adapters as engines of their own, which share the child."""
        return [AdapterEngine(name, self) for name in self.adapter_names]


class AdapterEngine(Engine):
    """An adapter on another engine's base, in the same child."""

    def __init__(self, name: str, base: BaseEngine) -> None:
        self.name = name
        self._base = base

    async def start(self) -> None:
        """Start the base, or wait for its start."""
        await self._base.start()

    @property
    def capabilities(self) -> Capabilities:
        """The base's."""
        return self._base.capabilities

    def status(self) -> Status:
        """The base's."""
        return self._base.status()

    def ask(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Ask the child for this adapter."""
        return self._base.ask_model(self.name, call)

    async def stop(self) -> None:
        """Stop the base: an adapter does not outlive it."""
        await self._base.stop()
