"""Any OpenAI-compatible URL as an engine: a vLLM elsewhere, llama-server, a paid API, another chaku.

What the upstream honours is its own business: OpenAI's fields are passed on and its refusals come back. Sampling
extensions are passed on only where the configuration says that it knows them, since many servers drop them in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from chaku.config import ModelConfig, environment
from chaku.engines.base import Answer, Block, Call, Capabilities, Engine, Route, State, Status
from chaku.engines.blocks import blocks_of_events
from chaku.engines.http import Transport, Unreachable, read_json, sse_blocks
from chaku.errors import ChakuError, ConfigError, EngineError
from chaku.protocol.answers import event
from chaku.protocol.errors import error_from, error_in_stream, retry_after_s

log = logging.getLogger(__name__)

PROBE_EVERY_S = 5.0
_PATHS: dict[Route, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
_OPENAI_PARAMETERS = frozenset(
    {
        *("n", "seed", "logprobs", "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty"),
        *("response_format", "parallel_tool_calls", "reasoning_effort", "echo", "suffix", "best_of", "dimensions"),
    }
)
EXTENSIONS = frozenset({"top_k", "min_p", "repetition_penalty", "ignore_eos"})


class UpstreamEngine(Engine):
    """Passes calls on to `config.source` under the model name that is known there."""

    def __init__(self, name: str, config: ModelConfig) -> None:
        self.name = name
        unknown = sorted(set(config.extensions) - EXTENSIONS)
        if unknown:
            raise ConfigError(
                f"extensions of {name}: {unknown[0]!r} is none", fix=f"known: {', '.join(sorted(EXTENSIONS))}"
            )
        headers = {}
        if config.api_key_env is not None:
            key = environment(config.api_key_env)
            if key is None:
                raise ConfigError(
                    f"{name} takes its key from {config.api_key_env}, which is not set",
                    fix=f"export {config.api_key_env}=..., or name another variable with --upstream-key-env",
                )
            headers["Authorization"] = f"Bearer {key}"
        self._config = config
        self._transport = Transport(
            config.source,
            who=f"{name} at {config.source}",
            headers=headers,
            sends_once=True,
            idle_timeout_s=config.deadline_s,
        )
        self._model = config.upstream_model
        self._status = Status(State.LOADING, "asking for its models")
        self._probe: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once whether it answers; where it does not, keep looking without failing the gateway.

        Raises ConfigError where it answers but does not know the model. Costs no token: a paid API is not probed by
        generating.
        """
        await self._look()
        self._probe = asyncio.create_task(self._keep_looking())

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            if self._status.state is not State.READY:
                with contextlib.suppress(ConfigError):  # it came back without the model: stays unavailable, and says so
                    await self._look()

    async def _look(self) -> None:
        try:
            status, answer = await self._transport.json("GET", "/models")
        except ChakuError as error:
            self._be_unavailable(error.message)
            return
        if status in (404, 405, 501):  # some servers have no /models; they must be told the model's name
            self._model = self._model or self.name
        elif status != 200:
            self._be_unavailable(f"GET /models answered {status}: {_message(status, answer)}")
            return
        else:
            try:
                known = [str(row["id"]) for row in answer["data"]]
            except (TypeError, KeyError):
                self._be_unavailable("GET /models answered something that is no list of models")
                return
            self._model = self._choose(known)
        if self._status.state is State.RESTARTING:
            log.info("upstream ready model=%s", self.name)
        self._status = Status(State.READY, f"{self._model} at {self._config.source}")

    def _choose(self, known: list[str]) -> str:
        wanted = self._model or (known[0] if len(known) == 1 else self.name)
        if wanted not in known:
            self._be_unavailable(f"it knows no model {wanted!r}")
            raise ConfigError(
                f"{self._config.source} knows no model {wanted!r}",
                fix=f"set upstream_model (--upstream-model) to one of: {', '.join(known[:20])}",
            )
        return wanted

    def _be_unavailable(self, why: str) -> None:
        if self._status.state is not State.RESTARTING or self._status.detail != why:
            log.warning("upstream unavailable model=%s why=%r", self.name, why)
        self._status = Status(State.RESTARTING, why, retry_after_s=PROBE_EVERY_S)

    @property
    def capabilities(self) -> Capabilities:
        """All of OpenAI's fields, and the extensions that the configuration vouches for."""
        why = "an upstream is sent only the extensions listed in its configuration (extensions: [...])"
        return Capabilities(
            routes=frozenset(_PATHS) - (frozenset() if self._config.embeddings else {"embeddings"}),
            labels=True,
            parameters=_OPENAI_PARAMETERS | frozenset(self._config.extensions),
            tools=True,
            vision=True,
            remote_images=True,
            reasoning=True,
            slots=self._config.slots,
            embedding_slots=self._config.slots,
            context_tokens=self._config.context,
            why_not={**dict.fromkeys(EXTENSIONS, why), "embeddings": "its configuration says embeddings: false"},
        )

    def status(self) -> Status:
        """As of the last look or the last call."""
        return self._status

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """Send it on. The upstream's refusal of a request is the caller's; trouble with our key is not."""
        body = {**call.body, "model": self._model}
        if call.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        try:
            async with self._transport.request("POST", _PATHS[call.route], body) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                yield _UpstreamAnswer(response, self.name, renames=self._model != self.name)
        except Unreachable as error:  # one call's own 503 or cut answer says nothing of the others
            self._be_unavailable(error.message)
            raise

    async def _refusal(self, response: aiohttp.ClientResponse) -> ChakuError:
        if response.status < 400:
            what = "redirects, which is not followed" if response.status >= 300 else f"answered {response.status}"
            return EngineError(f"{self.name}: the upstream {what}", fix="give its final URL")
        answer = await read_json(response, who=self.name)
        if response.status in (401, 403):
            return EngineError(
                f"{self.name}: the upstream refuses chaku's key: {_message(response.status, answer)}",
                fix="check api_key_env of this model",
            )
        if response.status == 404:
            return EngineError(f"{self.name}: {_message(404, answer)}", fix="check upstream_model of this model")
        error = error_from(response.status, answer)
        error.retry_after_s = retry_after_s(response.headers.get("Retry-After"))
        return error

    async def stop(self) -> None:
        """Close the connections."""
        if self._probe is not None:
            self._probe.cancel()
        await self._transport.close()
        self._status = Status(State.STOPPED)


class _UpstreamAnswer(Answer):
    def __init__(self, response: aiohttp.ClientResponse, name: str, *, renames: bool) -> None:
        self._response = response
        self._name = name
        self._renames = renames

    async def whole(self) -> dict[str, Any]:
        """The upstream's object under our model name."""
        answer = await read_json(self._response, who=self._name)
        if not isinstance(answer, dict):
            raise EngineError(f"{self._name} answered something that is not an object")
        return {**answer, "model": self._name}

    async def blocks(self) -> AsyncIterator[Block]:
        """The upstream's bytes, re-written only where its name for the model is another. Its error event is raised."""
        async for block in sse_blocks(self._response, who=self._name):
            error: ChakuError | None = None
            if b'"error"' in block:
                block, error = _split_at_error(block)
            if block:
                for renamed in blocks_of_events(_rename(block, self._name) if self._renames else block):
                    yield renamed
            if error is not None:
                raise error


def _rename(block: bytes, name: str) -> bytes:
    events = []
    for text in block.split(b"\n\n"):
        if text.startswith(b"data: {"):
            chunk = orjson.loads(text[6:])
            chunk["model"] = name
            events.append(event(chunk))
        elif text:
            events.append(text + b"\n\n")
    return b"".join(events)


def _split_at_error(block: bytes) -> tuple[bytes, ChakuError | None]:
    """What comes before an error event, and the error."""
    at = 0
    for text in block.split(b"\n\n"):
        if text.startswith((b'data: {"error"', b'error: {"')):
            return block[:at], error_in_stream(orjson.loads(text.split(b": ", 1)[1]))
        at += len(text) + 2
    return block, None


def _message(status: int, answer: Any) -> str:
    return error_from(status, answer).message
