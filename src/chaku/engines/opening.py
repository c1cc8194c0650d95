"""From a model reference to the engine that serves it. Nothing is started here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from chaku.config import ModelConfig
from chaku.engines.base import Engine
from chaku.errors import ConfigError, ModelError
from chaku.models.reference import Reference, Scripted, Upstream

_ONLY_UPSTREAM = ("api_key_env", "upstream_model", "extensions")
_ONLY_LOCAL = ("threads", "spin", "gpu_layers", "kv_type", "quant", "template", "lora", "mmproj", "idle_unload_s")

log = logging.getLogger(__name__)


@dataclass
class Memory:
    """What is left for models that are still to be planned. None: unknown."""

    available_bytes: int | None

    def take(self, num_bytes: int) -> None:
        """So much has been planned for."""
        if self.available_bytes is not None:
            self.available_bytes = max(0, self.available_bytes - num_bytes)


def check_settings(name: str, config: ModelConfig, reference: Reference) -> None:
    """Raise ConfigError for a setting that this kind of engine can't honour, ModelError for a file that is not there.

    Known before anything is fetched.
    """
    match reference:
        case Upstream():
            _refuse(name, config, _ONLY_LOCAL, "an upstream decides that itself")
        case Scripted():
            _refuse(name, config, (*_ONLY_LOCAL, *_ONLY_UPSTREAM), "a script has no such thing")
        case _:
            _refuse(name, config, _ONLY_UPSTREAM, "it is for upstreams")
    for option, files in (("--lora", config.lora), ("--mmproj", (config.mmproj,) if config.mmproj else ())):
        for file in files:
            if not file.is_file():
                raise ModelError(f"no file {file}", fix=f"check the path given to {option}")


def open_engine(
    name: str, config: ModelConfig, reference: Reference, path: Path | None, memory: Memory | None = None
) -> Engine:
    """The engine for a reference; `path` is its pulled file, where it has one. What it will take goes off `memory`.

    Raises as `check_settings`, and ModelError for a model that does not fit.
    """
    check_settings(name, config, reference)
    match reference:
        case Upstream(base_url):
            from chaku.engines.upstream import UpstreamEngine

            return UpstreamEngine(name, config.model_copy(update={"source": base_url}))
        case Scripted(script):
            from chaku.engines.scripted import ScriptedEngine

            return ScriptedEngine.from_file(name, script, slots=config.slots, context=config.context)
        case _:
            assert path is not None, "a model file is pulled before its engine is opened"
            return _open_llamacpp(name, config, path, memory or Memory(None))


def _open_llamacpp(name: str, config: ModelConfig, path: Path, memory: Memory) -> Engine:
    from chaku.engines.chat_template import choose
    from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
    from chaku.models.files.gguf import read_metadata
    from chaku.models.plan.memory_plan import plan, require_fit

    metadata = read_metadata(path)
    if config.kv_type == "q8_0" and (metadata.key_length % 32 or metadata.value_length % 32):
        raise ConfigError(
            f"{name}: kv_type q8_0 needs heads of a multiple of 32, this model's are {metadata.key_length} wide",
            fix="leave kv_type at f16",
            param="kv_type",
        )
    planned = plan(
        metadata,
        context=config.context,
        slots=config.slots,
        available_bytes=memory.available_bytes,
        kv_type=config.kv_type,
        embeddings=config.embeddings,
    )
    require_fit(planned)
    trained = planned.trained_context
    if trained is not None and planned.context_per_slot > trained:
        raise ConfigError(
            f"{name}: context is {planned.context_per_slot:,}, llama.cpp stops at the {trained:,} it was trained for",
            fix=f"lower --context to {trained}, or leave it out",
            param="context",
        )
    chosen = choose(name, config, metadata)
    memory.take(planned.total_bytes)
    log.info("planned model=%s %s", name, planned.describe())
    for note in planned.notes:
        log.warning("planned model=%s %s", name, note)
    settings = Settings(
        model=path,
        context=planned.context_per_slot,
        slots=planned.slots,
        threads=config.threads,
        spin=config.spin,
        gpu_layers=config.gpu_layers,
        lora=config.lora,
        mmproj=config.mmproj,
        kv_type=config.kv_type,
        chat_template=chosen.jinja,
        stops=chosen.stops,
        embeddings=config.embeddings,
        pooling="cls" if metadata.pooling == "cls" else "last" if metadata.pooling == "last" else "mean",
        special_tokens=metadata.special_tokens,
        idle_unload_s=config.idle_unload_s,
    )
    return LlamaCppEngine(name, settings)


def _refuse(name: str, config: ModelConfig, fields: tuple[str, ...], why: str) -> None:
    for field in fields:
        if getattr(config, field) != ModelConfig.model_fields[field].default:
            raise ConfigError(f"{name}: {field} can't be honoured: {why}", fix=f"leave {field} out", param=field)
