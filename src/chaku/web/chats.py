"""The chats of a visitor over HTTP: list, tree, answers, export and import. Who may come in is seen to before."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chaku.errors import InvalidRequest, NotFound
from chaku.policies import ImageLimits
from chaku.store.database import Store
from chaku.store.feedback import FeedbackBook
from chaku.store.transcripts import export_jsonl
from chaku.web import shapes, streams
from chaku.web.answers import Answers
from chaku.web.imports import import_file
from chaku.web.requests import ChatRoutes, Handler, id_in, json_response, read_body, read_json, visitor_of

MAX_PAGE = 200


class Chats(ChatRoutes):
    """The routes below /chats, and those that take all chats at once."""

    def __init__(self, store: Store, answers: Answers, hub: streams.Hub, images: ImageLimits) -> None:
        super().__init__(store)
        self._answers = answers
        self._hub = hub
        self._images = images

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        chat = "/chats/{chat}"
        return [
            ("GET", "/chats", self.list_chats),
            ("POST", "/chats", self.create),
            ("GET", chat, self.show),
            ("PATCH", chat, self.change),
            ("DELETE", chat, self.delete),
            ("POST", f"{chat}/restore", self.restore),
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
        """A chat with every message of its tree and the visitor's thumbs; answers under way up to this moment."""
        chat = await self._chat(request)
        messages = await asyncio.to_thread(self._tree(request, chat).messages)
        thumbs = await asyncio.to_thread(FeedbackBook(self._store, chat.owner_id).of, chat.id)
        shown = []
        for message in messages:
            answer = self._answers.find(chat.owner_id, chat.id, message.id)
            thumb = shapes.show_feedback(thumbs.get(message.id))
            shown.append({**shapes.show_message(answer.so_far() if answer else message), "feedback": thumb})
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
            await asyncio.to_thread(self._tree(request, chat).switch, id_in(asked.leaf_id, "message"))
        if values:
            await asyncio.to_thread(self._mine(request).change, chat.id, values)
        chat = await self._chat(request)
        self._hub.tell_chat(chat)
        return json_response(shapes.show_chat(chat))

    async def delete(self, request: Request) -> Response:
        """Put a chat out of sight."""
        chat_id = id_in(request.path_params["chat"])
        await asyncio.to_thread(self._mine(request).delete, chat_id, now=datetime.now(UTC))
        self._hub.publish(visitor_of(request).key_id, {"type": "chat_deleted", "id": chat_id})
        return Response(status_code=204)

    async def restore(self, request: Request) -> Response:
        """Undo a deletion."""
        await asyncio.to_thread(self._mine(request).restore, id_in(request.path_params["chat"]))
        chat = await self._chat(request)
        self._hub.tell_chat(chat)
        return json_response(shapes.show_chat(chat))

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
        """Chats from a file of chaku or of another program. Records that are none are named; what the page could not
        show is repaired and counted.
        """
        content = await read_body(request)
        owner_id = visitor_of(request).key_id
        imported, notes = await asyncio.to_thread(
            import_file, self._store, owner_id, content, datetime.now(UTC), self._images
        )
        self._hub.publish(owner_id, {"type": "chats"})
        skipped = [{"line": one.line, "reason": one.reason} for one in imported.skipped]
        return json_response({"imported": imported.num_conversations, "skipped": skipped, "repaired": notes})

    def _exported(self, request: Request, ids: list[str], name: str) -> Response:
        owner_id, all_branches = visitor_of(request).key_id, request.query_params.get("all") == "1"

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


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise InvalidRequest(f"limit is {text[:20]!r}, 1 to {MAX_PAGE} fit", param="limit")
    return int(text)
