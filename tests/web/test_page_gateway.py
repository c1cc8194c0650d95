"""The page on the real gateway, `chaku serve` as a process: scripted engine, `kill -9`, keys, the 135M model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import expect

from chaku.store import keys
from chaku.store.database import open_store
from processes import PATIENCE_S, environment
from web.browser import ask, open_page, wait_for_answer
from web.cable import Cable

SCRIPT = """
replies:
  - match: ^Count$
    text: {numbers}
    token_delay_s: 0.02
  - match: ^Refuse$
    text: never
    fault: refuse
  - match: ^Think$
    reasoning: Let me see what x squared is.
    text: "It is $x^2$, in `code` and **bold**."
  - text: "You said: {{prompt}}"
"""
NUMBERS = " ".join(map(str, range(150)))


@dataclass
class Gateway:
    """A running `chaku serve`."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@contextlib.contextmanager
def serving(folder: Path, *models: str, port: int = 0) -> Iterator[Gateway]:
    """`chaku serve` with its data in `folder`, until the block ends or it was killed."""
    readable, writable = os.pipe()
    arguments = [
        *models,
        "--port",
        str(port),
        "--database",
        f"sqlite:///{folder}/chaku.db",
        "--ready-fd",
        str(writable),
    ]
    command = [sys.executable, "-m", "chaku", "serve", *arguments]
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment(), pass_fds=[writable], stderr=log)
    os.close(writable)
    try:
        with os.fdopen(readable) as ready:
            line = ready.readline()
        assert line, (folder / "serve.log").read_text()
        yield Gateway(process, json.loads(line)["url"])
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def scripted(tmp_path):
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT.format(numbers=NUMBERS))
    return f"talker=scripted:{script}"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """With two models of one script."""
    folder = tmp_path_factory.mktemp("gateway")
    script = folder / "script.yaml"
    script.write_text(SCRIPT.format(numbers=NUMBERS))
    with serving(folder, f"talker=scripted:{script}", f"second=scripted:{script}") as running:
        yield running


def test_a_chat_over_the_real_gateway_is_kept_branched_and_found_again(warm, gateway):
    with warm.at(gateway.url) as page:
        ask(page, "Think")
        wait_for_answer(page)
        expect(page.locator(".answer-body strong")).to_have_text("bold")
        expect(page.locator(".katex")).to_be_visible()
        expect(page.locator(".reasoning summary")).to_have_text("Thoughts")
        expect(page.locator(".facts")).to_contain_text("talker · ")
        expect(page.locator(".facts")).to_contain_text("first token")
        ask(page, "Refuse")
        expect(page.get_by_role("group", name="No answer came")).to_contain_text("failed, as its script says")
        page.locator(".message.user").last.hover()
        page.get_by_role("button", name="Edit").last.click()
        page.get_by_label("Edit the message").fill("Rather this")
        page.keyboard.press("Enter")
        expect(page.locator(".answer-body").last).to_have_text("You said: Rather this")
        page.get_by_role("button", name="Answer again with another model").last.click()
        page.get_by_role("menuitem", name="second").click()
        expect(page.locator(".facts").last).to_contain_text("second · ")
        page.reload()
        expect(page.locator(".facts").last).to_contain_text("second · ")
        expect(page.locator(".siblings")).to_have_text(["2 / 2", "2 / 2"])
        page.get_by_role("link", name="New chat").click()
        page.get_by_label("Search chats").fill("rather")
        expect(page.locator(".chat-list small")).to_contain_text("Rather this")
        page.get_by_role("link", name="Think").click()
        expect(page.locator(".message")).to_have_count(4)


def test_a_page_whose_connection_broke_hears_what_it_missed_and_fetches_nothing_again(browser, gateway):
    def create(page, title):
        chats, changes = f"{gateway.url}/api/chats", {"headers": {"X-Chaku": "1"}}
        created = page.context.request.post(chats, data={}, **changes).json()
        named = page.context.request.patch(f"{chats}/{created['id']}", data={"title": title}, **changes)
        assert named.ok, named.text()

    with Cable(gateway.port).running() as cable, open_page(browser, cable.url, watch=False) as page:
        for title in ("Fetched", "Heard"):  # the second can only have come as an event
            create(page, title)
            expect(page.get_by_role("link", name=title)).to_be_visible()
        cable.pull()
        expect(page.locator(".offline")).to_be_visible()
        create(page, "Missed")
        asked = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(cable.url)))
        cable.plug_in()
        expect(page.get_by_role("link", name="Missed")).to_be_visible(timeout=30_000)
        expect(page.locator(".offline")).to_have_count(0)
        assert asked
        assert all(path.startswith("/api/events?after=") for path in asked), asked


def test_a_gateway_that_is_killed_and_comes_back_has_kept_what_was_said(browser, tmp_path, scripted):
    with contextlib.ExitStack() as stack:
        with serving(tmp_path, scripted) as first:
            page = stack.enter_context(open_page(browser, first.url, watch=False))
            ask(page, "Count")
            expect(page.locator(".answer-body")).to_contain_text("78 79 80")
            first.process.kill()
            expect(page.get_by_text("Connection lost").first).to_be_visible()
        with serving(tmp_path, scripted, port=first.port):
            card = page.get_by_role("group", name="The answer broke off")
            expect(card).to_contain_text("restarted", timeout=30_000)
            expect(page.locator(".answer-body")).to_contain_text("0 1 2 3")
            expect(page.locator(".offline")).to_have_count(0)
            page.get_by_role("button", name="Answer again").click()
            expect(page.locator(".answer-body")).to_have_text(NUMBERS, timeout=15_000)
            page.context.close()


def test_each_key_has_its_own_chats(warm, database, tmp_path, scripted):
    with open_store(f"sqlite:///{database}") as store:
        tokens = {name: keys.create(store, name, now=datetime.now(UTC)).token for name in ("ana", "ben")}
    with serving(tmp_path, scripted) as g:
        for name, token in tokens.items():
            with warm.at(g.url) as page:
                page.get_by_label("API key").fill(token)
                page.keyboard.press("Enter")
                expect(page.get_by_text("Your chats will be listed here.")).to_be_visible()
                ask(page, f"Secret of {name}")
                wait_for_answer(page)
                expect(page.locator(".chat-list li")).to_have_count(1)
                page.get_by_role("button", name="More", exact=True).click()
                page.get_by_role("menuitem", name="Log out").click()
                expect(page.get_by_label("API key")).to_be_visible()


@pytest.mark.model
def test_the_real_model_answers_on_the_page(browser, tmp_path, smollm2_path):
    with serving(tmp_path, f"smollm2={smollm2_path}") as g, open_page(browser, g.url) as page:
        page.get_by_role("button", name="Chat settings").click()
        page.get_by_label("Temperature").fill("0")
        page.get_by_label("Longest answer").fill("40")
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator(".composer .hint")).to_contain_text("Enter sends", timeout=60_000)
        ask(page, "What is the capital of France?")
        expect(page.locator(".facts")).to_contain_text("tokens", timeout=60_000)
        assert re.search(r"\w{2,}", page.locator(".answer-body").inner_text())
        expect(page.locator(".facts")).to_contain_text("tokens/s")
