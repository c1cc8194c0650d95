"""llama.cpp's server in a child process: its settings, its start, and the meaning of its failures."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from chaku.engines.llamacpp import program
from chaku.engines.llamacpp.refusal import refusal
from chaku.engines.model_child import answer_when_ready, load, run_command
from chaku.engines.process import Child
from chaku.engines.supervisor import BackOff, NotEnoughMemory
from chaku.errors import EngineError, ModelError
from chaku.http_out import Retries, Transport
from chaku.packages import install_command
from chaku.ports import free_port

EMBEDDING_SLOTS = 2
_RETRIES = Retries(limit=2, budget_s=5.0, first_pause_s=0.02, statuses=frozenset())
"""Its server now and then closes a connection without a byte; sending the request again can't be noticed."""
_MOST_EMBEDDED_TOKENS = 2048
_OUT_OF_MEMORY = ("failed to allocate", "unable to allocate", "out of memory", "bad_alloc")


@dataclass(frozen=True)
class Settings:
    """Settings that one GGUF model is served with."""

    model: Path
    program: Path | None = None
    """A llama-server of the user's. None: the server in the wheel."""
    context: int = 2048
    """Tokens one request may use, prompt and answer together."""
    slots: int = 32
    """Requests decoded at once; llama.cpp's context is `context * slots`."""
    threads: int | None = None
    """CPU threads. None: llama.cpp's choice, the physical cores."""
    spin: bool = False
    """Threads wait for each other without sleeping: faster on an idle machine, stalls of seconds on a busy one."""
    gpu_layers: int | None = None
    """Layers on the GPU. None: all that fit."""
    limits_memory: bool = True
    """Let an allocation beyond the free memory fail at once. The server in the wheel alone can."""
    kv_type: Literal["f16", "q8_0"] = "f16"
    """Of the KV cache. q8_0 needs a head size that 32 divides."""
    batch: int | None = None
    """Prompt tokens per step; other requests get no token meanwhile. None: 256 on a CPU, 2,048 with layers on a GPU."""
    lora: tuple[Path, ...] = ()
    mmproj: Path | None = None
    chat_template: str | None = None
    """Jinja, instead of the file's own."""
    stops: tuple[str, ...] = ()
    """Texts that end an answer, where no special token does."""
    embeddings: bool = True
    pooling: Literal["mean", "cls", "last"] = "mean"
    special_tokens: tuple[str, ...] = ()
    """Spellings of the file's control tokens; the tokens that begin and end a text are known without."""
    idle_unload_s: float | None = None
    load_timeout_s: float = 600.0
    back_off: BackOff = field(default_factory=BackOff)


@dataclass
class LlamaServer:
    """One listening child."""

    child: Child
    http: Transport
    key: str

    async def close(self) -> None:
        """Close the connections and end the process."""
        await self.http.close()
        await self.child.stop()


async def start_chat(name: str, settings: Settings) -> LlamaServer:
    """Load the model for chats and completions and generate a token. Raises ModelError or EngineError."""
    params: dict[str, Any] = {
        "n_parallel": settings.slots,
        "n_ctx": settings.context * settings.slots,
        "n_threads_http": 2 * settings.slots + 8,  # every open stream holds one
    }
    if settings.chat_template:
        params["chat_template"] = settings.chat_template
    server = await _start(name, settings, params)
    try:
        await _prove_ready(name, server)
    except BaseException:
        await server.close()
        raise
    return server


async def start_embeddings(name: str, settings: Settings) -> LlamaServer:
    """Load the model for embeddings of inputs up to the context, at most 2,048 tokens. Raises as `start_chat`.

    On the CPU: a GPU would hold the weights a second time.
    """
    tokens = min(settings.context, _MOST_EMBEDDED_TOKENS)
    params = {
        "n_parallel": EMBEDDING_SLOTS,
        "n_ctx": tokens * EMBEDDING_SLOTS,
        "n_batch": tokens,
        "n_ubatch": tokens,
        "n_threads_http": 32,
        "embedding": True,
    }
    return await _start(name, settings, params)


async def _start(name: str, settings: Settings, params: dict[str, Any]) -> LlamaServer:
    if not settings.model.is_file():
        raise ModelError(f"no file {settings.model}", fix="check the path, or pull the model again")
    key = secrets.token_urlsafe(24)
    config = {
        "model": str(settings.model),
        "alias": name,
        "key": key,
        "params": params,
        "batch": settings.batch,
        "kv_type": settings.kv_type,
        "threads": settings.threads,
        "limits_memory": settings.limits_memory,
        "gpu_layers": 0 if params.get("embedding") else settings.gpu_layers,
        "mmproj": str(settings.mmproj) if settings.mmproj and not params.get("embedding") else None,
        "lora": [str(path) for path in settings.lora],
        "pooling": settings.pooling,
    }
    if settings.program is not None:
        return await _start_program(settings.program, name, settings, config)
    child, message = await load(
        "chaku.engines.llamacpp.host", config, name=name, spins=settings.spin, timeout_s=settings.load_timeout_s,
        why_failed=partial(_load_failure, settings),
    )  # fmt: skip
    return LlamaServer(child, _transport(message["address"], name, key), key)


async def _start_program(path: Path, name: str, settings: Settings, config: dict[str, Any]) -> LlamaServer:
    """A llama-server of the user's, which listens before the model is loaded."""
    port = free_port()
    http = _transport(f"http://127.0.0.1:{port}", name, config["key"])
    try:
        child = await run_command(
            program.command(path, config, port), env=program.environment(config), name=name, spins=settings.spin,
            timeout_s=settings.load_timeout_s, ready=partial(answer_when_ready, http, "/health"),
            why_failed=partial(_load_failure, settings),
        )  # fmt: skip
    except BaseException:
        await http.close()
        raise
    return LlamaServer(child, http, config["key"])


def _transport(address: str, name: str, key: str) -> Transport:
    headers = {"Authorization": f"Bearer {key}"}
    # Its server closes the connection after most streams, so one used again is often found closed. How long it may be
    # silent is for the gateway's deadline to say: a long prompt takes as long as it takes, and a dead child hangs up.
    return Transport(address, who=name, headers=headers, retries=_RETRIES, keepalive=False, silence_s=None)


async def _load_failure(settings: Settings, child: Child, message: dict[str, Any]) -> ModelError | EngineError:
    if message.get("kind") == "missing":
        return ModelError(f"llama.cpp is not installed ({message['error']})", fix=install_command("local"))
    how = await child.wait()
    model = settings.model.name
    if "SIGILL" in how:
        return ModelError(
            f"the engine {how}: it was built for another CPU", fix="`chaku doctor` shows how to get another build"
        )
    needed = f"{settings.slots} slots of {settings.context:,} tokens"
    if "SIGKILL" in how:
        cause = f"the engine {how} while it loaded {model}, as Linux does when memory runs out"
        return NotEnoughMemory(cause, fix=f"lower --slots or --context (now {needed})")
    said = "\n".join([*child.tail, str(message.get("error"))])
    if any(sign in said for sign in _OUT_OF_MEMORY):
        return NotEnoughMemory(f"not enough memory for {model} with {needed}", fix="lower --slots or --context")
    telling = [line for line in child.tail if " E " in line] or list(child.tail)
    reason = telling[0].split(" E ", 1)[-1].strip() if telling else message.get("error", how)
    fix = "check the file with its sha256, or pull it again"
    return ModelError(f"llama.cpp can't load {model}: {reason}", fix=fix)


async def _prove_ready(name: str, server: LlamaServer) -> None:
    """Generate a token: an open port is not yet a model that answers."""
    request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
    status, body = await server.http.json("POST", "/v1/chat/completions", request)
    if status != 200:
        refused = refusal(status, body, model=name, param="messages")
        raise ModelError(f"{name} loads but does not generate: {refused}")
    if body["usage"]["completion_tokens"] < 1:
        raise EngineError(f"{name} generated nothing")
