"""Any OpenAI-compatible URL as an engine: a vLLM elsewhere, llama-server, a paid API, another chaku.

OpenAI's fields are passed on, and the upstream's refusals come back. Sampling extensions are passed on only if the
configuration says that the upstream knows them: many servers ignore unknown ones without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chaku import tasks
from chaku.config import environment
from chaku.engines.base import Answer, Call, Capabilities, Engine, Route, State, Status
from chaku.engines.openai_speaker import OpenAiSpeaker
from chaku.errors import ChakuError, ConfigError
from chaku.http_out import NotSent, Retries, Transport
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)

PROBE_EVERY_S = 5.0
_RETRIES = Retries(limit=2, budget_s=5.0, first_pause_s=0.02, unanswered=False, statuses=frozenset())
"""A request that the upstream may have worked on, and charges for, is not sent again."""
_ROUTES: frozenset[Route] = frozenset({"chat", "completions", "embeddings"})
OPENAI_PARAMETERS = frozenset(
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
                f"extensions of {name}: {unknown[0]!r} is not known", fix=f"known: {', '.join(sorted(EXTENSIONS))}"
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
            retries=_RETRIES,
            silence_s=config.deadline_s,
        )
        self._speaker = OpenAiSpeaker(name, self._transport, model=config.upstream_model)
        self._status = Status(State.LOADING, "asking for its models")
        self._probe: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask the upstream once for its models. If it does not answer, keep asking; the gateway starts all the same.

        Raises ConfigError if it answers but does not know the model. Costs no token.
        """
        await self._look()
        self._probe = tasks.repeat(self._keep_looking, f"{self.name}-probe")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            if self._status.state is not State.READY:
                with contextlib.suppress(ConfigError):  # it came back without the model: stays unavailable, and says so
                    await self._look()

    async def _look(self) -> None:
        try:
            known = await self._speaker.models()
        except ChakuError as error:
            self._be_unavailable(error.message)
            return
        # a server without a list must be told the model's name
        self._speaker.model = self._choose(known) if known is not None else self._speaker.model or self.name
        if self._status.state is State.RESTARTING:
            log.info("upstream ready model=%s", self.name)
        self._status = Status(State.READY, f"{self._speaker.model} at {self._config.source}")

    def _choose(self, known: list[str]) -> str:
        wanted = self._speaker.model or (known[0] if len(known) == 1 else self.name)
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

    @functools.cached_property
    def capabilities(self) -> Capabilities:
        """All of OpenAI's fields, and the extensions that the configuration lists."""
        why = "an upstream is sent only the extensions listed in its configuration (extensions: [...])"
        return Capabilities(
            routes=_ROUTES - (frozenset() if self._config.embeddings else {"embeddings"}),
            labels=True,
            parameters=OPENAI_PARAMETERS | frozenset(self._config.extensions),
            tools=True,
            vision=True,
            remote_images=True,
            reasoning=True,
            scores_prompts=True,
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
        try:
            async with self._speaker.ask(call) as answer:
                yield answer
        except NotSent as error:  # one call's own 503 or cut answer says nothing of the others
            self._be_unavailable(error.message)
            raise

    async def stop(self) -> None:
        """Close the connections."""
        await tasks.cancel(self._probe)
        await self._transport.close()
        self._status = Status(State.STOPPED)
