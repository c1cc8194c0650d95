"""The chats of a visitor over HTTP: list, tree, answers, export and import. Who may come in is seen to before."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chaku.errors import InvalidRequest, NotFound, PayloadTooLarge
from chaku.protocol.json_scan import JsonLimits, scan
from chaku.protocol.validation import check
from chaku.store.conversations import Conversation, Conversations, title_from
from chaku.store.database import Store
from chaku.store.transcripts import export_jsonl, import_jsonl
from chaku.store.tree import Tree
from chaku.web import shapes, streams
from chaku.web.answers import Answers
from chaku.web.imports import repair_line
from chaku.web.logins import Logins, Visitor

MAX_BODY_BYTES = 32 * 2**20
PAGE_LIMITS = JsonLimits(
    body_bytes=MAX_BODY_BYTES,
    text_bytes=8 * 2**20,
    structure_bytes=2**20,
    num_values=20_000,
    num_containers=5_000,
    num_strings=20_000,
)
"""Of one request of the page; an import is read elsewhere."""
MAX_PAGE = 200
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Handler = Callable[[Request], Awaitable[Response]]
Shape = TypeVar("Shape", bound=BaseModel)


class Chats:
    """The routes below /chats, and those that take all chats at once."""

    def __init__(
        self, store: Store, answers: Answers, hub: streams.Hub, logins: Logins, closing: asyncio.Event
    ) -> None:
        self._store = store
        self._answers = answers
        self._hub = hub
        self._logins = logins
        self._closing = closing

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        chat, message = "/chats/{chat}", "/chats/{chat}/messages/{message}"
        return [
            ("GET", "/chats", self.list_chats),
            ("POST", "/chats", self.create),
            ("GET", chat, self.show),
            ("PATCH", chat, self.change),
            ("DELETE", chat, self.delete),
            ("POST", f"{chat}/restore", self.restore),
            ("POST", f"{chat}/messages", self.send),
            ("POST", f"{chat}/answers", self.regenerate),
            ("POST", f"{message}/stop", self.stop),
            ("GET", f"{message}/stream", self.stream),
            ("GET", f"{chat}/export", self.export_one),
            ("GET", "/export", self.export_all),
            ("POST", "/import", self.import_all),
        ]

    async def list_chats(self, request: Request) -> Response:
        """A page of chats, or what a search finds."""
        mine = self._mine(request)
        limit = _limit(request.query_params.get("limit", "50"))
        if (query := request.query_params.get("query", "")).strip():
            found = await asyncio.to_thread(mine.search, query, limit=limit)
            return json_response({"chats": [shapes.show_hit(hit, query) for hit in found], "next": None})
        cursor = request.query_params.get("before")
        after = shapes.read_cursor(cursor) if cursor else None
        chats = await asyncio.to_thread(mine.page, limit=limit + 1, after=after)
        more = shapes.cursor_after(chats[limit - 1]) if len(chats) > limit else None
        return json_response({"chats": [shapes.show_row(chat) for chat in chats[:limit]], "next": more})

    async def create(self, request: Request) -> Response:
        """A new, empty chat."""
        asked = await read_json(request, shapes.NewChat)
        chat = await asyncio.to_thread(
            self._mine(request).create,
            asked.title or "",
            now=datetime.now(UTC),
            system=asked.system or None,
            model=asked.model,
            settings=shapes.given(asked.settings),
        )
        self._hub.tell_chat(chat)
        return json_response(shapes.show_chat(chat))

    async def show(self, request: Request) -> Response:
        """A chat with every message of its tree; answers under way up to this moment."""
        chat = await self._chat(request)
        messages = await asyncio.to_thread(self._tree(request, chat).messages)
        shown = []
        for message in messages:
            answer = self._answers.find(chat.owner_id, chat.id, message.id)
            shown.append(shapes.show_message(answer.so_far() if answer else message))
        return json_response({**shapes.show_chat(chat), "messages": shown})

    async def change(self, request: Request) -> Response:
        """Set what is given."""
        asked = await read_json(request, shapes.ChangedChat)
        chat = await self._chat(request)
        given = asked.model_fields_set
        values: dict[str, Any] = {}
        if "title" in given:
            values["title"] = asked.title or ""
        if asked.pinned is not None:
            values["is_pinned"] = asked.pinned
        if "system" in given:
            values["system"] = asked.system or None
        if "model" in given:
            values["model"] = asked.model
        if "settings" in given:
            values["settings"] = shapes.given(asked.settings) or None
        if asked.leaf_id is not None:
            await asyncio.to_thread(self._tree(request, chat).switch, _id(asked.leaf_id, "message"))
        if values:
            await asyncio.to_thread(self._mine(request).change, chat.id, values)
        chat = await self._chat(request)
        self._hub.tell_chat(chat)
        return json_response(shapes.show_chat(chat))

    async def delete(self, request: Request) -> Response:
        """Put a chat out of sight."""
        chat_id = _id(request.path_params["chat"])
        await asyncio.to_thread(self._mine(request).delete, chat_id, now=datetime.now(UTC))
        self._hub.publish(_visitor(request).key_id, {"type": "chat_deleted", "id": chat_id})
        return Response(status_code=204)

    async def restore(self, request: Request) -> Response:
        """Undo a deletion."""
        await asyncio.to_thread(self._mine(request).restore, _id(request.path_params["chat"]))
        chat = await self._chat(request)
        self._hub.tell_chat(chat)
        return json_response(shapes.show_chat(chat))

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
        parent_id = None if asked.parent_id is None else _id(asked.parent_id, "message")
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
        parent_id = _id(asked.parent_id, "message")
        settings = shapes.given(asked.settings)
        answer = await self._answers.begin(chat.owner_id, chat, parent_id, asked.model, settings)
        await self._set_from(request, chat, asked, title=chat.title)
        return json_response({"answer": shapes.show_message(answer)})

    async def stop(self, request: Request) -> Response:
        """End an answer; what it said stays."""
        chat = await self._chat(request)
        message_id = _id(request.path_params["message"], "message")
        message = await self._answers.end(chat.owner_id, chat.id, message_id)
        return json_response({"answer": shapes.show_message(message)})

    async def stream(self, request: Request) -> Response:
        """An answer as it grows, from where the reader was."""
        chat = await self._chat(request)
        message_id = _id(request.path_params["message"], "message")
        if self._answers.find(chat.owner_id, chat.id, message_id) is None:
            await asyncio.to_thread(self._tree(request, chat).get, message_id)  # a 404 while it can still be one
        given = request.query_params.get("after") or request.headers.get("last-event-id") or ""
        after = int(given) if re.fullmatch(r"[0-9]{1,9}", given) else None
        events = self._answers.follow(chat.owner_id, chat.id, message_id, after)
        return self._event_stream(request, events)

    async def events(self, request: Request) -> Response:
        """What happens to the visitor's chats and to the models."""
        return self._event_stream(request, self._hub.listen(_visitor(request).key_id))

    async def export_one(self, request: Request) -> Response:
        """One chat as `messages` JSONL: the path shown, or every branch."""
        chat = await self._chat(request)
        return self._exported(request, [chat.id], f"chat-{chat.id}.jsonl")

    async def export_all(self, request: Request) -> Response:
        """Every chat as `messages` JSONL."""
        mine, ids, last = self._mine(request), [], None
        while chats := await asyncio.to_thread(mine.page, limit=MAX_PAGE, after=last):
            ids += [chat.id for chat in chats]
            last = shapes.place_of(chats[-1])
        return self._exported(request, ids, "chats.jsonl")

    async def import_all(self, request: Request) -> Response:
        """Chats from JSONL. Lines that are none are named; what the page could not show is repaired and counted."""
        lines = (await read_body(request)).splitlines()
        owner_id = _visitor(request).key_id
        repairs: Counter[str] = Counter()
        imported = await asyncio.to_thread(
            import_jsonl,
            self._store,
            owner_id,
            (repair_line(line, repairs) for line in lines),
            now=datetime.now(UTC),
            skips_bad_lines=True,
        )
        self._hub.publish(owner_id, {"type": "chats"})
        skipped = [{"line": one.line, "reason": one.reason} for one in imported.skipped]
        return json_response(
            {"imported": imported.num_conversations, "skipped": skipped, "repaired": dict(sorted(repairs.items()))}
        )

    def _exported(self, request: Request, ids: list[str], name: str) -> Response:
        owner_id, all_branches = _visitor(request).key_id, request.query_params.get("all") == "1"

        def lines_of(chat_id: str) -> bytes:
            try:
                return b"".join(export_jsonl(self._store, owner_id, [chat_id], all_branches=all_branches))
            except NotFound:  # deleted since the list was made
                return b""

        async def lines() -> AsyncIterator[bytes]:
            for chat_id in ids:
                yield await asyncio.to_thread(lines_of, chat_id)

        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return StreamingResponse(lines(), headers=headers, media_type="application/jsonl")

    def _event_stream(self, request: Request, events: Any) -> Response:
        visitor = _visitor(request)

        async def is_welcome() -> bool:
            return await self._logins.find(request) == visitor

        return StreamingResponse(streams.written(events, self._closing, is_welcome), headers=streams.HEADERS)

    async def _set_from(
        self, request: Request, chat: Conversation, asked: shapes.NewMessage | shapes.NewAnswer, *, title: str
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

    def _mine(self, request: Request) -> Conversations:
        return Conversations(self._store, _visitor(request).key_id)

    async def _chat(self, request: Request) -> Conversation:
        return await asyncio.to_thread(self._mine(request).get, _id(request.path_params["chat"]))

    def _tree(self, request: Request, chat: Conversation) -> Tree:
        return self._mine(request).tree(chat.id)


async def read_body(request: Request) -> bytes:
    """The whole body. Raises PayloadTooLarge before more than MAX_BODY_BYTES are held."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"the body is over {MAX_BODY_BYTES // 2**20} MiB", fix="send it in parts")
    return bytes(body)


async def read_json(request: Request, kind: type[Shape]) -> Shape:
    """The body in shape. Raises InvalidRequest naming the field at fault."""
    content = await read_body(request)
    for _ in scan(content, PAGE_LIMITS):
        await asyncio.sleep(0)
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="invalid_json") from None
    return check(kind, body)


def _visitor(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


def json_response(content: Any, status: int = 200) -> Response:
    """JSON that no cache keeps."""
    return Response(shapes.dump(content), status, {"cache-control": "no-store"}, "application/json")


def _id(text: str, what: str = "conversation") -> str:
    if not _ID.fullmatch(text):
        raise NotFound(f"no {what} {text[:60]!r}")
    return text


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise InvalidRequest(f"limit is {text[:20]!r}, 1 to {MAX_PAGE} fit", param="limit")
    return int(text)
