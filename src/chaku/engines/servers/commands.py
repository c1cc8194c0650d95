"""The command lines of vLLM's and SGLang's servers. Pure: a plan in, words out. The key is never one of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaku.engines.servers.parsers import Parsers

LOOPBACK = "127.0.0.1"
BASE = "base"
"""The base's name at its server; clients never see it."""
_KEY = "CHAKU_ENGINE_KEY"
_INSIDE = Path(__file__).parent / "inside"
"""Our modules that run inside a server."""
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM has room for."""
_OURS = (
    "--host", "--port", "--uds", "--api-key", "--admin-api-key", "--served-model-name", "--model", "--model-path",
    "--config", "--root-path", "--ssl-keyfile", "--ssl-certfile", "--enable-ssl-refresh", "--middleware", "--grpc",
    "--headless",
)  # fmt: skip
"""Options of the servers that chaku sets, or that would open another way in."""


@dataclass(frozen=True)
class LaunchPlan:
    """One model as its server is to hold it."""

    folder: Path
    adapters: Mapping[str, Path]
    """peft adapters by their name at the server."""
    rank: int
    """The largest rank of the adapters."""
    slots: int
    parsers: Parsers
    context: int | None = None
    gpus: int = 1
    """GPUs that hold the model together: tensor parallel times pipeline stages."""
    pipeline: int = 1
    dtype: str = "auto"
    gpu_memory: float | None = None
    sleeps: bool = False
    """Whether an idle server keeps its process and leaves its GPUs; vLLM alone."""
    options: tuple[str, ...] = ()
    """Further words of the server's own command line."""


@dataclass(frozen=True)
class Command:
    """A command and what it needs in its environment."""

    argv: list[str]
    env: dict[str, str]


def forbidden(options: str) -> str | None:
    """The first option that a user may not set, abbreviated or not; None where all may be."""
    for word in shlex.split(options):
        option = word.partition("=")[0].replace("_", "-").lower()
        if len(option) > 2 and option.startswith("--") and any(ours.startswith(option) for ours in _OURS):
            return word
    return None


def vllm(plan: LaunchPlan, python: Path, port: int, key: str, template: Path | None) -> Command:
    """vLLM's server. It reads its key from the environment."""
    argv = [
        str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(plan.folder),
        "--host", LOOPBACK, "--port", str(port), "--served-model-name", BASE,
        "--dtype", plan.dtype, "--max-num-seqs", str(plan.slots),
        "--tensor-parallel-size", str(plan.gpus // plan.pipeline), "--pipeline-parallel-size", str(plan.pipeline),
        "--generation-config", "vllm", "--disable-uvicorn-access-log",
    ]  # fmt: skip
    argv += _given("--max-model-len", plan.context) + _given("--gpu-memory-utilization", plan.gpu_memory)
    argv += _given("--chat-template", template) + _given("--reasoning-parser", plan.parsers.reasoning)
    if plan.parsers.tools is not None:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", plan.parsers.tools]
    if plan.adapters:
        rank = next((rank for rank in _LORA_RANKS if rank >= plan.rank), _LORA_RANKS[-1])
        argv += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(plan.adapters))]
        argv += ["--lora-modules", *(f"{name}={path}" for name, path in plan.adapters.items())]
    env = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": LOOPBACK}
    if plan.sleeps:  # the guard asks for the key on the routes of sleeping too
        argv += ["--enable-sleep-mode", "--middleware", "chaku_guard.Guard"]
        places = [str(_INSIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
        env |= {"VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": os.pathsep.join(places)}
    return Command([*argv, *plan.options], env)


_SGLANG = (
    "import os, runpy, sys; "
    f"sys.argv += ['--api-key', os.environ.pop('{_KEY}')]; "
    "runpy.run_module('sglang.launch_server', run_name='__main__')"
)
"""SGLang takes its key on the command line alone, which every user of the machine can read: it is added inside."""


def sglang(plan: LaunchPlan, python: Path, port: int, key: str, template: Path | None) -> Command:
    """SGLang's server."""
    argv = [
        str(python), "-c", _SGLANG, "--model-path", str(plan.folder),
        "--host", LOOPBACK, "--port", str(port), "--served-model-name", BASE,
        "--dtype", plan.dtype, "--max-running-requests", str(plan.slots),
        "--tp-size", str(plan.gpus // plan.pipeline), "--pp-size", str(plan.pipeline),
        "--sampling-defaults", "openai", "--log-level-http", "warning",
    ]  # fmt: skip
    argv += _given("--context-length", plan.context) + _given("--mem-fraction-static", plan.gpu_memory)
    argv += _given("--chat-template", template) + _given("--reasoning-parser", plan.parsers.reasoning)
    argv += _given("--tool-call-parser", plan.parsers.tools)
    if plan.adapters:
        argv += ["--enable-lora", "--max-loras-per-batch", str(len(plan.adapters) + 1)]
        argv += ["--lora-paths", *(f"{name}={path}" for name, path in plan.adapters.items())]
    return Command([*argv, *plan.options], {_KEY: key})


def _given(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]
