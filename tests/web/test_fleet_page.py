"""The page's view of the workers: for the local user and admins, and live in a browser."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chaku.store import audit, keys
from chaku.store.database import open_store
from gateways import chat, page_gateway
from tabs import Refused, tab
from waiting import soon
from web.browser import open_page
from web.fake_fleet import request_row, worker_row
from web.test_page_looks import NARROW, axe, look, pictures
from workers import worker_here

__all__ = ["axe", "pictures"]


@pytest.mark.parametrize(("scopes", "is_shown"), [({"infer", "page"}, False), ({"admin"}, True)])
async def test_workers_are_shown_to_admins_alone(database: Path, scopes: set[str], is_shown: bool) -> None:
    with open_store(f"sqlite:///{database}") as store:
        key = keys.create(store, "bob", now=datetime.now(UTC), scopes=scopes)
    async with page_gateway(database) as g, tab(g) as me:
        await me.call("POST", "/login", {"key": key.token})
        assert (await me.call("GET", "/session"))["sees_fleet"] is is_shown
        for method, path, if_shown in (
            ("GET", "/fleet", 200),
            ("POST", "/fleet/w/drain", 404),
            ("GET", "/fleet/w/logs", 404),
        ):
            assert (await me.raw(method, f"/api{path}"))[0] == (if_shown if is_shown else 403)


async def test_a_key_that_may_not_log_in_does_not(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        scopes = ("infer", "join", "metrics")
        tokens = [keys.create(store, scope, now=datetime.now(UTC), scopes={scope}).token for scope in scopes]
    async with page_gateway(database) as g, tab(g) as me:
        for token in tokens:
            with pytest.raises(Refused) as caught:
                await me.call("POST", "/login", {"key": token})
            assert caught.value.status == 403


async def test_the_local_user_sees_workers_and_requests_without_contents(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me, worker_here(g.url):
        await soon(lambda: [row["state"] for row in g.serving.fleet.rows()] == ["ready"])  # type: ignore[union-attr]
        assert (await g.post("/v1/chat/completions", chat("a secret") | {"model": "m"}))[0] == 200
        told = await me.call("GET", "/fleet")
        assert set(told["workers"][0]) == set(worker_row("w"))
        (request,) = told["requests"]
        assert set(request) == set(request_row(0))
        assert (request["model"], request["workers"], request["status"]) == ("m", ["w"], 200)
        assert "secret" not in str(told)
        async with g.http.get(g.url + "/metrics") as response:
            metrics = await response.text()
        assert 'chaku_worker_state{state="ready",worker="w"} 1.0' in metrics
        assert 'chaku_worker_slots{worker="w"} 4.0' in metrics
        assert (await g.post("/fleet/workers/w/reload", {}))[0] == 202
        await me.call("POST", "/fleet/w/drain")
    with open_store(f"sqlite:///{database}") as store:
        written = {(entry.via, entry.actor, entry.action, entry.subject) for entry in audit.entries(store)}
    assert written == {("api", "local", "workers.reload", "w"), ("page", "local", "workers.drain", "w")}


def test_the_fleet_screen_lists_steers_and_shows_logs(browser, world, fake) -> None:
    world.fleet.workers = [worker_row("gpu-1"), worker_row("gpu-2", "suspect", detail="no beat for 4 s")]
    world.fleet.finished = [request_row(n) for n in range(3)]
    with open_page(browser, fake.url, path="/workers") as page:
        rows = page.get_by_role("region", name="Workers").locator("tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.nth(1)).to_contain_text("no beat for 4 s")
        expect(page.get_by_role("region", name="Last requests")).to_contain_text("gpu-1 → gpu-2")
        expect(page.get_by_text(f"chaku worker smollm2-135m --join {fake.url}")).to_be_visible()
        page.get_by_role("button", name="Drain gpu-1").click()
        expect(page.get_by_text("gpu-1 drains, then ends")).to_be_visible()
        page.get_by_role("button", name="Log of gpu-2").click()
        expect(page.get_by_role("dialog")).to_contain_text("<b>answered</b>")
        page.keyboard.press("Escape")
        assert world.fleet.told == [("drain", "gpu-1"), ("logs", "gpu-2")]
        world.fleet.workers = []
        expect(page.get_by_text("No worker has joined.")).to_be_visible()


@pytest.mark.parametrize(("size", "colours"), [("wide", "light"), ("narrow", "dark")])
def test_the_fleet_screen_fits_and_is_accessible(browser, world, fake, pictures, axe, size, colours) -> None:
    world.fleet.workers = [worker_row("gpu-1"), worker_row("gpu-2", "gone", detail="no beat for 6 s")]
    world.fleet.finished = [request_row(n) for n in range(3)]
    options = {"viewport": NARROW, "has_touch": True, "is_mobile": True} if size == "narrow" else {}
    with open_page(browser, fake.url, color_scheme=colours, **options) as page:
        assert isinstance(page, Page)
        page.goto(fake.url + "/workers")
        expect(page.locator("tbody tr").first).to_be_visible()
        look(page, axe, pictures / f"fleet-{size}-{colours}.png")
