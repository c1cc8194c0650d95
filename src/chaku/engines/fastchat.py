"""A FastChat model worker as an engine: its NUL-framed, cumulative answers become OpenAI's chunks.

The worker reads text and cuts a prompt that is too long in silence, so prompts are written and counted before they go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from pydantic import ValidationError

from chaku import tasks
from chaku.engines.base import PROMPT_FIELD, Answer, Call, Capabilities, Engine, Route, State, Status
from chaku.engines.chat_template import given_stops
from chaku.engines.fastchat_answer import Asked, FastChatAnswer
from chaku.engines.fastchat_text import Prompts
from chaku.errors import (
    ChakuError,
    ContextOverflow,
    EngineError,
    InvalidRequest,
)
from chaku.http_out import NEVER_AGAIN, BrokenOff, NotSent, Transport
from chaku.protocol.fastchat import ConversationTemplate, WorkerStatus
from chaku.protocol.openai import prompts_of

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
CONNECT_S = 3.0
_SAMPLING = ("temperature", "top_p", "top_k")
_COMPLETION_TOKENS = 16
"""OpenAI's default for plain completions."""
_WHY_NOT = {
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), "FastChat's model_worker ignores it"),
    "repetition_penalty": "FastChat's vllm_worker ignores it",
    "tools": "FastChat's protocol knows no tools",
    "vision": "images are not sent to FastChat's workers",
    "embeddings": "embeddings are not asked of FastChat's workers",
}


class FastChatEngine(Engine):
    """One model at one FastChat worker. A restarted worker is another engine."""

    def __init__(
        self,
        name: str,
        url: str,
        resolver: aiohttp.abc.AbstractResolver | None = None,
        *,
        model: str | None = None,
        silence_s: float | None = 600.0,
    ) -> None:
        """`name` is what clients call the model, `model` what the worker calls it; None: its only one, or `name`.

        `resolver` bounds the addresses that the worker's host name may lead to.
        """
        self.name = name
        self.url = url
        self._model = model
        self._transport = Transport(
            url,
            who=f"FastChat worker {url}",
            retries=NEVER_AGAIN,
            connect_s=CONNECT_S,
            silence_s=silence_s,
            resolver=resolver,
        )
        self._status = Status(State.LOADING, f"waits for the FastChat worker at {url}", retry_after_s=LOOK_EVERY_S)
        self._context_tokens = 0
        self._prompts: Prompts | None = None
        self._probe: asyncio.Task[None] | None = None
        self._bounds: set[asyncio.Timeout] = set()

    async def start(self) -> None:
        """Call the worker back, and keep trying while it does not answer: FastChat registers before it listens."""
        await self._look()
        self._probe = tasks.repeat(self._keep_looking, f"{self.name}-fastchat-probe")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S if self._prompts else min(LOOK_EVERY_S, 1.0))
            if self._status.state is not State.READY:
                await self._look()

    async def _look(self) -> None:
        try:
            status = WorkerStatus.model_validate(await self._question("/worker_get_status"))
            names = status.model_names
            self._model = self._model or (names[0] if len(names) == 1 else self.name)
            if self._model not in names:
                raise EngineError(f"it serves {', '.join(names)}, not {self._model}")
            details = await self._question("/model_details")
            told = await self._question("/worker_get_conv_template")
            self._prompts = Prompts(ConversationTemplate.model_validate(told["conv"]))
            self._context_tokens = int(details["context_length"])
        except (ValidationError, KeyError, TypeError, ValueError):
            self._be_unavailable("it answers as no FastChat worker does")
            return
        except ChakuError as error:
            self._be_unavailable(error.message)
            return
        if not self._prompts.is_known:
            log.warning("no chat template name=%s template=%r: only completions", self.name, self._prompts.name)
        self._status = Status(State.READY, f"FastChat worker {self.url}")

    def _be_unavailable(self, why: str) -> None:
        state = State.RESTARTING if self._prompts else State.LOADING
        if self._status.detail != why:
            log.warning("FastChat worker unavailable model=%s why=%r", self.name, why)
        self._status = Status(state, why, retry_after_s=LOOK_EVERY_S)

    async def _question(self, path: str, **fields: Any) -> Any:
        async with asyncio.timeout(2 * CONNECT_S):
            status, answer = await self._transport.json("POST", path, {"model": self._model or self.name, **fields})
        if status != 200 or not isinstance(answer, dict):
            raise EngineError(f"FastChat worker {self.url}: {path} answered {status}")
        return answer

    @property
    def capabilities(self) -> Capabilities:
        """What every kind of FastChat worker honours."""
        knows_template = self._prompts is not None and self._prompts.is_known
        routes: set[Route] = {"completions", "chat"} if knows_template else {"completions"}
        name = self._prompts.name if self._prompts else "?"
        return Capabilities(
            routes=frozenset(routes),
            parameters=frozenset({"top_k"}),
            context_tokens=self._context_tokens or None,
            why_not={**_WHY_NOT, "chat": f"chaku has no template {name!r}, which its FastChat worker names"},
        )

    def status(self) -> Status:
        """As of the last look or the last call."""
        return self._status

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """Write the prompt, count it, and send it.

        Raises ContextOverflow, InvalidRequest, EngineUnavailable, EngineError; BrokenOff once the engine is stopped.
        """
        try:
            async with asyncio.timeout(None) as bound:
                self._bounds.add(bound)
                asked = await self._asked(call)
                async with self._transport.request("POST", "/worker_generate_stream", asked.params) as response:
                    if response.status != 200:
                        raise EngineError(f"FastChat worker {self.url} answered {response.status}")
                    yield FastChatAnswer(self.name, call, asked, response)
        except NotSent as error:
            self._be_unavailable(error.message)
            raise
        except TimeoutError:
            if not bound.expired():
                raise
            raise BrokenOff(f"FastChat worker {self.url} is gone") from None
        finally:
            self._bounds.discard(bound)

    async def _asked(self, call: Call) -> Asked:
        assert self._prompts is not None, "a worker without a template is not ready"
        body, notes = call.body, []
        stops = given_stops(body)
        params: dict[str, Any] = {"model": self._model, "echo": False, "stop_token_ids": None}
        if call.route == "chat":
            prompt, was_broken = self._prompts.write(body["messages"])
            stops += self._prompts.stops
            params["stop_token_ids"] = self._prompts.stop_token_ids or None
            if was_broken:
                notes.append("special tokens in messages were broken apart")
        else:
            prompts = prompts_of(body["prompt"])
            if len(prompts) != 1 or not isinstance(prompts[0], str):
                raise InvalidRequest(f"{self.name} continues one text at a time", param="prompt")
            prompt = prompts[0]
        num_prompt = int((await self._question("/count_token", prompt=prompt))["count"])
        room = self._context_tokens - num_prompt - 1  # FastChat keeps one token, and cuts the prompt otherwise
        given = body.get("max_completion_tokens") or body.get("max_tokens")
        wanted = given or (room if call.route == "chat" else _COMPLETION_TOKENS)
        if room < 1 or wanted > room:
            raise ContextOverflow(
                f"prompt is {num_prompt:,} tokens and {wanted if room > 0 else 1:,} are to be written, "
                f"{self.name} takes {self._context_tokens - 1:,}",
                fix="shorten it, or lower max_tokens",
                param=PROMPT_FIELD[call.route],
            )
        params |= {"prompt": prompt, "max_new_tokens": wanted, "stop": stops or None}
        params |= {"temperature": 1.0, "top_p": 1.0} | {key: body[key] for key in _SAMPLING if key in body}
        return Asked(params, tuple(stops), num_prompt, tuple(notes))

    async def stop(self) -> None:
        """Close the connections. Answers under way break off at once."""
        await tasks.cancel(self._probe)
        now = asyncio.get_running_loop().time()
        for bound in tuple(self._bounds):
            bound.reschedule(now)
        await self._transport.close()
        self._status = Status(State.STOPPED, f"FastChat worker {self.url} is gone")
