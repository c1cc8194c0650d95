"""Server-sent events: how one stream is kept open, and how tabs hear of what others did."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.requests import Request

from chaku.complaints import MAX_EXACT_INT
from chaku.errors import ChakuError
from chaku.store.conversations import StoredConversation
from chaku.store.message_record import StoredMessage
from chaku.web.shapes import dump, show_chat, show_message_without_text

log = logging.getLogger(__name__)

Event = dict[str, Any]
Numbered = tuple[int | None, Event]
"""An event and its id, where a reader can come back to it."""
ELSEWHERE = MAX_EXACT_INT
"""The id of what one gateway reads from the store while another writes it. No stream has so many events, so the writer
takes the id as unknown: a reader that comes there gets a snapshot, not deltas on top of a text it has."""

KEEP_ALIVE_S = 15.0
MAX_WAITING = 1000
"""Events that wait for a slow tab, or are kept for one that comes back. With one more, it has to fetch everything."""

WATCH_S = 0.5

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no"}


async def written(
    events: AsyncGenerator[Numbered], closing: asyncio.Event, is_welcome: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes]:
    """Events as bytes, with a comment when it is quiet; ends early when the gateway closes or the visitor has to go."""
    closed: asyncio.Future[Any] = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[Any] | None = None
    checked = time.monotonic()
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            await asyncio.wait({following, closed}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                return
            if time.monotonic() - checked >= KEEP_ALIVE_S:
                if not await is_welcome():
                    return
                checked = time.monotonic()
            if not following.done():
                yield b": still here\n\n"
                continue
            try:
                number, event = following.result()
            except StopAsyncIteration:
                return
            except ChakuError as error:  # what is followed is gone; the headers are out, so the end has to say it
                log.info("stream ended: %s", error)
                return
            following = None
            head = b"" if number is None else b"id: %d\n" % number
            yield head + b"data: " + dump(event) + b"\n\n"
    finally:
        closed.cancel()
        if following is not None:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        await events.aclose()


def read_last_id(request: Request) -> int | None:
    """The id of the event that a reader heard last, from the header that browsers send or from `?after=`."""
    given = request.headers.get("last-event-id") or request.query_params.get("after") or ""
    return int(given) if re.fullmatch(r"[0-9]{1,18}", given) else None


class Hub:
    """Tells every open tab of an owner what has happened, and everyone how the models are.

    Ids are greater than those of any earlier gateway, so a restart is noticed.
    """

    def __init__(self, models: Callable[[], list[Any]]) -> None:
        self._models = models
        self._listeners: dict[asyncio.Queue[Numbered | None], str | None] = {}
        self._last = time.time_ns() // 1_000
        self._kept: deque[tuple[int, str | None, Event]] = deque(maxlen=MAX_WAITING)

    def publish(self, owner_id: str | None, event: Event) -> None:
        """Tell this owner's tabs."""
        self._last += 1
        self._kept.append((self._last, owner_id, event))
        for listener, theirs in list(self._listeners.items()):
            if theirs == owner_id:
                self._put(listener, (self._last, event))

    def tell_chat(self, chat: StoredConversation) -> None:
        """Tell the owner's tabs of a chat that is new or has changed."""
        self.publish(chat.owner_id, {"type": "chat", "chat": show_chat(chat)})

    def tell_message(self, owner_id: str | None, message: StoredMessage, **more: Any) -> None:
        """Tell the owner's tabs of a message that is new, has ended or was rated (`feedback`)."""
        shown = {**show_message_without_text(message), **more}
        self.publish(owner_id, {"type": "message", "chat_id": message.conversation_id, "message": shown})

    def tell_messages(self, chat: StoredConversation) -> None:
        """Tell the owner's tabs that messages of a chat are gone or back."""
        self.publish(chat.owner_id, {"type": "messages", "chat_id": chat.id})

    async def listen(self, owner_id: str | None, after: int | None = None) -> AsyncGenerator[Numbered]:
        """What happened after event `after`, the models now, and then everything that happens.

        An event `missed` comes first if it is no longer known what happened after `after`.
        """
        listener: asyncio.Queue[Numbered | None] = asyncio.Queue(MAX_WAITING)
        self._listeners[listener] = owner_id
        try:
            last = self._last
            past = [] if after is None else self._happened(owner_id, after)
            for numbered in past:
                yield numbered
            yield last, self._describe()
            while (told := await listener.get()) is not None:
                yield told
        finally:
            self._listeners.pop(listener, None)

    def _happened(self, owner_id: str | None, after: int) -> list[Numbered]:
        if not self._last - len(self._kept) <= after <= self._last:
            return [(self._last, {"type": "missed"})]
        return [(number, event) for number, owner, event in self._kept if owner == owner_id and number > after]

    async def watch(self) -> None:
        """Look at the models for ever, and tell when something about them has changed."""
        before: Event = {}
        while True:
            await asyncio.sleep(WATCH_S)
            if not self._listeners:
                continue
            now = self._describe()
            if now != before:
                before = now
                for listener in list(self._listeners):
                    self._put(listener, (None, now))

    def _describe(self) -> Event:
        return {"type": "models", "models": self._models()}

    def _put(self, listener: asyncio.Queue[Numbered | None], told: Numbered) -> None:
        if not listener.full():
            listener.put_nowait(told)
            return
        del self._listeners[listener]
        while not listener.empty():
            listener.get_nowait()
        listener.put_nowait(None)
