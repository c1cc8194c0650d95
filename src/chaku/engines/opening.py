"""The table of engines: what each opens and which settings it takes. From a model reference to its engine.

Nothing is started here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaku.engines.base import Engine
from chaku.engines.llamacpp.opening import open_gguf
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.scripted import ScriptedEngine
from chaku.engines.upstream import UpstreamEngine
from chaku.errors import ConfigError, ModelError
from chaku.models.reference import (
    BuiltIn,
    HubFile,
    LocalFile,
    LocalFolder,
    Reference,
    Scripted,
    Upstream,
    UrlFile,
    WheelFile,
)
from chaku.nearest import did_you_mean
from chaku.settings import ModelConfig

Open = Callable[[str, ModelConfig, Reference, Path | None, Resources], Engine]


@dataclass(frozen=True)
class EngineKind:
    """A row of the table: one kind of engine."""

    summary: str
    """For the settings page."""
    opens: tuple[type, ...]
    """Kinds of reference that it serves."""
    settings: frozenset[str]
    """Fields of ModelConfig that it takes beside those that every engine takes."""
    why_not: str
    """Why it can't honour the other engines' settings."""
    open: Open
    needs_file: bool = False
    """Whether the model's file is fetched to this machine, and its weights take memory here."""


def _open_llamacpp(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert path is not None, "a model file is pulled before its engine is opened"
    return open_gguf(name, config, path, resources)


def _open_upstream(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert isinstance(reference, Upstream)
    return UpstreamEngine(name, config.model_copy(update={"source": reference.base_url}))


def _open_scripted(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert isinstance(reference, Scripted)
    return ScriptedEngine.from_file(name, reference.path, slots=config.slots, context=config.context)


ENGINES = {
    "llamacpp": EngineKind(
        "llama.cpp in a child process, on CPU or GPU",
        opens=(BuiltIn, LocalFile, LocalFolder, HubFile, WheelFile, UrlFile),
        settings=frozenset({
            "threads", "spin", "gpu_layers", "force", "kv_type", "quant", "template", "lora", "mmproj", "idle_unload_s",
        }),
        why_not="it is for upstreams",
        open=_open_llamacpp,
        needs_file=True,
    ),
    "upstream": EngineKind(
        "another OpenAI-compatible API",
        opens=(Upstream,),
        settings=frozenset({"api_key_env", "upstream_model", "extensions"}),
        why_not="an upstream decides that itself",
        open=_open_upstream,
    ),
    "scripted": EngineKind(
        "canned replies",
        opens=(Scripted,),
        settings=frozenset(),
        why_not="a script has no such thing",
        open=_open_scripted,
    ),
}  # fmt: skip
"""Every engine by its name."""
_OF_SOME = frozenset[str]().union(*(kind.settings for kind in ENGINES.values()))


def engine_kind(name: str, config: ModelConfig, reference: Reference) -> EngineKind:
    """The row of the engine that serves a model: `config.engine`, or the first that opens such a reference.

    Raises ConfigError for an engine that there is not, or that can't serve this source.
    """
    fitting = [engine for engine, kind in ENGINES.items() if isinstance(reference, kind.opens)]
    if config.engine is None:
        return ENGINES[fitting[0]]
    if config.engine not in ENGINES:
        fix = did_you_mean(config.engine, ENGINES, f"engines: {', '.join(ENGINES)}")
        raise ConfigError(f"{name}: there is no engine {config.engine!r}", fix=fix, param="engine")
    if config.engine not in fitting:
        fix = f"leave engine out, or set it to {' or '.join(fitting)}"
        raise ConfigError(f"{name}: {config.engine} can't serve {config.source}", fix=fix, param="engine")
    return ENGINES[config.engine]


def check_settings(name: str, config: ModelConfig, reference: Reference) -> None:
    """Raise ConfigError for a setting that the engine can't honour, ModelError for a missing file.

    Called before anything is fetched.
    """
    kind = engine_kind(name, config, reference)
    for field in sorted(_OF_SOME - kind.settings):
        if getattr(config, field) != ModelConfig.model_fields[field].default:
            raise ConfigError(
                f"{name}: {field} can't be honoured: {kind.why_not}", fix=f"leave {field} out", param=field
            )
    for option, files in (("--lora", config.lora), ("--mmproj", (config.mmproj,) if config.mmproj else ())):
        for file in files:
            if not file.is_file():
                raise ModelError(f"no file {file}", fix=f"check the path given to {option}")


def open_engine(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources | None = None
) -> Engine:
    """The engine for a reference; `path` is its pulled file, where it has one. What it will take goes off `resources`.

    Raises as `check_settings`, and ModelError for a model that does not fit.
    """
    check_settings(name, config, reference)
    return engine_kind(name, config, reference).open(name, config, reference, path, resources or Resources())
