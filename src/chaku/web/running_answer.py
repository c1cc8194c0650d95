"""One running answer: its text so far in numbered events, for any number of readers that come and go.

An answer that is continued keeps its text and grows from there; its numbers begin after all that were given before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from chaku.protocol.deltas import Delta
from chaku.store.message_record import MessageState, StoredMessage
from chaku.store.tree import Tree
from chaku.web.shapes import show_message
from chaku.web.streams import Numbered


@dataclass
class RunningAnswer:
    """`take` adds text, `end` ends it; `events` numbers the additions from 1."""

    tree: Tree
    message: StoredMessage
    """As it stands in the store; its text is what a continued answer goes on from."""
    deltas: list[tuple[str, str]] = field(default_factory=list)
    """Content and reasoning of each event."""
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    asking: asyncio.Task[None] = field(init=False)
    is_told: bool = True
    """The owner's tabs are told when it begins and ends, with its model's name."""
    first_token_s: float | None = None
    is_over: bool = False
    """`message` is how it ended, and nothing more will come."""
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    _first: int = field(init=False)
    """The number before the first event. Each event has a character at least, so earlier runs gave none above it."""
    _started: float = field(default_factory=time.perf_counter)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._first = len(self.message.content or "") + len(self.message.reasoning or "")

    def take(self, delta: Delta) -> None:
        """Add the next text of the model, and wake the readers."""
        if delta.usage is not None:
            usage, earlier = delta.usage, self.message.usage or {}
            num_prompt = earlier.get("prompt_tokens") or usage.prompt_tokens
            num_completion = (earlier.get("completion_tokens") or 0) + usage.completion_tokens
            self.usage = {
                "prompt_tokens": num_prompt,
                "completion_tokens": num_completion,
                "total_tokens": num_prompt + num_completion,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            }
        self.finish_reason = delta.finish_reason or self.finish_reason
        if delta.text or delta.reasoning:
            if self.first_token_s is None:
                self.first_token_s = time.perf_counter() - self._started
            self.deltas.append((delta.text, delta.reasoning))
            self._wake()

    def so_far(self) -> StoredMessage:
        """The message with all of the text so far."""
        if self.is_over:
            return self.message
        content = (self.message.content or "") + "".join(content for content, _ in self.deltas)
        reasoning = (self.message.reasoning or "") + "".join(reasoning for _, reasoning in self.deltas)
        return replace(self.message, content=content, reasoning=reasoning or None)

    def timings(self) -> dict[str, float | None]:
        """Seconds since it was asked, and the rate from the first token on; those of earlier runs added."""
        earlier = self.message.timings or {}
        duration_s = time.perf_counter() - self._started + (earlier.get("duration_s") or 0.0)
        first_token_s = earlier.get("first_token_s") if earlier else self.first_token_s
        num_tokens = self.usage["completion_tokens"] if self.usage else 0
        tokens_per_s = None
        if num_tokens > 1 and first_token_s is not None and duration_s > first_token_s:
            tokens_per_s = round((num_tokens - 1) / (duration_s - first_token_s), 2)
        first_token_s = None if first_token_s is None else round(first_token_s, 4)
        return {"first_token_s": first_token_s, "duration_s": round(duration_s, 4), "tokens_per_s": tokens_per_s}

    def end(self, message: StoredMessage) -> None:
        """Let the readers have the end."""
        self.message = message
        self.is_over = True
        self._wake()

    async def events(self, after: int | None) -> AsyncGenerator[Numbered]:
        """What comes after event `after`; a snapshot first where that is not known. Ends with the answer."""
        first = self._first
        if after is None or not first <= after <= first + len(self.deltas):
            after = first + len(self.deltas)
            yield after, {"type": "snapshot", "message": show_message(self.so_far())}
        while True:
            news = self._news
            if after < first + len(self.deltas):
                new, after = self.deltas[after - first :], first + len(self.deltas)
                said = {"content": "".join(c for c, _ in new), "reasoning": "".join(r for _, r in new)}
                yield after, {"type": "delta", **{kind: text for kind, text in said.items() if text}}
            elif self.is_over:
                yield after, last_event(self.message)
                return
            else:
                await news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def last_event(message: StoredMessage) -> dict[str, Any]:
    """The last event of a stream."""
    kind = "failed" if message.state is MessageState.FAILED else "done"
    return {"type": kind, "message": show_message(message)}
