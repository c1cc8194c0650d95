"""From a model reference to the engine that serves it. Nothing is started here."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from chaku.config import ModelConfig
from chaku.engines.base import Engine
from chaku.errors import ConfigError, ModelError
from chaku.models.plan.memory_plan import MemoryPlan
from chaku.models.reference import Reference, Scripted, Upstream

log = logging.getLogger(__name__)

_ENGINES: dict[type, tuple[frozenset[str], str]] = {
    Upstream: (frozenset({"api_key_env", "upstream_model", "extensions"}), "an upstream decides that itself"),
    Scripted: (frozenset(), "a script has no such thing"),
}
_LOCAL = frozenset({
    "threads", "spin", "gpu_layers", "force", "kv_type", "quant", "template", "lora", "mmproj", "idle_unload_s",
})  # fmt: skip
_LLAMACPP = (_LOCAL, "it is for upstreams")
"""By the kind of a reference: the settings that its engine takes beside those of every engine, and why not others."""
_OF_SOME = _LOCAL.union(*(settings for settings, _ in _ENGINES.values()))


@dataclass
class Resources:
    """What is left of this machine for models that are still to be opened."""

    available_bytes: int | None = None
    """Main memory. None: unknown."""
    gpu_bytes: int | None = None
    """Memory of GPUs. None: not asked yet."""
    num_local: int = 1
    """Models of this gateway that are served by engines on this machine: they share its cores."""

    def free_gpu_bytes(self) -> int:
        """Memory of the GPUs that llama.cpp can use; looked up once."""
        if self.gpu_bytes is None:
            from chaku.engines.llamacpp.devices import free_gpu_bytes

            self.gpu_bytes = free_gpu_bytes()
        return self.gpu_bytes

    def take(self, plan: MemoryPlan) -> None:
        """A model will take what is planned."""
        if self.available_bytes is not None:
            self.available_bytes = max(0, self.available_bytes - plan.total_bytes)
        if self.gpu_bytes is not None:
            self.gpu_bytes = max(0, self.gpu_bytes - plan.gpu_bytes)

    def threads(self, name: str, wanted: int | None) -> int | None:
        """Threads for one engine: those wanted, or its share of the cores. None: llama.cpp's choice, all of them."""
        cores = physical_cores()
        if wanted is None:
            return max(1, cores // self.num_local) if self.num_local > 1 else None
        if wanted * self.num_local > cores:
            log.warning(
                "threads model=%s asked=%d engines=%d cores=%d: more threads than cores make answers slower",
                name, wanted, self.num_local, cores,
            )  # fmt: skip
        return wanted


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores that this process may use, threads of one core counted once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for cpu in usable:
        file = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        siblings.add(file.read_text() if file.is_file() else str(cpu))
    return len(siblings)


def check_settings(name: str, config: ModelConfig, reference: Reference) -> None:
    """Raise ConfigError for a setting that this kind of engine can't honour, ModelError for a missing file.

    Called before anything is fetched.
    """
    taken, why = _ENGINES.get(type(reference), _LLAMACPP)
    for field in sorted(_OF_SOME - taken):
        if getattr(config, field) != ModelConfig.model_fields[field].default:
            raise ConfigError(f"{name}: {field} can't be honoured: {why}", fix=f"leave {field} out", param=field)
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
    match reference:
        case Upstream(base_url):
            from chaku.engines.upstream import UpstreamEngine

            return UpstreamEngine(name, config.model_copy(update={"source": base_url}))
        case Scripted(script):
            from chaku.engines.scripted import ScriptedEngine

            return ScriptedEngine.from_file(name, script, slots=config.slots, context=config.context)
        case _:
            assert path is not None, "a model file is pulled before its engine is opened"
            return _open_llamacpp(name, config, path, resources or Resources())


def _open_llamacpp(name: str, config: ModelConfig, path: Path, resources: Resources) -> Engine:
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
        available_bytes=resources.available_bytes,
        kv_type=config.kv_type,
        embeddings=config.embeddings,
        gpu_available_bytes=resources.free_gpu_bytes() if config.gpu_layers != 0 else 0,
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
        context=planned.context_per_slot,
        slots=planned.slots,
        threads=threads,
        spin=config.spin,
        gpu_layers=planned.gpu_layers if planned.gpu_available_bytes else config.gpu_layers,
        limits_memory=not config.force,
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
