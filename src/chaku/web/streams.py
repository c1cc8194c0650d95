"""Server-sent events: how one stream is kept open, and how tabs hear of what others did."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from chaku.errors import ChakuError
from chaku.store.conversations import StoredConversation
from chaku.store.message_record import StoredMessage
from chaku.web.shapes import dump, show_chat, show_message_without_text

log = logging.getLogger(__name__)

Event = dict[str, Any]
Numbered = tuple[int | None, Event]

KEEP_ALIVE_S = 15.0
MAX_WAITING = 1000
"""Events that wait for a slow tab; one more and its stream ends, so that it comes back and fetches everything."""

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


class Hub:
    """Tells every open tab of an owner what has happened, and everyone how the models are."""

    def __init__(self, models: Callable[[], list[Any]]) -> None:
        self._models = models
        self._listeners: dict[asyncio.Queue[Event | None], str | None] = {}

    def publish(self, owner_id: str | None, event: Event) -> None:
        """Tell this owner's tabs."""
        for listener, theirs in list(self._listeners.items()):
            if theirs == owner_id:
                self._put(listener, event)

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

    async def listen(self, owner_id: str | None) -> AsyncGenerator[Numbered]:
        """The models now, and then everything that happens."""
        listener: asyncio.Queue[Event | None] = asyncio.Queue(MAX_WAITING)
        self._listeners[listener] = owner_id
        try:
            yield None, self._describe()
            while (event := await listener.get()) is not None:
                yield None, event
        finally:
            self._listeners.pop(listener, None)

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
                    self._put(listener, now)

    def _describe(self) -> Event:
        return {"type": "models", "models": self._models()}

    def _put(self, listener: asyncio.Queue[Event | None], event: Event) -> None:
        if not listener.full():
            listener.put_nowait(event)
            return
        del self._listeners[listener]
        while not listener.empty():
            listener.get_nowait()
        listener.put_nowait(None)
