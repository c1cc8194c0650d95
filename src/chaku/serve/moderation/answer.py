"""Judges an answer on its way to the client. Of a stream, the last characters are held back until they are judged.

A flagged answer ends with `finish_reason: content_filter`, on every wire: this works on OpenAI's chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError
from chaku.protocol.answers import DONE, choices_of, chunks_of, event
from chaku.protocol.deltas import THOUGHTS, words_in
from chaku.serve.failover.dispatch import Sink
from chaku.serve.moderation.moderator import PASS, Decision, Moderator, header_of
from chaku.serve.relay import Relay

_ALL = "all"
"""The place of all texts of an answer in a row: a passage may begin in the thoughts and end in the text."""
_FIELDS = frozenset({"role", "content", "refusal", "tool_calls", *THOUGHTS})


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
        """What may still matter of each answer's places, and of all in a row: twice the window at most."""
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
        for choice, holder, name in _choices_in(answer):
            decision = await self._moderator.decide("".join(_texts_of(holder, name).values()), "output")
            if decision.action in ("hide", "refuse"):
                start = max(0, decision.start - sum(map(len, _thoughts_of(holder).values())))
                holder[name] = words_in(holder.get(name))[:start] if decision.action == "hide" else ""
                for other in {*THOUGHTS, "tool_calls", *_unknown_in(holder, name)}:
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
            for choice, holder, name in _choices_in(chunk):
                index, texts = choice.get("index") or 0, _texts_of(holder, name)
                said = _in_a_row(texts)
                for place, text in {**texts, _ALL: said}.items():
                    self._texts[index, place] = self._texts.get((index, place), "") + text
                num_new += len(said)
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


def _choices_in(answer: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Each choice of an answer or a chunk, with the object that holds its text and the name of its field.

    Raises EngineError for another shape: texts in unknown places can't be judged, and must not pass.
    """
    for choice in choices_of(answer):
        part = next((part for part in ("message", "delta") if part in choice), None)
        yield (choice, choice, "text") if part is None else (choice, choice[part] or {}, "content")


def _texts_of(holder: dict[str, Any], name: str) -> dict[str, str]:
    """Everything in a message or a delta that a reader sees, by its place: thoughts, text, refusal, arguments of calls.

    In a stream, the texts of each place are judged by themselves too: pieces of two places may come in turns, and tear
    each other apart.
    """
    calls = holder.get("tool_calls") or ()
    arguments = "".join(map(_arguments_of, calls)) if isinstance(calls, list | tuple) else words_in(calls)
    unknown = words_in([holder[field] for field in _unknown_in(holder, name)])
    texts = {name: words_in(holder.get(name)), "refusal": words_in(holder.get("refusal")), "tool_calls": arguments}
    return {**_thoughts_of(holder), **texts, "unknown": unknown}


def _thoughts_of(holder: dict[str, Any]) -> dict[str, str]:
    return {place: words_in(holder.get(place)) for place in THOUGHTS}


def _arguments_of(call: Any) -> str:
    """The arguments of a call; every text of a call that has another shape."""
    function = call.get("function") if isinstance(call, dict) else None
    return words_in(function.get("arguments") if isinstance(function, dict) else call)


def _unknown_in(holder: dict[str, Any], name: str) -> list[str]:
    """Fields of a message that OpenAI's API does not have, which a client may show all the same."""
    return [] if name == "text" else [field for field in holder if field not in _FIELDS]


def _in_a_row(texts: dict[str, str]) -> str:
    """All texts as a reader sees them, one after the other. The same thought under several names is one."""
    thought = max((texts[place] for place in THOUGHTS), key=len)
    return thought + "".join(text for place, text in texts.items() if place not in THOUGHTS)


def decision_header(decision: Decision) -> list[tuple[bytes, bytes]]:
    """The header about a prompt that was let in with a warning, or with a part hidden."""
    return [header_of("input", decision)] if decision.action != "off" else []
