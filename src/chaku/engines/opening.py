"""The table of engines: what each opens, which settings it takes, what it needs here. From a reference to its engine.

Nothing is started here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from chaku import packages
from chaku.complaints import in_words, shown
from chaku.engines.base import Engine
from chaku.engines.fastchat import FastChatEngine
from chaku.engines.kinds import EngineKind, Missing
from chaku.engines.llamacpp import program
from chaku.engines.llamacpp.opening import LlamaCppArgs, LlamaServerArgs, open_gguf
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.machine import gpu
from chaku.engines.scripted import ScriptedEngine
from chaku.engines.servers.rows import SGLANG, VLLM
from chaku.engines.transformers.opening import TransformersArgs, open_folder, type_without_gguf
from chaku.engines.upstream import UpstreamEngine
from chaku.errors import ConfigError, ModelError, UsageError
from chaku.models.reference import (
    BuiltIn,
    Host,
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
from chaku.settings import AUTO, ModelConfig


@dataclass(frozen=True)
class Choice:
    """The engine of one model, and why it was chosen."""

    kind: EngineKind
    reason: str


def needs_extras(*extras: str) -> Callable[[ModelConfig | None], Missing | None]:
    """The `missing` of an engine that needs extras of chaku."""

    def missing(_: ModelConfig | None) -> Missing | None:
        absent = sorted({package for extra in extras for package in packages.missing(extra)})
        if not absent:
            return None
        are = "is" if len(absent) == 1 else "are"
        return Missing(f"{', '.join(absent)} {are} not installed", packages.install_command(*extras))

    return missing


def _open_llamacpp(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert path is not None, "a model file is pulled before its engine is opened"
    return open_gguf(name, config, path, resources)


def _open_llama_server(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert path is not None, "a model file is pulled before its engine is opened"
    return open_gguf(name, config, path, resources, program.find(config))


def _open_upstream(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert isinstance(reference, Upstream)
    return UpstreamEngine(name, config.model_copy(update={"source": reference.base_url}))


def _open_fastchat(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert isinstance(reference, Host)
    return FastChatEngine(name, reference.url, model=config.upstream_model, silence_s=config.deadline_s)


def _why_fastchat(reference: Reference) -> None:
    """Never of itself: a URL without a path is an API's whose path was forgotten, more often."""
    assert isinstance(reference, Host)
    fix = f"an OpenAI-compatible API is usually at {reference.url}/v1; for a FastChat model worker: --engine fastchat"
    raise UsageError(f"{reference.url} has no path", fix=fix)


def _open_scripted(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert isinstance(reference, Scripted)
    return ScriptedEngine.from_file(name, reference.path, slots=config.slots, context=config.context)


def _open_transformers(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
) -> Engine:
    assert isinstance(reference, LocalFolder)
    args = TransformersArgs.model_validate(config.engine_args)
    return open_folder(name, config, reference.path, resources.threads(name, config.threads), args)


def _why_transformers(reference: Reference) -> str | None:
    assert isinstance(reference, LocalFolder)
    model_type = type_without_gguf(reference.path)
    if model_type is not None:
        return f"{model_type} models can't be converted to GGUF"
    if needs_extras("transformers")(None):
        return None
    torch = packages.version("torch")
    if (found := gpu()) and torch is not None and not torch.endswith("+cpu"):
        return f"a Hugging Face folder and {found}"
    if needs_extras("local")(None):
        return "a Hugging Face folder, and llama.cpp is not installed"
    return None


def _why_llamacpp(reference: Reference) -> str:
    if isinstance(reference, LocalFolder):
        return "a Hugging Face folder, which is converted to GGUF once"
    return "a GGUF file"


def _needs_program(config: ModelConfig | None) -> Missing | None:
    if program.find(config):
        return None
    fix = "put llama.cpp's llama-server on the PATH, or --engine-arg binary=PATH"
    return Missing(f"there is no {program.NAME}", fix)


def _why_llama_server(reference: Reference) -> str | None:
    found = program.find(None) if gpu() or sys.platform == "darwin" else None
    names = program.devices(found) if found else {}
    return f"{_why_llamacpp(reference)}, and {found} can use {', '.join(names)}" if names else None


_GGUF = (BuiltIn, LocalFile, LocalFolder, HubFile, WheelFile, UrlFile)
_OF_LLAMACPP = frozenset({
    "threads", "spin", "gpu_layers", "force", "kv_type", "quant", "template", "lora", "mmproj", "idle_unload_s",
})  # fmt: skip
_KINDS = (
    VLLM,
    SGLANG,
    EngineKind(
        "transformers",
        "transformers in a child process: Hugging Face folders as they are, with continuous batching",
        opens=(LocalFolder,),
        settings=frozenset({"threads", "spin", "template", "adapters", "idle_unload_s"}),
        why_not="transformers has no such setting",
        open=_open_transformers,
        why_auto=_why_transformers,
        missing=needs_extras("transformers"),
        args=TransformersArgs,
        is_local=True,
    ),
    EngineKind(
        program.NAME,
        "a llama-server of yours, built for your GPU",
        opens=_GGUF,
        settings=_OF_LLAMACPP,
        why_not="it is for upstreams",
        open=_open_llama_server,
        why_auto=_why_llama_server,
        missing=_needs_program,
        args=LlamaServerArgs,
        needs_gguf=True,
        is_local=True,
    ),
    EngineKind(
        "llamacpp",
        "llama.cpp in a child process, on CPU or GPU",
        opens=_GGUF,
        settings=_OF_LLAMACPP,
        why_not="it is for upstreams",
        open=_open_llamacpp,
        why_auto=_why_llamacpp,
        missing=needs_extras("local"),
        args=LlamaCppArgs,
        needs_gguf=True,
        is_local=True,
    ),
    EngineKind(
        "openai",
        "another OpenAI-compatible API",
        opens=(Upstream,),
        settings=frozenset({"api_key_env", "upstream_model", "extensions"}),
        why_not="an upstream decides that itself",
        open=_open_upstream,
        why_auto=lambda _: "a URL",
    ),
    EngineKind(
        "fastchat",
        "a FastChat model worker at its URL",
        opens=(Host,),
        settings=frozenset({"upstream_model"}),
        why_not="FastChat's worker decides that itself",
        open=_open_fastchat,
        why_auto=_why_fastchat,
    ),
    EngineKind(
        "scripted",
        "canned replies",
        opens=(Scripted,),
        settings=frozenset(),
        why_not="a script has no such thing",
        open=_open_scripted,
        why_auto=lambda _: "a script",
    ),
)  # fmt: skip
ENGINES = {kind.name: kind for kind in _KINDS}
"""Every engine by its name, in the order in which `auto` asks them."""
_OF_SOME = frozenset[str]().union(*(kind.settings for kind in _KINDS))


def choose_engine(name: str, config: ModelConfig, reference: Reference) -> Choice:
    """The engine that serves a model: `config.engine`, or for `auto` the first that is right for it on this machine.

    `auto` passes over an engine that does not take the settings that were given, unless no engine takes them.
    Raises ConfigError for an engine that does not exist, or that can't serve this source.
    """
    fitting = [kind for kind in _KINDS if isinstance(reference, kind.opens)]
    if config.engine == AUTO:
        able = [kind for kind in fitting if not _refused_settings(kind, config)] or fitting
        chosen = ((kind, kind.why_auto(reference)) for kind in able)
        by_settings = next((kind for kind in able if not kind.missing(config)), able[0])
        return next((Choice(kind, reason) for kind, reason in chosen if reason), Choice(by_settings, "its settings"))
    if config.engine not in ENGINES:
        fix = did_you_mean(config.engine, (AUTO, *ENGINES), f"engines: {', '.join((AUTO, *ENGINES))}")
        raise ConfigError(f"{name}: there is no engine {config.engine!r}", fix=fix, param="engine")
    if ENGINES[config.engine] not in fitting:
        fix = f"leave engine out, or set it to {' or '.join(kind.name for kind in fitting)}"
        raise ConfigError(f"{name}: {config.engine} can't serve {config.source}", fix=fix, param="engine")
    return Choice(ENGINES[config.engine], "by request")


def _refused_settings(kind: EngineKind, config: ModelConfig) -> list[str]:
    """The settings and engine arguments that were given and that this engine does not take."""
    fields = ModelConfig.model_fields
    given = (one for one in _OF_SOME if getattr(config, one) != fields[one].get_default(call_default_factory=True))
    return sorted({*given} - kind.settings) + [key for key in config.engine_args if key not in kind.args.model_fields]


def require_usable(kind: EngineKind, config: ModelConfig | None = None) -> None:
    """Raise UsageError with the way to get it for an engine that is not usable here, for this model if one is given."""
    if missing := kind.missing(config):
        raise UsageError(f"the engine {kind.name} can't be used: {missing.reason}", fix=missing.fix)


def check_settings(name: str, config: ModelConfig, reference: Reference) -> None:
    """Raise ConfigError for a setting that the engine can't honour, ModelError for a missing file.

    Called before anything is fetched.
    """
    kind = choose_engine(name, config, reference).kind
    _check_args(name, config, kind)
    for field in _refused_settings(kind, config):
        raise ConfigError(f"{name}: {field} can't be honoured: {kind.why_not}", fix=f"leave {field} out", param=field)
    for option, files in (("--lora", config.lora), ("--mmproj", (config.mmproj,) if config.mmproj else ())):
        for file in files:
            if not file.is_file():
                raise ModelError(f"no file {file}", fix=f"check the path given to {option}")
    if config.engine_python is not None and not os.access(config.engine_python, os.X_OK):
        fix = "check the path given to --engine-python"
        raise ConfigError(f"{name}: {config.engine_python} can't be run", fix=fix, param="engine_python")


def _check_args(name: str, config: ModelConfig, kind: EngineKind) -> None:
    """Raise ConfigError for an engine argument that the engine does not take, or whose value it can't use."""
    known = kind.args.model_fields
    takes = f"{kind.name} takes {', '.join(known) or 'none'}"
    for key in config.engine_args:
        if key not in known:
            fix = did_you_mean(key, known, takes)
            raise ConfigError(f"{name}: {kind.name} has no engine argument {key!r}", fix=fix, param="engine_args")
    try:
        kind.args.model_validate(config.engine_args)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise ConfigError(
            f"{name}: the engine argument {key} is {shown(first['input'])}, {in_words(first)}",
            fix=f"write another value, or leave {key} out",
            param="engine_args",
        ) from None


def open_engine(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources | None = None
) -> Engine:
    """The engine for a reference; `path` is its pulled file, where it has one. What it will take goes off `resources`.

    Raises as `check_settings`, and ModelError for a model that does not fit.
    """
    check_settings(name, config, reference)
    return choose_engine(name, config, reference).kind.open(name, config, reference, path, resources or Resources())
