"""transformers as an engine: the parent's half. It starts the child, keeps it alive and speaks to it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaku.engines.adapters import BaseEngine
from chaku.engines.base import Answer, Call, Capabilities, Route
from chaku.engines.model_child import load
from chaku.engines.openai_speaker import OpenAiSpeaker
from chaku.engines.process import Child
from chaku.engines.supervisor import BackOff, NotEnoughMemory
from chaku.errors import EngineError, ModelError
from chaku.http_out import Transport
from chaku.packages import install_command

PARAMETERS = frozenset({
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "top_logprobs",
    "presence_penalty", "frequency_penalty", "logit_bias", "echo",
    "top_k", "min_p", "repetition_penalty", "ignore_eos", "continue_final_message",
})  # fmt: skip
"""Request fields that are honoured here."""
_NO_TOOLS = "the transformers engine reads no tool calls: use llamacpp"
WHY_NOT = {
    "suffix": "transformers does not fill in the middle",
    "best_of": "transformers does not rank answers: use n",
    "response_format": "the transformers engine enforces no grammar: use llamacpp",
    "reasoning_effort": "the transformers engine does not pass it to the chat template",
    "embeddings": "the transformers engine makes no embeddings: use llamacpp",
    **dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls"), _NO_TOOLS),
}
_LOAD_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Settings:
    """Settings of one base model."""

    folder: Path
    """A Hugging Face folder."""
    main_adapter: Path | None = None
    """A peft adapter that is part of the model."""
    adapters: dict[str, Path] = field(default_factory=dict)
    """Further models: peft adapters on the same base, by the name that clients use."""
    template: str | None = None
    """Jinja. None: no chats."""
    stops: tuple[str, ...] = ()
    """Texts that end an answer of a chat."""
    context: int | None = None
    slots: int = 32
    threads: int | None = None
    spin: bool = False
    dtype: str = "auto"
    bits: int | None = None
    batch: int = 256
    batching: bool = True
    idle_unload_s: float | None = None
    back_off: BackOff = field(default_factory=BackOff)


@dataclass
class _Server:
    """One listening child."""

    child: Child
    http: Transport

    async def close(self) -> None:
        await self.http.close()
        await self.child.stop()


class TransformersEngine(BaseEngine[_Server]):
    """One base model, and adapters on it."""

    def __init__(self, name: str, settings: Settings) -> None:
        """`name` is what clients call the base. Nothing is started or read yet."""
        super().__init__(name, idle_unload_s=settings.idle_unload_s, back_off=settings.back_off)
        self.settings = settings

    @contextlib.asynccontextmanager
    async def ask_model(self, model: str, call: Call) -> AsyncIterator[Answer]:
        """Ask the base or an adapter. Leaving early ends the work with the token that is being generated."""
        async with self._supervisor.use() as server, OpenAiSpeaker(model, server.http).ask(call) as answer:
            yield answer

    @property
    def adapter_names(self) -> Iterable[str]:
        """Those of the settings."""
        return self.settings.adapters

    async def _launch(self) -> _Server:
        settings, key = self.settings, secrets.token_urlsafe(24)
        config: dict[str, Any] = {
            "name": self.name,
            "key": key,
            "folder": str(settings.folder),
            "main_adapter": str(settings.main_adapter) if settings.main_adapter else None,
            "adapters": {name: str(path) for name, path in settings.adapters.items()},
            **{name: getattr(settings, name) for name in
               ("template", "stops", "context", "slots", "threads", "dtype", "bits", "batch", "batching")},
        }  # fmt: skip
        child, message = await load(
            "chaku.engines.transformers.host", config, name=self.name, spins=settings.spin, timeout_s=_LOAD_TIMEOUT_S,
            why_failed=self._load_failure,
        )  # fmt: skip
        self._capabilities = self._learned(message)
        headers = {"Authorization": f"Bearer {key}"}
        return _Server(child, Transport(message["address"], who=self.name, headers=headers, silence_s=None))

    def _learned(self, message: dict[str, Any]) -> Capabilities:
        why_not = dict(WHY_NOT)
        if self.settings.template is None:
            why_not["chat"] = "its folder has no chat template: choose one with --template"
        routes: tuple[Route, ...] = ("chat", "completions") if self.settings.template is not None else ("completions",)
        return Capabilities(
            routes=frozenset(routes),
            parameters=PARAMETERS,
            scores_prompts=True,
            context_tokens=message["context"],
            slots=message["slots"],
            num_parameters=message["num_parameters"],
            why_not=why_not,
        )

    async def _load_failure(self, child: Child, message: dict[str, Any]) -> ModelError | EngineError:
        folder = self.settings.folder
        if message.get("kind") == "missing":
            return ModelError(f"{self.name} needs a package: {message['error']}", fix=install_command("transformers"))
        how = await child.wait()
        if "SIGKILL" in how:
            cause = f"the engine {how} while it loaded {folder}, as Linux does when memory runs out"
            return NotEnoughMemory(cause, fix="lower --slots or --context, or try --engine-arg bits=4")
        reason = message.get("error") or child.last_words() or how
        if "out of memory" in reason:
            return NotEnoughMemory(f"not enough memory for {folder}: {reason}", fix="try --engine-arg bits=4")
        return ModelError(f"transformers can't load {folder}: {reason}", fix="check the folder")
