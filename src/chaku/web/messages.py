"""The messages of a visitor's chats over HTTP: sent, answered, answered again, stopped, followed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from chaku.errors import InvalidRequest
from chaku.store.conversations import StoredConversation, title_from
from chaku.store.database import Store
from chaku.web import shapes, streams
from chaku.web.answers import Answers
from chaku.web.requests import ChatRoutes, Handler, id_in, json_response, read_json

Opener = Callable[[Request, AsyncGenerator[streams.Numbered]], Response]
"""Answers a request with a stream of events."""


class Messages(ChatRoutes):
    """The routes below /chats/ID that add to a chat or follow an answer."""

    def __init__(self, store: Store, answers: Answers, hub: streams.Hub, open_stream: Opener) -> None:
        super().__init__(store)
        self._answers = answers
        self._hub = hub
        self._open_stream = open_stream

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        chat, message = "/chats/{chat}", "/chats/{chat}/messages/{message}"
        return [
            ("POST", f"{chat}/messages", self.send),
            ("POST", f"{chat}/answers", self.regenerate),
            ("POST", f"{message}/stop", self.stop),
            ("GET", f"{message}/stream", self.stream),
        ]

    async def send(self, request: Request) -> Response:
        """A user message, and the answer to it; an edit is one with the parent of the message that it replaces."""
        asked = await read_json(request, shapes.NewMessage)
        if asked.answer and asked.model is None:
            raise InvalidRequest("an answer needs a model", fix="name one, or send answer: false", param="model")
        chat = await self._chat(request)
        content = (
            asked.content
            if isinstance(asked.content, str)
            else [part.model_dump(exclude_none=True) for part in asked.content]
        )
        parent_id = None if asked.parent_id is None else id_in(asked.parent_id, "message")
        user = await asyncio.to_thread(
            self._tree(request, chat).append, parent_id, "user", content, now=datetime.now(UTC)
        )
        self._hub.tell_message(chat.owner_id, user)
        answer = None
        if asked.answer and asked.model is not None:
            settings = shapes.given(asked.settings)
            answer = await self._answers.begin(chat.owner_id, chat, user.id, asked.model, settings)
        await self._set_from(request, chat, asked, title=chat.title or title_from(content))
        shown = shapes.show_message(answer) if answer else None
        return json_response({"user": shapes.show_message(user), "answer": shown})

    async def regenerate(self, request: Request) -> Response:
        """Another answer to a user message."""
        asked = await read_json(request, shapes.NewAnswer)
        chat = await self._chat(request)
        parent_id = id_in(asked.parent_id, "message")
        settings = shapes.given(asked.settings)
        answer = await self._answers.begin(chat.owner_id, chat, parent_id, asked.model, settings)
        await self._set_from(request, chat, asked, title=chat.title)
        return json_response({"answer": shapes.show_message(answer)})

    async def stop(self, request: Request) -> Response:
        """End an answer; its text stays."""
        chat = await self._chat(request)
        message_id = id_in(request.path_params["message"], "message")
        message = await self._answers.end(chat.owner_id, chat.id, message_id)
        return json_response({"answer": shapes.show_message(message)})

    async def stream(self, request: Request) -> Response:
        """An answer as it grows, from where the reader was."""
        chat = await self._chat(request)
        message_id = id_in(request.path_params["message"], "message")
        if self._answers.find(chat.owner_id, chat.id, message_id) is None:
            await asyncio.to_thread(self._tree(request, chat).get, message_id)  # a 404 while it can still be one
        given = request.query_params.get("after") or request.headers.get("last-event-id") or ""
        after = int(given) if re.fullmatch(r"[0-9]{1,9}", given) else None
        events = self._answers.follow(chat.owner_id, chat.id, message_id, after)
        return self._open_stream(request, events)

    async def _set_from(
        self, request: Request, chat: StoredConversation, asked: shapes.NewMessage | shapes.NewAnswer, *, title: str
    ) -> None:
        """The chat keeps the model and settings that were asked with last."""
        values: dict[str, Any] = {} if title == chat.title else {"title": title}
        if asked.model is not None and asked.model != chat.model:
            values["model"] = asked.model
        if asked.settings is not None and shapes.given(asked.settings) != (chat.settings or {}):
            values["settings"] = shapes.given(asked.settings) or None
        if values:
            await asyncio.to_thread(self._mine(request).change, chat.id, values)
        self._hub.tell_chat(await self._chat(request))
