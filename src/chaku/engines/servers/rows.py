"""The rows of vLLM and SGLang in the table of engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chaku.engines.base import Engine
from chaku.engines.kinds import EngineKind, Missing, Open
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.machine import gpu
from chaku.engines.servers import environments
from chaku.engines.servers.opening import ServerArgs, open_server
from chaku.models.reference import LocalFolder, Reference
from chaku.settings import ModelConfig


def _open_server(engine: str) -> Open:
    def open_it(
        name: str, config: ModelConfig, reference: Reference, path: Path | None, resources: Resources
    ) -> Engine:
        assert isinstance(reference, LocalFolder)
        return open_server(engine, name, config, reference.path)

    return open_it


def _needs_environment(engine: str) -> Callable[[ModelConfig | None], Missing | None]:
    """The `missing` of an engine that lives in a Python environment of its own."""

    def missing(config: ModelConfig | None) -> Missing | None:
        if environments.installed(engine) or (config is not None and config.engine_python is not None):
            return None
        title = environments.PACKAGES[engine].title
        fix = f"chaku engines install {engine}, or --engine-python PATH of an environment that has it"
        return Missing(f"no environment has {title}", fix)

    return missing


def _why_vllm(reference: Reference) -> str | None:
    found = gpu()
    return f"a Hugging Face folder and {found}" if found and environments.installed("vllm") else None


_OF_SERVERS = frozenset({"gpus", "engine_python", "template", "adapters", "idle_unload_s"})


VLLM = EngineKind(
    "vllm",
    "vLLM's server in an environment of its own: Hugging Face folders on GPUs",
    opens=(LocalFolder,),
    settings=_OF_SERVERS,
    why_not="vLLM has no such setting",
    open=_open_server("vllm"),
    why_auto=_why_vllm,
    missing=_needs_environment("vllm"),
    args=ServerArgs,
    is_local=True,
)
SGLANG = EngineKind(
    "sglang",
    "SGLang's server in an environment of its own: Hugging Face folders on GPUs",
    opens=(LocalFolder,),
    settings=_OF_SERVERS,
    why_not="SGLang has no such setting",
    open=_open_server("sglang"),
    why_auto=lambda _: None,
    missing=_needs_environment("sglang"),
    args=ServerArgs,
    is_local=True,
)
