"""An engine without a model: canned replies with delays and faults, for tests, demonstrations and client developers.

A script is a YAML file of replies; the first whose `match` (a regular expression) is found in the last user message
answers. Without a script it repeats the user's message.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from chaku.config import Frozen, load
from chaku.engines.base import Answer, Block, Call, Capabilities, Engine, State, Status
from chaku.errors import EngineError, EngineUnavailable, InvalidRequest
from chaku.protocol.answers import DONE, AnswerFrame, completion_usage, event
from chaku.protocol.openai import prompts_of


class Reply(Frozen):
    """One canned reply. `{prompt}` in the text stands for the last user message, `{images}` for what reached the engine
    of its images: type, bytes and sha256.
    """

    match: str = ""
    """Regular expression looked for in the last user message."""
    text: str
    reasoning: str = ""
    """Text of reasoning_content, sent before the answer's text."""
    delay_s: float = Field(0.0, ge=0)
    """Before the first token."""
    token_delay_s: float = Field(0.0, ge=0)
    """Before each further token."""
    fault: Literal["refuse", "break_off", "hang"] | None = None
    """refuse: fail before the first token; break_off: die after `fault_after_tokens`; hang: send no more then."""
    fault_after_tokens: int = Field(3, ge=0)

    @field_validator("match")
    @classmethod
    def _is_expression(cls, match: str) -> str:
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return match


class Script(Frozen):
    """The replies of a scripted engine, and the time it takes to load."""

    replies: tuple[Reply, ...] = (Reply(text="You said: {prompt}"),)
    load_s: float = Field(0.0, ge=0)
    slots: int = Field(32, ge=1)
    context: int = Field(8192, ge=16)
    vision: bool = False
    """Take images."""


class ScriptedEngine(Engine):
    """Speaks from a script; a token is a word with the white space before it."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self._state = State.LOADING
        self._ids = itertools.count(1)

    @classmethod
    def from_file(
        cls, name: str, file: Path | None, *, slots: int | None = None, context: int | None = None
    ) -> ScriptedEngine:
        """Read a script; `slots` and `context`, where given, win over it. Raises ConfigError."""
        return cls(name, load(Script, file, {"slots": slots, "context": context}).config)

    async def start(self) -> None:
        """Be ready after the script's loading time."""
        await asyncio.sleep(self.script.load_s)
        self._state = State.READY

    @property
    def capabilities(self) -> Capabilities:
        """Several answers, and nothing that would need a model."""
        return Capabilities(
            routes=frozenset({"chat", "completions"}),
            parameters=frozenset({"n", "continue_final_message"}),
            vision=self.script.vision,
            reasoning=any(reply.reasoning for reply in self.script.replies),
            context_tokens=self.script.context,
            slots=self.script.slots,
            why_not={"tools": "a script makes no tool calls"},
        )

    def status(self) -> Status:
        """Loading, ready or stopped."""
        return Status(self._state, detail="speaks from a script")

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """Speak the first matching reply."""
        if self._state is not State.READY:
            raise EngineUnavailable(f"{self.name} is {self._state}", retry_after_s=1)
        if call.route == "completions" and len(prompts_of(call.body["prompt"])) > 1:
            raise InvalidRequest("a script continues one prompt at a time", param="prompt")
        prompt = _last_user_text(call)
        reply = next((r for r in self.script.replies if re.search(r.match, prompt)), None)
        if reply is None:
            raise EngineError(f"{self.name} has no reply for this prompt")
        await asyncio.sleep(reply.delay_s)
        if reply.fault == "refuse":
            raise EngineError(f"{self.name} failed, as its script says")
        yield _ScriptedAnswer(self.name, call, reply, prompt, next(self._ids))

    async def stop(self) -> None:
        """Nothing to end."""
        self._state = State.STOPPED


class _ScriptedAnswer(Answer):
    def __init__(self, model: str, call: Call, reply: Reply, prompt: str, number: int) -> None:
        self._reply = reply
        self._call = call
        self._is_chat = call.route == "chat"
        text = reply.text.replace("{images}", _images_of(call)).replace("{prompt}", prompt)
        if call.body.get("continue_final_message"):
            text = text.removeprefix(_text_of(call.body["messages"][-1]["content"]))
        text, self._stop = _cut_at_stop(text, call.body.get("stop"))
        tokens = re.findall(r"\s*\S+|\s+$", text)
        limit = call.body.get("max_completion_tokens") or call.body.get("max_tokens") or len(tokens)
        self._tokens = tokens[:limit]
        self._finish = "stop" if len(tokens) <= limit else "length"
        self._num_answers = call.body.get("n", 1)
        self._frame = AnswerFrame(model, str(number), is_chat=self._is_chat)
        num_prompt = sum(len(_text_of(m.get("content")).split()) for m in call.body.get("messages", ())) or len(
            prompt.split()
        )
        self._usage = completion_usage(num_prompt, len(self._tokens) * self._num_answers)

    async def _spoken(self) -> AsyncIterator[str]:
        """The tokens in their time, or the script's fault."""
        for index, token in enumerate(self._tokens):
            if self._reply.fault and index >= self._reply.fault_after_tokens:
                if self._reply.fault == "hang":
                    await asyncio.Event().wait()
                raise EngineError("the engine died in mid-answer, as its script says")
            if index:
                await asyncio.sleep(self._reply.token_delay_s)
            yield token

    async def whole(self) -> dict[str, Any]:
        """All answers at once."""
        text = "".join([token async for token in self._spoken()])
        choices: list[dict[str, Any]] = []
        for index in range(self._num_answers):
            said: dict[str, Any] = {"text": text}
            if self._is_chat:
                message = {"role": "assistant", "content": text, "refusal": None}
                if self._reply.reasoning:
                    message["reasoning_content"] = self._reply.reasoning
                said = {"message": message}
            end = {"finish_reason": self._finish, "logprobs": None, **self._stop_reason()}
            choices.append({"index": index, **said, **end})
        return self._frame.whole(choices, self._usage)

    async def blocks(self) -> AsyncIterator[Block]:
        """One event per token."""
        if self._is_chat:
            opening: dict[str, Any] = {"role": "assistant", "content": ""}
            for index in range(self._num_answers):
                yield Block(self._event(index, opening))
                if self._reply.reasoning:
                    yield Block(self._event(index, {"reasoning_content": self._reply.reasoning}), num_tokens=1)
        async for token in self._spoken():
            for index in range(self._num_answers):
                yield Block(self._event(index, {"content": token}), num_tokens=1)
        for index in range(self._num_answers):
            yield Block(self._event(index, {}, self._finish, self._stop_reason()))
        yield Block(event(self._frame.usage_chunk(self._usage)), usage=self._usage, is_usage_only=True)
        yield Block(DONE, is_last=True)

    def _stop_reason(self) -> dict[str, str]:
        """The stop sequence that ended the text, in vLLM's field."""
        return {"stop_reason": self._stop} if self._stop and self._finish == "stop" else {}

    def _event(
        self, index: int, delta: dict[str, Any], finish: str | None = None, end: Mapping[str, str] | None = None
    ) -> bytes:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None, **(end or {})}
        if self._is_chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        return event(self._frame.chunk(choice))


def _last_user_text(call: Call) -> str:
    if call.route == "chat":
        users = [m for m in call.body["messages"] if m["role"] == "user"] or call.body["messages"]
        return _text_of(users[-1].get("content"))
    prompt = call.body["prompt"]
    return prompt if isinstance(prompt, str) else " ".join(str(part) for part in prompt)


def _images_of(call: Call) -> str:
    """The images of the last user message, as they arrived."""
    users = [message for message in call.body.get("messages", ()) if message["role"] == "user"]
    content = users[-1].get("content") if users else None
    seen = []
    for part in content if isinstance(content, list) else ():
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(";base64,")
            image = base64.b64decode(data)
            seen.append(
                f"{head.removeprefix('data:')} of {len(image)} bytes, sha256 {hashlib.sha256(image).hexdigest()}"
            )
    return "; ".join(seen) or "no image"


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""


def _cut_at_stop(text: str, stop: str | list[str] | None) -> tuple[str, str | None]:
    """The text up to the first stop sequence in it, and that sequence."""
    stops = [stop] if isinstance(stop, str) else stop or []
    at, sequence = min(((at, s) for s in stops if (at := text.find(s)) >= 0), default=(len(text), None))
    return text[:at], sequence
