"""Every path has a row with a scope, and what has none is not served."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount, Route

from chaku.errors import MethodNotAllowed, NotFound
from chaku.serve.endpoints import ENDPOINTS, PAGE, EndpointTable
from chaku.store import keys
from chaku.store.database import open_store
from gateways import chat, gateway, page_gateway


def paths_of(routes: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Method and path of every route of an application, mounted ones too."""
    found: list[tuple[str, str]] = []
    for route in routes:
        if isinstance(route, Mount):
            found += paths_of(route.routes or [], prefix + route.path) or [("GET", prefix + route.path + "/x")]
        elif isinstance(route, Route) or hasattr(route, "methods"):
            found += [(method, prefix + route.path) for method in route.methods or ()]
    return found


async def test_every_route_of_the_application_has_a_row_that_takes_its_method(database: Path) -> None:
    async with page_gateway(database) as g:
        routes = paths_of(g.serving.app.routes)
    assert ("GET", "/v1/models") in routes
    assert any(path.startswith("/api/") for _, path in routes)
    table = EndpointTable()
    for method, path in routes:
        assert method in table.find(path.replace("{", "").replace("}", ""), method).methods
    readable = [path for method, path in routes if table.find(path, method) is PAGE]
    assert not [path for path in readable if path.startswith(("/v1", "/api", "/metrics"))]


async def test_a_route_without_a_row_is_not_served() -> None:
    async with gateway() as g:

        @g.serving.app.post("/secret")
        async def secret() -> dict[str, str]:
            return {"secret": "told"}

        @g.serving.app.get("/v1/secret")
        async def secret_too() -> dict[str, str]:
            return {"secret": "told"}

        for path in ("/v1/secret", "/v1/modelsx", "/api", "/metrics/x"):
            async with g.http.get(g.url + path) as response:
                assert response.status == 404
                assert "secret" not in (await response.text()).replace("/v1/secret", "")
        status, answer, _ = await g.post("/secret", {})
    assert (status, answer["error"]["code"]) == (405, "method_not_allowed")


WRONG_SCOPE = {"infer": "page", "metrics": "infer", "admin": "infer", "join": "infer", "page": "infer"}
"""For each scope, a scope that does not include it."""


async def test_every_route_refuses_every_wrong_credential(database: Path) -> None:
    now = datetime.now(UTC)
    everything = keys.SCOPES.keys()
    async with page_gateway(database) as g:
        with open_store(f"sqlite:///{database}") as store:
            narrow = {scope: keys.create(store, f"only-{scope}", now=now, scopes=[scope]).token for scope in everything}
            expired = keys.create(store, "expired", now=now, scopes=everything, expires_at=now).token
            revoked = keys.create(store, "revoked", now=now, scopes=everything).token
            keys.revoke(store, "revoked", now=now)
        await asyncio.to_thread(g.serving.access._keys.refresh)
        rows = [(row, method, row.path.replace("*", "x")) for row in ENDPOINTS for method in sorted(row.methods)]
        rows += [
            (EndpointTable().find(path, method), method, path)
            for method, path in sorted(paths_of(g.serving.app.routes))
            if path.startswith("/api/")
        ]
        num_tried = 0  # `fastchat` takes addresses, not keys: tests/fleet/test_fastchat.py
        for row, method, path in rows:
            if row.scope in ("open", "fastchat") or path in ("/api/session", "/api/login", "/api/logout", "/api/guest"):
                continue
            wrong = {"no key": None, "wrong": "ck-wrong", "expired": expired, "revoked": revoked}
            for what, token in (wrong | {"scope": narrow[WRONG_SCOPE[row.scope]]}).items():
                headers = {"x-chaku": "1"} | ({"authorization": f"Bearer {token}"} if token else {})
                json = chat() if method == "POST" else None
                async with g.http.request(method, g.url + path, json=json, headers=headers) as response:
                    # The page takes a session, and no key whatever its scope.
                    is_scope = what == "scope" and row.scope != "page"
                    expected = (405,) if path == "/api/x" or response.status == 405 else (403 if is_scope else 401,)
                    assert response.status in ((404, 405) if path == "/api/x" else expected), (method, path, what)
                num_tried += 1
    assert num_tried > 200


def test_unknown_paths_and_methods_are_refused_by_name() -> None:
    table = EndpointTable()
    with pytest.raises(NotFound, match="/v1/nothing"):
        table.find("/v1/nothing", "GET")
    with pytest.raises(MethodNotAllowed, match="takes POST, not DELETE"):
        table.find("/v1/chat/completions", "DELETE")
    assert table.find("/chats/1", "GET") is PAGE


async def test_an_application_route_that_raises_answers_once() -> None:
    async with gateway() as g:

        @g.serving.app.get("/broken")
        async def broken() -> None:
            raise RuntimeError("planted")

        async with g.http.get(g.url + "/broken") as response:
            assert response.status == 500
            assert len(await response.read()) == int(response.headers["content-length"])
        assert (await g.post("/v1/chat/completions", chat()))[0] == 200
