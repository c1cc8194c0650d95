"""Who may call the gateway: keys, hosts, origins."""

from __future__ import annotations

import asyncio

import pytest

from chaku.errors import ConfigError
from gateways import CHAT, Keys, Running, chat, gateway


async def test_keys_are_asked_for_once_one_exists() -> None:
    async with gateway(keys=Keys({"ck-right": "key1"})) as g:
        status, answer, headers = await g.post(CHAT, chat())
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert headers["www-authenticate"] == "Bearer"
        assert (await g.post(CHAT, chat(), headers={"Authorization": "Bearer ck-wrong"}))[0] == 401
        assert (await g.post(CHAT, chat(), headers={"Authorization": "Bearer ck-right"}))[0] == 200
        async with g.http.get(g.url + "/v1/models") as response:
            assert response.status == 401
        async with g.http.get(g.url + "/metrics") as response:
            assert response.status == 401
        async with g.http.get(g.url + "/health") as response:
            assert response.status == 200
    assert [e.key_id for e in g.exchanges] == ["key1"]  # strangers are not booked


async def test_without_keys_on_loopback_any_authorization_header_will_do() -> None:
    async with gateway() as g:
        assert (await g.post(CHAT, chat(), headers={"Authorization": "Bearer whatever"}))[0] == 200
        assert (await g.post(CHAT, chat(), headers={"Authorization": "nonsense"}))[0] == 200


async def test_another_address_needs_a_key_and_says_how() -> None:
    with pytest.raises(ConfigError, match="chaku keys create"):
        async with gateway(host="0.0.0.0"):
            pass


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
async def test_a_rebound_host_name_is_refused(host: str) -> None:
    async with gateway() as g:
        status, answer, _ = await g.post(CHAT, chat(), headers={"Host": host})
        assert (status, answer["error"]["code"]) == (403, "permission_denied")
        async with g.http.get(g.url + "/v1/models", headers={"Host": host}) as response:
            assert response.status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8000", "192.168.1.5", "gpu-box.lan"])
async def test_our_own_names_and_addresses_are_welcome(host: str) -> None:
    async with gateway(allowed_hosts=("gpu-box.lan",)) as g:
        assert (await g.post(CHAT, chat(), headers={"Host": host}))[0] == 200


async def test_pages_of_other_origins_are_refused_unless_allowed() -> None:
    async with gateway() as g:
        assert (await g.post(CHAT, chat(), headers={"Origin": "https://evil.example"}))[0] == 403
        assert (await g.post(CHAT, chat(), headers={"Origin": "null"}))[0] == 403
        status, _, headers = await g.post(CHAT, chat(), headers={"Origin": g.url})
        assert status == 200
        assert "access-control-allow-origin" not in headers
    async with gateway(cors_origins=("https://app.example",)) as g:
        status, _, headers = await g.post(CHAT, chat(), headers={"Origin": "https://app.example"})
        assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        async with g.http.options(g.url + CHAT, headers=preflight) as response:
            assert response.status == 204
            assert "POST" in response.headers["access-control-allow-methods"]


async def raw_status(g: Running, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(g.url.rsplit(":", 1)[1]))
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


async def test_two_hosts_are_refused_and_so_is_an_origin_that_is_no_url() -> None:
    async with gateway() as g:
        twice = b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n\r\n"
        assert b" 403 " in await raw_status(g, twice)
        assert b" 403 " in await raw_status(
            g, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[\r\n\r\n"
        )


async def test_a_preflights_answer_is_empty_and_a_pages_answer_shows_our_headers() -> None:
    origin = {"Origin": "https://app.example"}
    async with gateway(cors_origins=("https://app.example",)) as g:
        async with g.http.options(g.url + CHAT, headers={**origin, "Access-Control-Request-Method": "POST"}) as answer:
            assert answer.status == 204
            assert not {"content-length", "content-type"} & {name.lower() for name in answer.headers}
        _, _, headers = await g.post(CHAT, chat(), headers=origin)
    exposed = headers["access-control-expose-headers"]
    assert exposed.startswith("x-request-id, x-chaku-note, x-chaku-fallback, retry-after, x-ratelimit-limit-")
