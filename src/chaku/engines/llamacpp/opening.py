"""From a GGUF file and its settings to llama.cpp's engine: memory, chat template, threads. Nothing is started here."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import Field

from chaku.config import Frozen
from chaku.engines.chat_template import choose
from chaku.engines.llamacpp import program
from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
from chaku.engines.llamacpp.resources import Resources
from chaku.errors import ConfigError, ModelError
from chaku.models.files.gguf import read_metadata
from chaku.models.plan.memory_plan import plan, require_fit
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)


class LlamaCppArgs(Frozen):
    """The `engine_args` of llama.cpp."""

    batch: int | None = Field(None, ge=1, le=16384)
    """Prompt tokens per step; other requests get no token meanwhile. Default: 256 on a CPU, 2,048 on a GPU."""


class LlamaServerArgs(LlamaCppArgs):
    """The `engine_args` of llama-server."""

    binary: str = program.NAME
    """The program: a path, or a name on the PATH."""


def open_gguf(
    name: str, config: ModelConfig, path: Path, resources: Resources, binary: Path | None = None
) -> LlamaCppEngine:
    """The engine of a GGUF file, served by the wheel or by `binary`. What it will take goes off `resources`.

    Raises ConfigError for settings that the model can't honour, ModelError for a model that does not fit.
    """
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
        available_bytes=resources.available_bytes,
        kv_type=config.kv_type,
        embeddings=config.embeddings,
        gpu_available_bytes=resources.free_gpu_bytes(binary) if config.gpu_layers != 0 else 0,
        gpu_layers=config.gpu_layers,
    )
    try:
        require_fit(planned)
    except ModelError as error:
        if not config.force:
            raise
        log.warning("planned model=%s is served because of --force, although %s", name, error.message)
    trained = planned.trained_context
    if trained is not None and planned.context_per_slot > trained:
        raise ConfigError(
            f"{name}: context is {planned.context_per_slot:,}, llama.cpp stops at the {trained:,} it was trained for",
            fix=f"lower --context to {trained}, or leave it out",
            param="context",
        )
    chosen = choose(name, config, metadata)
    resources.take(planned)
    log.info("planned model=%s %s", name, planned.describe())
    for note in planned.notes:
        log.warning("planned model=%s %s", name, note)
    threads = resources.threads(name, config.threads)
    how = (
        "spin: answers stall on a busy machine"
        if config.spin
        else "sleep while they wait (--spin is for idle machines)"
    )
    log.info("threads model=%s number=%s they %s", name, threads or "all cores", how)
    settings = Settings(
        model=path,
        program=binary,
        context=planned.context_per_slot,
        slots=planned.slots,
        threads=threads,
        spin=config.spin,
        gpu_layers=planned.gpu_layers if planned.gpu_available_bytes else config.gpu_layers,
        limits_memory=not config.force,
        lora=config.lora,
        mmproj=config.mmproj,
        kv_type=config.kv_type,
        batch=LlamaServerArgs.model_validate(config.engine_args).batch,
        chat_template=chosen.jinja,
        stops=chosen.stops,
        embeddings=config.embeddings,
        pooling="cls" if metadata.pooling == "cls" else "last" if metadata.pooling == "last" else "mean",
        special_tokens=metadata.special_tokens,
        idle_unload_s=config.idle_unload_s,
    )
    return LlamaCppEngine(name, settings)
