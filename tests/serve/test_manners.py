"""What clients do that no request body shows: wrong base URLs, HEAD, unusual names of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways import CHAT, chat, gateway, page_gateway


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("POST", "/chat/completions", "must end in /v1"),
        ("POST", "/v1/v1/chat/completions", "must end in /v1"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions"),
        ("POST", "//v1//chat/completions", "/v1/chat/completions"),
        ("POST", "/embeddings", "/v1/embeddings"),
        ("GET", "/models", "/v1/models"),
        ("GET", "/v1/models/", "/v1/models"),
        ("GET", "/v1/v1/models", "/v1/models"),
        ("POST", "/responses", "/v1/responses"),
        ("POST", "/messages", "/v1/messages"),
        ("POST", "/v1/v1/messages/count_tokens", "/v1/messages/count_tokens"),
    ],
)
async def test_a_client_beside_the_api_is_told_where_it_is(method: str, path: str, says: str) -> None:
    async with gateway() as g, g.http.request(method, g.url + path) as response:
        error = (await response.json())["error"]
        assert response.status == 404
        assert says in error["message"]
        assert error["code"]


async def test_head_answers_as_get_does_without_a_body(database: Path) -> None:
    async with page_gateway(database) as g:
        for path in ("/v1/models", "/v1/models/scripted", "/health", "/metrics", "/openapi.json", "/docs", "/"):
            async with g.http.get(g.url + path) as got, g.http.head(g.url + path) as head:
                assert (head.status, head.content_type) == (got.status, got.content_type), path
                assert await head.read() == b""
        async with g.http.head(g.url + "/api/events") as head:  # a stream that never ends by itself
            assert head.status == 200
        async with g.http.head(g.url + CHAT) as head:
            assert head.status == 405


@pytest.mark.parametrize("host", ["localhost.", "LOCALHOST.:80", "chaku.localhost", "127.0.0.1"])
async def test_other_names_of_this_machine_are_served(host: str) -> None:
    async with gateway() as g:
        status, _, _ = await g.post(CHAT, chat(), headers={"Host": host})
    assert status == 200


async def test_a_foreign_name_is_refused_with_the_flag_to_copy() -> None:
    async with gateway() as g:
        status, answer, _ = await g.post(CHAT, chat(), headers={"Host": "host.docker.internal:8000"})
        assert status == 403
        assert "--allowed-host host.docker.internal" in answer["error"]["message"]
        _, answer, _ = await g.post(CHAT, chat(), headers={"Host": "a b; rm"})
        assert "--allowed-host" not in answer["error"]["message"]
    async with gateway(allowed_hosts=("host.docker.internal",)) as g:
        status, _, _ = await g.post(CHAT, chat(), headers={"Host": "host.docker.internal:8000"})
    assert status == 200
