"""The API keys and what was used with them, for admins: listed, created and revoked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from chaku.config import MAX_DAYS
from chaku.policies import Limits, RequestLimit, TokenLimit
from chaku.protocol.messages import Shape
from chaku.store.database import Store
from chaku.store.keys import Key, create, list_keys, revoke
from chaku.store.usage import totals
from chaku.web.requests import Handler, actor_of, check_admin, json_response, read_json
from chaku.web.shapes import show_time


class NewKey(Shape):
    """POST /api/keys."""

    name: Annotated[str, Field(max_length=64)]
    scopes: Annotated[list[str], Field(min_length=1, max_length=8)]
    expires_in_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | None = None
    requests_per_minute: RequestLimit | None = None
    tokens_per_day: TokenLimit | None = None


class KeysPage:
    """The routes below /keys."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        return [("GET", "/keys", self.show), ("POST", "/keys", self.create), ("DELETE", "/keys/{key}", self.revoke)]

    async def show(self, request: Request) -> Response:
        """Every key with its sums of usage, and what came without one."""
        check_admin(request)
        made, sums = await asyncio.to_thread(lambda: (list_keys(self._store), totals(self._store, by=["key"])))
        used = {total.key_id: total for total in sums}
        now = datetime.now(UTC)
        rows = [_shown(key, now) | {"usage": _usage(used.get(key.id))} for key in made]
        return json_response({"keys": rows})

    async def create(self, request: Request) -> Response:
        """Make a key; its token is in the answer, and nowhere else."""
        check_admin(request)
        asked = await read_json(request, NewKey)
        now = datetime.now(UTC)
        new = await asyncio.to_thread(
            create,
            self._store,
            asked.name,
            now=now,
            scopes=asked.scopes,
            expires_at=now + timedelta(days=asked.expires_in_days) if asked.expires_in_days else None,
            limits=Limits(requests_per_minute=asked.requests_per_minute, tokens_per_day=asked.tokens_per_day),
            by=actor_of(request),
        )
        return json_response({"token": new.token, "key": _shown(new.key, now) | {"usage": _usage(None)}}, 201)

    async def revoke(self, request: Request) -> Response:
        """End a key."""
        check_admin(request)
        which, by = request.path_params["key"], actor_of(request)
        await asyncio.to_thread(revoke, self._store, which, now=datetime.now(UTC), by=by)
        return Response(status_code=204)


def _shown(key: Key, now: datetime) -> dict[str, Any]:
    state = "revoked" if key.revoked_at else "expired" if key.has_expired(now) else "active"
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "state": state,
        "scopes": sorted(key.scopes),
        "limits": key.limits.model_dump(mode="json", exclude_defaults=True),
        "created_at": show_time(key.created_at),
        "expires_at": show_time(key.expires_at) if key.expires_at else None,
        "last_used_at": show_time(key.last_used_at) if key.last_used_at else None,
    }


def _usage(total: Any) -> dict[str, Any]:
    names = ("num_requests", "prompt_tokens", "completion_tokens", "dollars")
    return {name: getattr(total, name) if total is not None else 0 for name in names}
