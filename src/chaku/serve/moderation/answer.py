"""Judges an answer on its way to the client. Of a stream, the last characters are held back until they are judged.

A flagged answer ends with `finish_reason: content_filter`, on every wire: this works on OpenAI's chunks.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError
from chaku.protocol.answers import DONE, chunks_of, event
from chaku.protocol.deltas import THOUGHTS
from chaku.serve.failover.dispatch import Sink
from chaku.serve.moderation.moderator import PASS, Decision, Moderator, header_of
from chaku.serve.relay import Relay


class Filtered(ChakuError):
    """The answer was ended by moderation; the client has its end. Not an error to be shown."""


class _Held(NamedTuple):
    """A block that waits for its judgement."""

    block: Block
    num_characters: int
    finished: set[int]
    """The choices that it ends."""


class JudgedAnswer(Sink):
    """Stands between replicas and the relay of one request."""

    def __init__(self, moderator: Moderator, relay: Relay, route: Route, num_answers: int) -> None:
        self._moderator = moderator
        self._relay = relay
        self._route = route
        self._held: deque[_Held] = deque()
        self._notes: tuple[str, ...] = ()
        self._num_held = 0
        self._num_answers = max(1, num_answers)
        self._window = moderator.policy.window * self._num_answers
        self._unjudged = 0
        self._texts: dict[tuple[int, str], str] = {}
        """What may still matter of each answer's thoughts, text and calls: twice the window at most."""
        self._frame: dict[str, Any] = {}
        self._finished: set[int] = set()
        """The choices whose finish reason the client has."""
        self._warned = PASS

    async def block(self, block: Block, notes: tuple[str, ...]) -> None:
        """Hold a block back, and send those that are judged. Raises Filtered."""
        self._notes = notes
        held = self._read(block)
        self._held.append(held)
        self._num_held += held.num_characters
        self._unjudged += held.num_characters
        if block.is_last:
            await self.flush()
            return
        if self._unjudged >= self._window // 2:
            await self._judge()
        while self._held and self._num_held - self._held[0].num_characters >= self._window:
            await self._send_first()

    async def whole(self, answer: dict[str, Any], notes: tuple[str, ...]) -> None:
        """Judge a whole answer, and leave out what is not let through."""
        strongest = PASS
        for choice in answer.get("choices", ()):
            holder, name = (choice["message"], "content") if "message" in choice else (choice, "text")
            decision = await self._moderator.decide("".join(_texts_of(holder, name).values()), "output")
            if decision.action in ("hide", "refuse"):
                text = holder.get(name) or ""
                start = max(0, decision.start - sum(map(len, _thoughts_of(holder).values())))
                holder[name] = text[:start] if decision.action == "hide" else ""
                for other in (*THOUGHTS, "tool_calls"):
                    holder.pop(other, None)
                if holder.get("refusal"):
                    holder["refusal"] = None
                choice["finish_reason"] = "content_filter"
                if choice.get("logprobs") is not None:
                    choice["logprobs"] = None
            if decision.action != "off":
                strongest = decision
        if strongest is not PASS:
            self._relay.add_headers([header_of("output", strongest)])
        await self._relay.whole(answer, notes)

    async def flush(self) -> None:
        """Judge and send everything that is held. Raises Filtered."""
        if self._unjudged:
            await self._judge()
        while self._held:
            await self._send_first()

    async def _send_first(self) -> None:
        held = self._held.popleft()
        self._num_held -= held.num_characters
        self._finished |= held.finished
        await self._relay.block(held.block, self._notes)

    def _read(self, block: Block) -> _Held:
        """Take the texts of a block."""
        num_new = 0
        finished: set[int] = set()
        for chunk in chunks_of(block.data):
            self._frame = self._frame or {name: chunk[name] for name in chunk if name not in ("choices", "usage")}
            for choice in chunk.get("choices", ()):
                holder, name = (choice["delta"], "content") if "delta" in choice else (choice, "text")
                index, texts = choice.get("index", 0), _texts_of(holder or {}, name)
                for place, text in texts.items():
                    self._texts[index, place] = self._texts.get((index, place), "") + text
                num_new += _num_characters(texts)
                if choice.get("finish_reason") is not None:
                    finished.add(index)
        return _Held(block, num_new, finished)

    async def _judge(self) -> None:
        self._unjudged = 0
        for place, text in self._texts.items():
            decision = await self._moderator.decide(text, "output", must_count=False)
            if decision.action in ("hide", "refuse"):
                self._moderator.count("output", decision)
                await self._end()
            elif decision.action == "warn" and decision.categories != self._warned.categories:
                self._warned = decision
                self._moderator.count("output", decision)
            self._texts[place] = text[-2 * self._window :]

    async def _end(self) -> None:
        """End the stream without what is held. Raises Filtered, so that the engine is stopped.

        A choice that has not begun ends too. One whose finish reason was sent keeps it, as all of its text was sent.
        """
        num_tokens = sum(held.block.num_tokens for held in self._held)
        self._held.clear()
        opening: dict[str, Any] = {"delta": {}} if self._route == "chat" else {"text": ""}
        for index in sorted({*range(self._num_answers)} - self._finished):
            choice = {"index": index, **opening, "finish_reason": "content_filter", "logprobs": None}
            await self._relay.block(
                Block(event({**self._frame, "choices": [choice]}), num_tokens=num_tokens), self._notes
            )
            num_tokens = 0
        await self._relay.block(Block(DONE, is_last=True), self._notes)
        raise Filtered("the answer was ended by moderation")


def _texts_of(holder: dict[str, Any], name: str) -> dict[str, str]:
    """Everything in a message or a delta that a reader sees, by its place: thoughts, text, refusal, arguments of calls.

    Texts of two places are never joined in a stream: their pieces come in turns, and would tear each other apart.
    """
    calls = holder.get("tool_calls") or ()
    arguments = "".join((call.get("function") or {}).get("arguments") or "" for call in calls)
    text, refusal = holder.get(name) or "", holder.get("refusal") or ""
    return _thoughts_of(holder) | {name: text, "refusal": refusal, "tool_calls": arguments}


def _thoughts_of(holder: dict[str, Any]) -> dict[str, str]:
    return {place: _thought(holder.get(place)) for place in THOUGHTS}


def _thought(value: Any) -> str:
    """A thought that is a text, or a list of parts."""
    parts = [value] if isinstance(value, str) else [part.get("text") or part.get("summary") for part in value or ()]
    return "".join(part for part in parts if isinstance(part, str))


def _num_characters(texts: dict[str, str]) -> int:
    """New characters, where the same thought under several names is one."""
    thought = max(len(texts[place]) for place in THOUGHTS)
    return thought + sum(len(text) for place, text in texts.items() if place not in THOUGHTS)


def decision_header(decision: Decision) -> list[tuple[bytes, bytes]]:
    """The header about a prompt that was let in with a warning, or with a part hidden."""
    return [header_of("input", decision)] if decision.action != "off" else []
