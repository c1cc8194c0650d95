"""Canaries: a prompt, a caller's key and an upstream's key must show up in no log, metric or foreign answer.

Every path of the endpoint table is tried in every way that ends in an error, against an upstream that repeats in
its errors all that it was sent. Command lines of engines are looked at in tests/engines/test_child.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chaku.engines.upstream import UpstreamEngine
from chaku.serve.endpoints import ENDPOINTS, Endpoint
from chaku.settings import ModelConfig
from chaku.store import keys
from chaku.store.database import open_store
from gateways import Running, page_gateway

PROMPT = "canary-of-a-prompt"
UPSTREAM_KEY = "sk-canary-of-an-upstream"
WRONG_KEY = "ck-canary-of-a-caller"
LOOPBACK = ("127.0.0.0/8",)
STATUSES = (400, 401, 500)
"""What the upstream answers: the caller's fault, that of chaku's key, its own."""
NOT_JSON = b'{"model": "theirs", "messages": "' + PROMPT.encode()
TALK = [{"role": "user", "content": PROMPT}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TALK},
    "/v1/completions": {"prompt": PROMPT},
    "/v1/embeddings": {"input": PROMPT},
    "/v1/responses": {"input": PROMPT, "store": False},
    "/v1/messages": {"messages": TALK, "max_tokens": 8},
    "/v1/messages/count_tokens": {"messages": TALK},
    "/score": {"input_data": {"input_string": [PROMPT]}},
    "/v1/moderations": {"input": PROMPT},
    "/ollama/api/chat": {"messages": TALK},
    "/ollama/api/generate": {"prompt": PROMPT},
    "/ollama/api/embed": {"input": PROMPT},
    "/ollama/api/show": {"model": PROMPT},
    "/v1/files": {"purpose": PROMPT},
    "/v1/batches": {"input_file_id": PROMPT, "endpoint": "/v1/completions", "completion_window": "24h"},
    "/fleet/join": {"name": PROMPT},
    "/fleet/beat": {"name": PROMPT},
    "/fleet/leave": {"name": PROMPT},
    **{row.path: {"prompt": PROMPT} for row in ENDPOINTS if row.scope == "fastchat" and "POST" in row.methods},
}


def bodies(row: Endpoint) -> list[Any]:
    """Bodies for a path: what an upstream fails on, an unknown model, a wrong type, no JSON."""
    good = BODIES.get(row.path, {"messages": TALK})
    plain = good if row.path == "/score" else {"model": "theirs", **good}
    return [plain, {**plain, "stream": True}, {**plain, "model": "nobody"}, {**plain, "max_tokens": TALK}, NOT_JSON]


@contextlib.asynccontextmanager
async def echo(status: int) -> AsyncIterator[str]:
    """An upstream whose errors repeat the headers and the body that it was sent."""

    async def refuse(request: web.Request) -> web.Response:
        told = f"{dict(request.headers)} {await request.text()}"
        return web.json_response({"error": {"message": told, "type": told, "code": "x"}}, status=status)

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "theirs", "object": "model"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def test_every_path_that_takes_a_body_has_a_canary_in_it() -> None:
    takes = {row.path for row in ENDPOINTS if "POST" in row.methods and not row.path.endswith("*")}
    assert takes == set(BODIES)


@pytest.mark.parametrize("status", STATUSES)
async def test_no_error_path_tells_a_prompt_or_a_key(
    status: int, database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THEIR_KEY", UPSTREAM_KEY)
    caplog.set_level(logging.INFO)
    with open_store(f"sqlite:///{database}") as store:
        key = keys.create(store, "caller", now=datetime.now(UTC), scopes=keys.SCOPES).token
    async with echo(status) as url:
        config = ModelConfig(source=url, api_key_env="THEIR_KEY", upstream_model="theirs")
        async with page_gateway(database, UpstreamEngine("theirs", config), fastchat_networks=LOOPBACK) as g:
            answers = [answer async for answer in every_error(g, key)]
            async with g.http.get(f"{g.url}/metrics", headers={"authorization": f"Bearer {key}"}) as response:
                metrics = await response.text()
    failed = [text for code, text in answers if code >= 400]
    assert len(failed) > 60
    for canary in (PROMPT, UPSTREAM_KEY, WRONG_KEY, key):
        assert canary not in caplog.text
        assert canary not in metrics
    for canary in (UPSTREAM_KEY, WRONG_KEY, key):
        assert [text for _, text in answers if canary in text] == []


async def every_error(g: Running, key: str) -> AsyncIterator[tuple[int, str]]:
    """Status and text of the answers to every path × method × credential × body."""
    for row in ENDPOINTS:
        path = row.path.replace("*", PROMPT)
        for method in sorted(row.methods - {"HEAD"}):
            tries: list[tuple[str, Any]] = [(WRONG_KEY, None), (key, None)]
            tries += [(key, body) for body in bodies(row)] if method == "POST" else []
            for token, body in tries:
                headers = {"authorization": f"Bearer {token}", "x-chaku": "1", "content-type": "application/json"}
                sent = {"data": body} if isinstance(body, bytes) else {"json": body}
                async with g.http.request(method, g.url + path, headers=headers, **sent) as response:
                    head = " ".join(f"{name}: {value}" for name, value in response.headers.items())
                    yield response.status, f"{method} {row.path} {response.status} {head} {await response.text()}"
