"""Arena and ratings on the page: a battle by keyboard, names only after the vote, boards on every kind of screen."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page, expect

from chaku.comparison import Comparison
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from web.browser import ask, open_page
from web.test_page_gateway import serving
from web.test_page_looks import LONG, NARROW, axe, look, pictures

__all__ = ["axe", "pictures"]

NAMES = ("zebrafish-7b", "quokka-3b", "axolotl-1b")
PROMPT = "How does attention work? With code, a table and the formula, please."
PHONE = {"viewport": NARROW, "has_touch": True, "is_mobile": True}


def write_script(folder: Path, name: str) -> str:
    replies = [
        {"match": "^How does", "text": LONG},
        {"match": "^Slowly", "text": "word " * 400, "token_delay_s": 0.02},
        {"text": "You said: {prompt}"},
    ]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"replies": replies}))
    return f"{name}=scripted:{path}"


def seed_games(folder: Path) -> None:
    """Votes of two months among four models, one of which has few."""
    chance = random.Random(7)
    strength = {"zebrafish-7b": 2.0, "quokka-3b": 1.0, "axolotl-1b": 0.5, "newcomer-13b": 1.0}
    games = []
    for i in range(400):
        a, b = chance.sample(list(strength)[: 4 if i % 20 == 0 else 3], 2)
        outcome = "tie" if i % 9 == 0 else "a" if chance.random() < strength[a] / (strength[a] + strength[b]) else "b"
        fields = {"category": ("code", "maths", "long", "multi_turn")[i % 4], "language": ("en", "es")[i % 2]}
        created = datetime(2026, 10 + i % 2, 1 + i % 28, i % 24, i % 60, i // 60, tzinfo=UTC).isoformat()
        voter = f"voter-{i % 12}"
        game = Comparison(source="human", model_a=a, model_b=b, outcome=outcome, voter=voter, created=created, **fields)
        games.append(game.model_copy(update={"prompt_id": f"p{i}", "cluster": voter, "consent": True}))
    with open_store(f"sqlite:///{folder}/chaku.db") as store:
        assert ComparisonBook(store).add(games) == 400


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arena")
    seed_games(folder)
    with serving(folder, *(write_script(folder, name) for name in NAMES)) as running:
        yield running


def watch_names(page: Page, names: tuple[str, ...]) -> list[str]:
    """What of the arena's answers has a name in it, from now on. The list of served models is everybody's."""
    found: list[str] = []

    def on_response(response) -> None:
        if "/api/arena" in response.url and "/vote" not in response.url and "stream" not in response.url:
            page.names_read = getattr(page, "names_read", 0) + 1
            text = response.text()
            found.extend(f"{response.url}: {name}" for name in names if name in text)

    page.on("requestfinished", lambda request: on_response(request.response()))
    return found


def agree(page: Page) -> None:
    if page.get_by_role("button", name="I agree: begin").count():
        page.get_by_role("button", name="I agree: begin").click()


@pytest.mark.model
def test_a_whole_battle_is_played_by_keyboard_against_the_real_engine(browser, tmp_path, smollm2_path):
    standing = {"brief-heron": "Answer in one short sentence.", "plain-otter": None}
    contestants = [
        json.dumps({"name": name, "model": "smollm2", "system": system, "sampling": {"max_tokens": 24, "seed": 7}})
        for name, system in standing.items()
    ]
    flags = [part for contestant in contestants for part in ("--contestant", contestant)]
    with serving(tmp_path, f"smollm2={smollm2_path}", *flags) as g, open_page(browser, g.url, path="/arena") as page:
        found = watch_names(page, tuple(standing))
        consent = page.get_by_role("button", name="I agree: begin")
        expect(consent).to_be_visible(timeout=60_000)
        page.keyboard.press("Tab")
        for _ in range(20):
            if consent.evaluate("button => button === document.activeElement"):
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Message", exact=True)).to_be_visible()
        page.keyboard.press("/")
        page.keyboard.type("What is the capital of France? 1 2 3 4")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="A is better")).to_be_enabled(timeout=60_000)
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        expect(page.locator(".composer .hint")).to_contain_text("Enter sends", timeout=60_000)
        page.keyboard.press("/")
        page.keyboard.type("And of Spain?")
        page.keyboard.press("Enter")
        expect(page.locator(".message.user")).to_have_count(4)
        expect(page.get_by_role("button", name="A is better")).to_be_enabled(timeout=60_000)
        expect(page.locator(".composer .hint")).to_contain_text("Enter sends", timeout=60_000)
        assert found == [] and page.names_read >= 4
        assert all(name not in page.content() for name in standing)
        page.keyboard.press("4")
        expect(page.get_by_text("You voted: B is better.")).to_be_visible()
        shown = page.locator(".revealed-name strong")
        assert sorted(shown.all_inner_texts()) == sorted(standing)
        expect(page.locator(".revealed-name").first).to_contain_text("135M parameters")
        expect(page.locator(".revealed-name").first).to_contain_text("tokens/s")
        expect(page.locator(".revealed-name").first).to_contain_text("max_tokens 24")
        page.keyboard.press("u")
        expect(page.get_by_role("status").get_by_text("The vote was taken back")).to_be_visible()
        page.keyboard.press("1")
        expect(page.get_by_text("does not count: the names had been shown before the vote")).to_be_visible()
        page.keyboard.press("n")
        expect(page.get_by_role("heading", name="Which model is better?")).to_be_visible()


def test_a_vote_stops_what_still_runs_and_a_reload_shows_the_battle_as_it_is(warm, gateway):
    with warm.at(gateway.url, "/arena") as page:
        expect(page.get_by_role("heading", name="Arena")).to_be_visible()
        expect(page.get_by_text("3 models")).to_be_visible()
        agree(page)
        ask(page, "Slowly")
        expect(page.locator(".battle-side").nth(1)).to_contain_text("word word")
        page.reload()
        expect(page.locator(".battle-side").nth(0)).to_contain_text("word word")
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="Both are bad").click()
        expect(page.get_by_text("You voted: Both are bad.")).to_be_visible()
        clear, correct = (page.get_by_role("button", name=name, exact=True) for name in ("Clear", "Correct"))
        expect(clear).to_have_attribute("aria-pressed", "true")
        correct.click()  # the reasons may follow the vote
        expect(correct).to_have_attribute("aria-pressed", "true")
        clear.click()
        expect(clear).to_have_attribute("aria-pressed", "false")
        page.reload()
        expect(page.get_by_text("You voted: Both are bad.")).to_be_visible()
        expect(correct).to_have_attribute("aria-pressed", "true")
        expect(clear).to_have_attribute("aria-pressed", "false")
        assert all(name in NAMES for name in page.locator(".revealed-name strong").all_inner_texts())


def test_digits_that_are_written_are_no_votes(warm, gateway):
    with warm.at(gateway.url, "/arena") as page:
        expect(page.get_by_role("heading", name="Arena")).to_be_visible()
        agree(page)
        ask(page, "hello")
        expect(page.get_by_role("button", name="Tie")).to_be_enabled()
        page.get_by_label("Message", exact=True).fill("")
        page.get_by_label("Message", exact=True).press_sequentially("1234")
        expect(page.get_by_label("Message", exact=True)).to_have_value("1234")
        expect(page.get_by_role("group", name="Your vote")).to_be_visible()
        page.get_by_label("Message", exact=True).fill("")


def test_the_board_shows_ranks_intervals_and_counts_and_a_cell_leads_to_its_battles(warm, gateway):
    with warm.at(gateway.url, "/leaderboard") as page:
        row = page.get_by_role("region", name="Ratings").locator("tr", has_text="zebrafish-7b")
        expect(row.locator(".interval")).to_be_visible()
        expect(page.locator("tr", has_text="newcomer-13b")).to_contain_text("collecting")
        expect(page.get_by_text("Bradley")).to_be_visible()
        page.get_by_label("Category").select_option("maths")
        expect(page.get_by_text("100 games counted")).to_be_visible()
        assert "category=maths" in page.url
        page.get_by_label("Category").select_option("")
        page.get_by_role("tab", name="Win rates").click()
        page.get_by_role("button", name="zebrafish-7b against quokka-3b").click()
        expect(page.get_by_role("dialog", name="zebrafish-7b against quokka-3b")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("tab", name="Over time").click()
        expect(page.get_by_role("cell", name="2026-10")).to_be_visible()
        page.get_by_role("tab", name="Ratings").click()
        with page.expect_download() as csv:
            page.get_by_role("button", name="CSV").click()
        rows = Path(csv.value.path()).read_text().splitlines()
        assert rows[0].startswith("model,rating,low,high") and len(rows) == 5


def test_an_operator_excludes_a_voter_with_a_reason_that_everybody_reads(warm, gateway):
    with warm.at(gateway.url, "/leaderboard?view=operator") as page:
        voters = page.get_by_role("region", name="Voters")
        expect(voters.get_by_role("button", name="Exclude…").first).to_be_visible()
        voters.get_by_role("button", name="Exclude…").first.click()
        page.get_by_label("Reason").fill("votes for a friend")
        page.get_by_role("button", name="Exclude", exact=True).click()
        expect(page.get_by_role("region", name="Exclusions")).to_contain_text("votes for a friend")
        page.get_by_role("tab", name="Ratings").click()
        expect(page.locator(".exclusions")).to_contain_text("votes for a friend")
        page.get_by_role("tab", name="Operator").click()
        page.get_by_role("button", name="Count again").click()
        expect(page.get_by_role("region", name="Exclusions")).to_contain_text("lifted")


@pytest.mark.parametrize("name", ["wide-light", "narrow-dark"])
def test_arena_and_board_fit_are_accessible_and_have_their_pictures(browser, gateway, pictures, axe, name):
    size, colours = name.split("-")
    with open_page(
        browser, gateway.url, path="/arena", color_scheme=colours, **(PHONE if size == "narrow" else {})
    ) as page:
        expect(page.get_by_role("heading", name="Arena")).to_be_visible()
        look(page, axe, pictures / f"arena-start-{name}.png")
        agree(page)
        page.get_by_label("Message", exact=True).fill(PROMPT)
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("button", name="Tie")).to_be_enabled()
        expect(page.locator(".composer .hint")).to_contain_text("Enter sends")
        expect(page.locator(".katex").first).to_be_visible()
        look(page, axe, pictures / f"arena-{name}.png")
        page.get_by_role("button", name="Tie").click()
        expect(page.get_by_text("You voted: Tie.")).to_be_visible()
        look(page, axe, pictures / f"arena-revealed-{name}.png")
        page.goto(gateway.url + "/leaderboard")
        expect(page.locator(".interval").first).to_be_visible()
        look(page, axe, pictures / f"ratings-{name}.png")
        for view in ("Win rates", "Battles", "Over time", "Operator"):
            page.get_by_role("tab", name=view).click()
            expect(page.locator("[role=tabpanel] table").first).to_be_visible()
            look(page, axe, pictures / f"ratings-{view.split()[0].lower()}-{name}.png")
