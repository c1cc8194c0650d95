"""The Evals screen: runs of this machine, live while they go, and a vote against the judge."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import expect

from chaku.cli.eval.report import report
from chaku.evals.records import Judgement, read_records, write_records
from chaku.store import keys
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from evals.made_runs import make_verdict_run
from gateways import page_gateway
from tabs import Refused, tab
from web.browser import open_page
from web.fake_page import FakePage
from web.fake_world import World


async def test_runs_are_listed_and_shown_and_a_disagreement_is_kept_unrated(database: Path, tmp_path: Path) -> None:
    make_verdict_run(tmp_path / "evals/one")
    (tmp_path / "evals/broken").mkdir()
    (tmp_path / "evals/broken/run.json").write_text("{")
    async with page_gateway(database, evals=tmp_path / "evals") as g, tab(g) as me:
        rows = {row["name"]: row for row in (await me.call("GET", "/evals"))["runs"]}
        assert rows["one"]["answers"] == [24, 24]
        assert "run.json" in rows["broken"]["error"]
        run = await me.call("GET", "/evals/one?against=one")
        assert run["pairs"][0]["wins_b"] == 7
        judgement = run["questions"][4]["judgements"][0]
        sent = {"key": judgement["key"], "outcome": "a"}
        assert (await me.call("POST", "/evals/one/disagree", sent))["kept"] == 1
        for path, body, status in (
            ("/evals/one/disagree", {"key": "none", "outcome": "a"}, 404),
            ("/evals/one/disagree", {**sent, "outcome": "c"}, 400),
            ("/evals/none/disagree", sent, 404),
        ):
            with pytest.raises(Refused) as caught:
                await me.call("POST", path, body)
            assert caught.value.status == status
        for name in ("none", "..", "%2e%2e%2fetc"):
            with pytest.raises(Refused) as caught:
                await me.call("GET", f"/evals/{name}")
            assert caught.value.status == 404
    with open_store(f"sqlite:///{database}") as store:
        [game] = ComparisonBook(store).games()
    assert (game.source, game.model_a, game.model_b, game.outcome) == ("human", "base", "tuned", "a")
    assert (game.prompt_id, game.category, game.counted) == ("4", "kind 1", False)
    assert game.voter


async def test_whoever_came_by_a_key_sees_no_evaluations(database: Path, tmp_path: Path) -> None:
    make_verdict_run(tmp_path / "one")
    with open_store(f"sqlite:///{database}") as store:
        bob = keys.create(store, "bob", now=datetime.now(UTC))
    async with page_gateway(database, evals=tmp_path) as g, tab(g) as me:
        await me.call("POST", "/login", {"key": bob.token})
        for method, path in (("GET", "/evals"), ("GET", "/evals/one"), ("POST", "/evals/one/disagree")):
            with pytest.raises(Refused) as caught:
                await me.call(method, path)
            assert caught.value.status == 403


def test_the_screen_follows_a_run_and_takes_a_disagreement(browser: Any, tmp_path: Path) -> None:
    folder = make_verdict_run(tmp_path / "evals/going")
    whole = read_records(folder / "judgements.jsonl", Judgement)
    write_records(folder / "judgements.jsonl", whole[:10])
    make_verdict_run(tmp_path / "evals/other", turned=True)
    with open_store(f"sqlite:///{tmp_path}/chaku.db") as store:
        world = World(evals=tmp_path / "evals", store=store)
        with FakePage(world).running() as fake, open_page(browser, fake.url, path="/evals") as page:
            page.get_by_role("link", name="going").click()
            facts = page.locator(".eval-facts")
            expect(facts).to_contain_text("10 of 24")
            write_records(folder / "judgements.jsonl", whole)
            expect(facts).not_to_contain_text("of 24")
            page.get_by_label("Compare with the run").select_option("other")
            page.get_by_label("differs from other").check()
            expect(page.locator(".eval-steps")).to_contain_text("1 of 10")
            page.get_by_role("button", name="it is a tie").first.click()
            expect(page.get_by_role("status").filter(has_text="Kept as your vote: it is a tie.")).to_be_visible()
        [game] = ComparisonBook(store).games()
    assert (game.outcome, game.prompt_id) == ("tie", "2")


def test_the_report_opens_from_the_disk_without_a_request_or_an_error(browser: Any, tmp_path: Path) -> None:
    run_folder = make_verdict_run(tmp_path / "now")
    result = CliRunner().invoke(report, [str(run_folder), "-o", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.output
    requests: list[str] = []
    told: list[str] = []
    with open_page(browser, "file://", path=str(tmp_path / "report.html"), watch=False) as page:
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(dialog.message))
        page.reload()
        expect(page.get_by_role("heading", name="now")).to_be_visible()
        bars = page.locator(".amount-bar")
        assert bars.count() > 2
        expect(page.locator(".amount-bar + .amount")).to_have_count(bars.count())  # its number stands beside each
        page.get_by_role("tab", name="Radar").click()
        expect(page.get_by_role("img", name=re.compile("^Scores by category"))).to_be_visible()
        # The comparison page: question, two answers, what the judge wrote, the next one.
        answer = page.get_by_role("region", name="Assistant 1", exact=True)
        expect(answer).to_contain_text("base says 0.")
        answer.get_by_role("button", name="Show more").click()
        expect(answer.get_by_role("button", name="Show less")).to_be_visible()
        expect(page.locator("mark").first).to_have_text("However, one is slightly better than the other.")
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".evaluation").first).to_contain_text("could not be read: there is no verdict in it")
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".asked")).to_contain_text("</script><script>alert(1)</script>")
        page.get_by_label("Category", exact=True).select_option("kind 0")
        expect(page.locator(".eval-steps")).to_contain_text("1 of 4")
        page.get_by_label("Judge changed its mind").check()
        expect(page.locator(".eval-steps")).to_contain_text("1 of 1")
        page.get_by_label("Result", exact=True).select_option("unread")
        expect(page.get_by_text("No question fits these filters.")).to_be_visible()
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert requests == [page.url]
    assert told == []
