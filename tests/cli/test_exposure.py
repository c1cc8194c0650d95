"""`chaku doctor --exposed` says what a stranger can reach: of an open gateway, a keyed one, with guests, over TLS."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from certificates import certificate, needs_openssl
from chaku.cli import exposure
from chaku.cli.checks import Check
from chaku.cli.doctor import doctor
from chaku.errors import EngineUnavailable
from chaku.policies import GuestPolicy
from chaku.serve.endpoints import ENDPOINTS
from chaku.store import keys
from chaku.store.database import open_store
from gateways import Running, gateway, page_gateway


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    """A database with one key."""
    database = tmp_path / "chaku.db"
    with open_store(f"sqlite:///{database}") as store:
        keys.create(store, "me", now=datetime.now(UTC))
    return database


async def found(running: Running | str) -> dict[str, list[Check]]:
    checks: dict[str, list[Check]] = {}
    for check in await exposure.examine(running if isinstance(running, str) else running.url):
        checks.setdefault(check.about, []).append(check)
    return checks


def levels(checks: dict[str, list[Check]]) -> dict[str, str]:
    worst = ("ok", "warn", "FAIL")
    return {about: max((check.level for check in of), key=worst.index) for about, of in checks.items()}


SAFE = dict.fromkeys(("gateway", "without key", "wrong key", "page", "guests", "CORS", "Host", "user header"), "ok")
SAFE |= {"headers": "ok", "TLS": "warn"}


async def test_a_gateway_with_a_key_shows_nothing_to_strangers(keyed: Path) -> None:
    async with page_gateway(keyed) as running:
        checks = await found(running)
    assert levels(checks) == SAFE
    num_closed = sum(row.scope not in ("open", "page") for row in ENDPOINTS)
    assert f"{num_closed} of {num_closed} requests refused" in checks["without key"][0].finding


async def test_an_open_gateway_is_told_path_by_path(tmp_path: Path) -> None:
    async with page_gateway(tmp_path / "chaku.db", fastchat_networks=("127.0.0.0/8",)) as running:
        checks = await found(running)
        assert [exchange.status for exchange in running.exchanges if exchange.is_asked] == []
    by_level = levels(checks)
    assert {about for about, level in by_level.items() if level == "FAIL"} == {"without key", "wrong key", "page"}
    told = " ".join(check.finding for check in checks["without key"])
    for row in ENDPOINTS:
        if row.scope not in ("open", "page"):
            assert row.path in told


async def test_guests_are_named_with_what_they_may_do(tmp_path: Path) -> None:
    async with page_gateway(tmp_path / "chaku.db", guests=GuestPolicy()) as running:
        checks = await found(running)
    assert levels(checks) == SAFE | {"guests": "warn"}
    assert "research preview" in checks["guests"][0].finding


async def test_open_cors_and_a_user_header_that_anybody_may_send_are_found(keyed: Path) -> None:
    options = {"cors_origins": ("*",), "trusted_proxies": ("127.0.0.0/8",), "user_header": "Remote-User"}
    async with page_gateway(keyed, **options) as running:
        checks = await found(running)
    assert levels(checks) == SAFE | {"CORS": "FAIL", "user header": "FAIL"}
    assert checks["user header"][0].finding.endswith("Remote-User")


async def test_a_proxy_that_drops_the_headers_is_found(keyed: Path) -> None:
    async with page_gateway(keyed) as running:

        async def forward(request: web.Request) -> web.Response:
            sent = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
            body = await request.read() or None
            url = running.url + request.path
            async with running.http.request(request.method, url, headers=sent, data=body) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            checks = await found(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        finally:
            await runner.cleanup()
    assert levels(checks) == SAFE | {"headers": "FAIL", "Host": "warn"}
    assert "content-security-policy" in checks["headers"][0].finding


@needs_openssl
async def test_a_certificate_that_nobody_knows_is_refused_and_a_known_one_is_not(
    keyed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path, "gateway")
    async with page_gateway(keyed, tls_cert=cert, tls_key=key) as running:
        url = running.url.replace("http:", "https:")
        assert levels(await found(url)) == SAFE | {"TLS": "FAIL"}
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert levels(await found(url)) == SAFE | {"TLS": "ok"}


async def test_the_command_prints_json_and_exits_with_1_where_something_must_be_mended() -> None:
    async with gateway(ui=False) as running:
        result = await asyncio.to_thread(CliRunner().invoke, doctor, ["--exposed", running.url, "--json"])
    assert result.exit_code == 1
    assert {check["level"] for check in json.loads(result.stdout)} == {"ok", "warn", "FAIL"}


async def test_what_is_no_gateway_is_said() -> None:
    with pytest.raises(EngineUnavailable, match=r"does not answer: Conn.* refused"):
        await exposure.examine("http://127.0.0.1:9")
    assert CliRunner().invoke(doctor, ["--exposed", "chat.example"]).exit_code != 0
