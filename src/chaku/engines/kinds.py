"""A row of the table of engines: what one kind of engine opens, which settings it takes, what it needs here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaku.config import Frozen
from chaku.engines.base import Engine
from chaku.engines.llamacpp.resources import Resources
from chaku.models.reference import Reference
from chaku.settings import ModelConfig

Open = Callable[[str, ModelConfig, Reference, Path | None, Resources], Engine]


@dataclass(frozen=True)
class Missing:
    """Why an engine is not usable here, and the command that makes it usable."""

    reason: str
    fix: str


class NoArgs(Frozen):
    """The `engine_args` of an engine that takes none."""


@dataclass(frozen=True)
class EngineKind:
    """A row of the table: one kind of engine."""

    name: str
    summary: str
    """For the settings page."""
    opens: tuple[type, ...]
    """Kinds of reference that it serves."""
    settings: frozenset[str]
    """Fields of ModelConfig that it takes beside those that every engine takes."""
    why_not: str
    """Why it can't honour the other engines' settings."""
    open: Open
    why_auto: Callable[[Reference], str | None]
    """Why `engine: auto` takes it for a reference that it opens; None: not for this one. Earlier rows come first."""
    missing: Callable[[ModelConfig | None], Missing | None] = lambda _: None
    """What is not here, under the settings of a model if one is given; None where the engine is usable."""
    args: type[Frozen] = NoArgs
    """The keys of `engine_args`, with their types."""
    needs_gguf: bool = False
    """Whether the model is fetched, and converted to a GGUF file, before the engine is opened."""
    is_local: bool = False
    """Whether it takes memory and cores of this machine."""
