"""Parts that the page's routes share: the checked body of a request, its sender, and the chat that its path names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from chaku.errors import InvalidRequest, NotFound, PayloadTooLarge, PermissionRefused
from chaku.protocol.json_scan import JsonLimits, scan
from chaku.protocol.validation import check
from chaku.store.audit import Actor
from chaku.store.conversations import Conversations, StoredConversation
from chaku.store.database import Store
from chaku.store.tree import Tree
from chaku.web import shapes
from chaku.web.logins import Visitor

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
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Handler = Callable[[Request], Awaitable[Response]]
Shape = TypeVar("Shape", bound=BaseModel)


class ChatRoutes:
    """The visitor's chats, as handlers find them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _mine(self, request: Request) -> Conversations:
        return Conversations(self._store, visitor_of(request).key_id)

    async def _chat(self, request: Request) -> StoredConversation:
        return await asyncio.to_thread(self._mine(request).get, id_in(request.path_params["chat"]))

    def _tree(self, request: Request, chat: StoredConversation) -> Tree:
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


def visitor_of(request: Request) -> Visitor:
    """The sender."""
    visitor: Visitor = request.state.visitor
    return visitor


def check_admin(request: Request) -> None:
    """Raises PermissionRefused for visitors who are neither the local user nor hold a key of scope admin."""
    if not visitor_of(request).is_admin:
        fix = "log in with a key of `chaku keys create NAME --scope page --scope admin`"
        raise PermissionRefused("this is for the local user and for keys of scope admin", fix=fix)


def actor_of(request: Request) -> Actor:
    """The sender, as the audit log names who made a change."""
    return Actor("page", visitor_of(request).key_id)


def json_response(content: Any, status: int = 200) -> Response:
    """JSON that no cache keeps."""
    return Response(shapes.dump(content), status, {"cache-control": "no-store"}, "application/json")


def id_in(text: str, what: str = "conversation") -> str:
    """An id from a path or a body. Raises NotFound for what can be none."""
    if not _ID.fullmatch(text):
        raise NotFound(f"no {what} {text[:60]!r}")
    return text
