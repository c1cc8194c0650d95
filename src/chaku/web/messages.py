"""The messages of a visitor's chats over HTTP: sent, answered, continued, followed, edited, deleted, rated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from chaku.errors import InvalidRequest
from chaku.images.data_url import clean_content, has_images
from chaku.policies import ImageLimits
from chaku.store.conversations import StoredConversation, title_from
from chaku.store.database import Store
from chaku.store.feedback import Feedback, FeedbackBook
from chaku.web import shapes, streams
from chaku.web.answers import Answers
from chaku.web.requests import ChatRoutes, Handler, id_in, json_response, read_json

Opener = Callable[[Request, AsyncGenerator[streams.Numbered]], Response]
"""Answers a request with a stream of events."""


class Messages(ChatRoutes):
    """The routes below /chats/ID that add to a chat or follow an answer."""

    def __init__(
        self,
        store: Store,
        answers: Answers,
        hub: streams.Hub,
        models: Callable[[], list[Any]],
        open_stream: Opener,
        images: ImageLimits,
    ) -> None:
        super().__init__(store)
        self._answers = answers
        self._hub = hub
        self._models = models
        self._open_stream = open_stream
        self._images = images

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        chat, message = "/chats/{chat}", "/chats/{chat}/messages/{message}"
        return [
            ("POST", f"{chat}/messages", self.send),
            ("POST", f"{chat}/answers", self.regenerate),
            ("POST", f"{message}/stop", self.stop),
            ("POST", f"{message}/continue", self.resume),
            ("POST", f"{message}/edit", self.edit),
            ("DELETE", message, self.delete),
            ("POST", f"{message}/restore", self.restore),
            ("PUT", f"{message}/feedback", self.rate),
            ("DELETE", f"{message}/feedback", self.unrate),
            ("GET", f"{message}/stream", self.stream),
        ]

    async def send(self, request: Request) -> Response:
        """A user message, and the answer to it; an edit is one with the parent of the message that it replaces."""
        asked = await read_json(request, shapes.NewMessage)
        if asked.answer and asked.model is None:
            raise InvalidRequest("an answer needs a model", fix="name one, or send answer: false", param="model")
        chat = await self._chat(request)
        content = await self._kept(asked.content)
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

    async def _kept(self, asked: Any) -> Any:
        """A message's content as the store keeps it: images have no metadata. Raises InvalidRequest for large ones."""
        content = shapes.plain(asked)
        if has_images([{"content": content}]):
            await asyncio.to_thread(clean_content, content, self._images)
        return content

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
        message_id = _message_id(request)
        message = await self._answers.end(chat.owner_id, chat.id, message_id)
        return json_response({"answer": shapes.show_message(message)})

    async def resume(self, request: Request) -> Response:
        """Continue an answer that was cut off, in the same message."""
        chat, message_id = await self._chat(request), _message_id(request)
        asked = await read_json(request, shapes.Continuation)
        message = await asyncio.to_thread(self._tree(request, chat).get, message_id)
        model = asked.model or message.model
        self._check_continues(model)
        answer = await self._answers.resume(chat.owner_id, chat, message_id, model, shapes.given(asked.settings))
        return json_response({"answer": shapes.show_message(answer)})

    def _check_continues(self, model: str | None) -> None:
        row = next((row for row in self._models() if row["id"] == model), None)
        if row is None:
            raise InvalidRequest(f"model {model!r} is not served here", fix="ask for a new answer", param="model")
        if row["capabilities"] and "continue_final_message" not in row["capabilities"]:
            raise InvalidRequest(
                f"{model} can't continue an answer: its engine only begins new ones",
                fix="ask for a new answer, with a higher limit of tokens",
                param="model",
                code="unsupported_parameter",
            )

    async def edit(self, request: Request) -> Response:
        """Another wording of a message beside the old one, without a new answer."""
        chat = await self._chat(request)
        asked = await read_json(request, shapes.Edit)
        tree, content = self._tree(request, chat), await self._kept(asked.content)
        message = await asyncio.to_thread(tree.edit, _message_id(request), content, now=datetime.now(UTC))
        self._hub.tell_message(chat.owner_id, message)
        self._hub.tell_chat(await self._chat(request))
        return json_response({"message": shapes.show_message(message)})

    async def delete(self, request: Request) -> Response:
        """Put a message and all that follows it out of sight; `restore` undoes that."""
        chat = await self._chat(request)
        gone = await asyncio.to_thread(self._tree(request, chat).delete, _message_id(request), now=datetime.now(UTC))
        self._hub.tell_messages(chat)
        return json_response({"deleted": gone, "leaf_id": (await self._chat(request)).leaf_id})

    async def restore(self, request: Request) -> Response:
        """Undo a deletion."""
        chat = await self._chat(request)
        await asyncio.to_thread(self._tree(request, chat).restore, _message_id(request))
        self._hub.tell_messages(chat)
        return json_response({"leaf_id": (await self._chat(request)).leaf_id})

    async def rate(self, request: Request) -> Response:
        """A thumb on an answer; what the visitor gave before is replaced."""
        chat, message_id = await self._chat(request), _message_id(request)
        asked = await read_json(request, shapes.NewFeedback)
        given = await asyncio.to_thread(
            FeedbackBook(self._store, chat.owner_id).give,
            chat.id,
            message_id,
            asked.value,
            reasons=asked.reasons,
            consent=asked.consent,
            now=datetime.now(UTC),
        )
        await self._tell_feedback(request, chat, given)
        return json_response({"feedback": shapes.show_feedback(given)})

    async def unrate(self, request: Request) -> Response:
        """No thumb any more."""
        chat, message_id = await self._chat(request), _message_id(request)
        await asyncio.to_thread(FeedbackBook(self._store, chat.owner_id).take_back, chat.id, message_id)
        await self._tell_feedback(request, chat, None)
        return Response(status_code=204)

    async def _tell_feedback(self, request: Request, chat: StoredConversation, given: Feedback | None) -> None:
        message = await asyncio.to_thread(self._tree(request, chat).get, _message_id(request))
        self._hub.tell_message(chat.owner_id, message, feedback=shapes.show_feedback(given))

    async def stream(self, request: Request) -> Response:
        """An answer as it grows, from where the reader was."""
        chat = await self._chat(request)
        message_id = _message_id(request)
        if self._answers.find(chat.owner_id, chat.id, message_id) is None:
            await asyncio.to_thread(self._tree(request, chat).get, message_id)  # a 404 while it can still be one
        events = self._answers.follow(chat.owner_id, chat.id, message_id, streams.read_last_id(request))
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


def _message_id(request: Request) -> str:
    return id_in(request.path_params["message"], "message")
