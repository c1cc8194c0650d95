"""vLLM and SGLang: the parent's half. It starts the server under a guard, keeps it alive and speaks to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from chaku.chat.plain_text import BROKEN_APART, break_apart, spells_special
from chaku.engines.adapters import BaseEngine
from chaku.engines.base import Answer, Call, Capabilities, Route
from chaku.engines.chat_template import given_stops
from chaku.engines.model_child import answer_when_ready, run_command
from chaku.engines.openai_speaker import Dialect, OpenAiSpeaker
from chaku.engines.process import Child
from chaku.engines.servers.commands import BASE, LOOPBACK, Command, LaunchPlan
from chaku.engines.servers.conform import Conforming
from chaku.engines.supervisor import BackOff, NotEnoughMemory
from chaku.errors import ChakuError, EngineError, ModelError
from chaku.http_out import NEVER_AGAIN, Transport
from chaku.ports import free_port

_log = logging.getLogger(__name__)

_LOAD_TIMEOUT_S = 1800.0
_SLEEP_TIMEOUT_S = 300.0
_PATHS: Mapping[Route, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_FIRST_TOKEN = {"model": BASE, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
_CAUSE = re.compile(r"\b\w*(?:Error|Exception|error):? .+")
_ONLY_FOLLOWS = "Engine core initialization failed"
"""vLLM's last error is of the process that waited; the cause stands before it."""
_NO_MEMORY = ("out of memory", "No available memory", "KV cache", "Not enough memory", "Free memory on device")


@dataclass(frozen=True)
class ServerKind:
    """A kind of server: how it is started, and where it differs."""

    title: str
    command: Callable[[LaunchPlan, Path, int, str, Path | None], Command]
    adapter: str
    """What it calls an adapter, with {name} in it."""


@dataclass(frozen=True)
class Settings:
    """Settings of one base model at its server."""

    server: ServerKind
    python: Path
    plan: LaunchPlan
    capabilities: Capabilities
    """As far as they are known before the server has loaded the model."""
    at_server: Mapping[str, str]
    """Names that clients use to the server's names: the base and its adapters."""
    template: str | None = None
    """Jinja, in place of the folder's own."""
    stops: tuple[str, ...] = ()
    """Texts that end an answer of a chat."""
    specials: re.Pattern[str] | None = None
    """Spellings of special tokens, which the server would read in a message's text."""
    idle_unload_s: float | None = None
    back_off: BackOff = field(default_factory=BackOff)


@dataclass
class _Running:
    """One server that has generated a token."""

    child: Child
    http: Transport
    files: tempfile.TemporaryDirectory[str]

    async def close(self) -> None:
        await self.http.close()
        await self.child.stop()
        self.files.cleanup()


class ServerEngine(BaseEngine[_Running]):
    """One base model at a server of its own, and adapters on it."""

    def __init__(self, name: str, settings: Settings) -> None:
        """`name` is what clients call the base. Nothing is started yet."""
        super().__init__(
            name,
            idle_unload_s=settings.idle_unload_s,
            back_off=settings.back_off,
            capabilities=settings.capabilities,
        )
        self.settings = settings
        self._asleep: _Running | None = None

    @property
    def adapter_names(self) -> Iterable[str]:
        """Those of the settings, but for the one that is part of the model."""
        return [name for name in self.settings.at_server if name != self.name]

    @contextlib.asynccontextmanager
    async def ask_model(self, model: str, call: Call) -> AsyncIterator[Answer]:
        """Ask the base or an adapter. Leaving early closes the connection, and the server ends its work."""
        body, notes = self._prepared(call)
        dialect = Dialect(paths=_PATHS, conforming=Conforming)
        async with self._supervisor.use() as running:
            speaker = OpenAiSpeaker(model, running.http, model=self.settings.at_server[model], dialect=dialect)
            async with speaker.ask(replace(call, body=body)) as answer:
                answer.notes = notes
                yield answer

    def _prepared(self, call: Call) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The request in the server's words, and notes on what was changed."""
        settings, body = self.settings, dict(call.body)
        if body.get("temperature") == 0 and (body.get("n") or 1) > 1:
            body |= {"temperature": 1, "top_k": 1}  # the same tokens; vLLM refuses several greedy answers
        if call.route != "chat":
            return body, ()
        notes: tuple[str, ...] = ()
        if settings.specials and spells_special([body["messages"], body.get("tools")], settings.specials):
            apart = break_apart([body["messages"], body.get("tools")], settings.specials)
            body["messages"] = apart[0]
            if apart[1] is not None:
                body["tools"] = apart[1]
            notes = (BROKEN_APART,)
        if settings.stops:
            body["stop"] = [*given_stops(body), *settings.stops]
        if body.get("continue_final_message"):
            body["add_generation_prompt"] = False  # both at once is refused there
        if body.get("tool_choice") not in (None, "auto", "none"):
            body["tools"] = [_held_to_its_schema(tool) for tool in body["tools"]]
        return body, notes

    async def _unload(self, running: _Running) -> None:
        """Let an idle server sleep where it may, else end it."""
        if not self.settings.plan.sleeps:
            await super()._unload(running)
            return
        if await self._obeys(running, "/sleep?level=1"):
            self._asleep = running

    async def _wake(self) -> _Running | None:
        """The server that sleeps, awake; None where none does, or where it is of no use any more."""
        running, self._asleep = self._asleep, None
        return running if running is not None and await self._obeys(running, "/wake_up") else None

    async def _obeys(self, running: _Running, path: str) -> bool:
        """Whether a server did what it was told; it is ended otherwise."""
        try:
            async with asyncio.timeout(_SLEEP_TIMEOUT_S), running.http.request("POST", path) as response:
                if response.status == 200:
                    return True
                why = f"it answered {response.status}"
        except (ChakuError, TimeoutError) as error:
            why = str(error) or f"no answer within {_SLEEP_TIMEOUT_S:g} s"
        except BaseException:
            await running.close()
            raise
        _log.warning("the server is ended name=%s path=%s why=%r", self.name, path, why)
        await running.close()
        return False

    async def stop(self) -> None:
        """End the server, asleep or not."""
        await super().stop()
        running, self._asleep = self._asleep, None
        if running is not None:
            await running.close()

    async def _launch(self) -> _Running:
        if (woken := await self._wake()) is not None:
            return woken
        settings, key, port = self.settings, secrets.token_urlsafe(24), free_port()
        files = tempfile.TemporaryDirectory(prefix="chaku-server-")
        template = None
        if settings.template is not None:
            template = Path(files.name) / "template.jinja"
            template.write_text(settings.template)
        command = settings.server.command(settings.plan, settings.python, port, key, template)
        http = Transport(
            f"http://{LOOPBACK}:{port}",
            who=self.name,
            headers={"Authorization": f"Bearer {key}"},
            retries=NEVER_AGAIN,
            silence_s=None,
        )
        try:
            child = await run_command(
                command.argv, env=command.env, name=self.name, timeout_s=_LOAD_TIMEOUT_S,
                ready=partial(self._first_token, http), why_failed=self._failure,
            )  # fmt: skip
        except BaseException:
            await http.close()
            files.cleanup()
            raise
        return _Running(child, http, files)

    async def _first_token(self, http: Transport) -> None:
        """Return when a token has been generated."""
        status, known = await answer_when_ready(http, "/v1/models")
        if status != 200:
            raise EngineError(f"{self.name}: {self.settings.server.title} answered {status} to GET /v1/models")
        context = next((row.get("max_model_len") for row in known["data"] if row.get("id") == BASE), None)
        status, answer = await http.json("POST", "/v1/completions", _FIRST_TOKEN)
        if status != 200 or not (answer.get("usage") or {}).get("completion_tokens"):
            raise EngineError(f"{self.name}: {self.settings.server.title} loaded, but generated no token ({status})")
        if context is not None:
            self._capabilities = replace(self._capabilities, context_tokens=int(context))

    async def _failure(self, child: Child, _message: dict[str, Any]) -> ModelError | EngineError:
        """The error that the end of the server stands for."""
        how = await child.wait()
        title, folder = self.settings.server.title, self.settings.plan.folder
        causes = [found[0] for line in child.tail if (found := _CAUSE.search(line)) and _ONLY_FOLLOWS not in line]
        reason = (causes[-1][:300] if causes else child.last_words()) or how
        if "SIGILL" in how:
            return ModelError(f"{title} {how}: it was built for another CPU", fix="use another build, or llamacpp")
        fix = "lower --context or --slots, take more --gpus, or set --engine-arg gpu_memory"
        if "SIGKILL" in how or any(words in reason for words in _NO_MEMORY):
            return NotEnoughMemory(f"{title} has not enough memory for {folder}: {reason}", fix=fix)
        return ModelError(f"{title} can't load {folder}: {reason}", fix="chaku serve --log-level DEBUG shows its log")


def _held_to_its_schema(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool as a forced call needs it: unless it is strict, vLLM takes any JSON as its arguments, texts too."""
    function = tool["function"]
    parameters = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    return {**tool, "function": {**function, "parameters": parameters, "strict": function.get("strict") is not False}}
