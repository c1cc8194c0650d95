"""Adapters on one base model: each is an engine under a name of its own, and all share the base's child."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic

from chaku.engines.base import Answer, Call, Capabilities, Engine, Status
from chaku.engines.supervisor import BackOff, ChildSupervisor, Run


class BaseEngine(Engine, Generic[Run]):
    """One base model in a child that is kept alive, and adapters on it."""

    def __init__(
        self, name: str, *, idle_unload_s: float | None, back_off: BackOff, capabilities: Capabilities | None = None
    ) -> None:
        """`name` is what clients call the base. `capabilities` are what is known of it before its child runs."""
        self.name = name
        self._supervisor = ChildSupervisor(
            name, self._launch, idle_unload_s=idle_unload_s, unload=self._unload, back_off=back_off
        )
        self._capabilities = capabilities or Capabilities()

    @abstractmethod
    async def _launch(self) -> Run:
        """Start a child; return when it has generated a token, having set `_capabilities`."""

    async def _unload(self, running: Run) -> None:
        """Put an idle child away."""
        await running.close()

    async def start(self) -> None:
        """Load and generate a token. Raises ModelError (model, memory, missing package) or EngineError."""
        await self._supervisor.start()

    async def stop(self) -> None:
        """End the child and all that it started."""
        await self._supervisor.stop()

    @property
    def capabilities(self) -> Capabilities:
        """With what the child has reported."""
        return self._capabilities

    def status(self) -> Status:
        """Of the child."""
        return self._supervisor.status()

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

    def __init__(self, name: str, base: BaseEngine[Any]) -> None:
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
