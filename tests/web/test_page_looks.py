"""How the page looks and whether everyone can use it: axe, narrow screens, writing directions, a picture of each state.

The pictures are written to CHAKU_SCREENSHOTS, or the test's own folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from web import node_tools
from web.browser import ask, open_page, wait_for_answer
from web.fake_world import model

NARROW = {"width": 360, "height": 740}
LONG = (Path(__file__).parent / "long_answer.md").read_text()
PROMPT = "How does attention work? With code, a table and the formula, please."
AXE = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html).join(' | '))"""

TOO_WIDE = """() => [...document.querySelectorAll('main *')]
  .filter(e => !e.closest('pre, .table-frame, .data-table, .math, .visually-hidden'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.className || e.tagName)"""


@pytest.fixture
def pictures(tmp_path):
    folder = Path(os.environ.get("CHAKU_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def axe():
    return (node_tools.modules() / "axe-core" / "axe.min.js").read_text()


def look(page: Page, axe: str, path: Path) -> None:
    """Take a picture; nothing may stand outside of the width, and axe may find nothing serious."""
    page.wait_for_timeout(250)  # animations end
    page.screenshot(path=path)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path.name} scrolls sideways"
    assert page.evaluate(TOO_WIDE) == [], path.name
    if page.evaluate("!window.axe"):
        page.evaluate(axe)
    assert page.evaluate(AXE) == [], path.name


def talk(page: Page) -> None:
    ask(page, PROMPT)
    wait_for_answer(page)
    expect(page.locator(".katex").first).to_be_visible()
    expect(page.locator(".hljs-keyword").first).to_be_attached()


@pytest.mark.parametrize(("size", "colours"), [("wide", "light"), ("narrow", "dark")])
def test_every_state_fits_is_accessible_and_has_its_picture(browser, world, fake, pictures, axe, colours, size):
    world.say(PROMPT, LONG, reasoning="The user wants code, a table and the formula.", chunk=40)
    problem = {"message": "prompt is 9,120 tokens, vicuna-7b takes 8,192", "code": "context_length_exceeded"}
    world.say("Far too long", "", error=problem)
    world.say("Cut off", "One two three four.", limit=7)
    world.models[0]["capabilities"] = ["chat", "continue_final_message"]
    for title in ("Merging intervals in Python", "What is a vicuña?", "Trip to Cusco", "SQLite or PostgreSQL"):
        world.add_chat(title)
    world.models.append(model("llama-70b", state="loading", progress=0.42))
    options = {"viewport": NARROW, "has_touch": True, "is_mobile": True} if size == "narrow" else {}
    with open_page(browser, fake.url, color_scheme=colours, **options) as page:
        name = f"{size}-{colours}"
        look(page, axe, pictures / f"empty-{name}.png")
        if size == "wide":
            talk(page)
        else:
            page.get_by_label("Message", exact=True).fill(PROMPT)
            page.get_by_role("button", name="Send").click()
            wait_for_answer(page)
        look(page, axe, pictures / f"chat-end-{name}.png")
        page.locator(".messages").evaluate("box => box.scrollTop = 0")
        look(page, axe, pictures / f"chat-{name}.png")
        page.get_by_role("button", name="Good answer").click()
        expect(page.get_by_role("group", name="May ratings be used?")).to_be_visible()
        look(page, axe, pictures / f"consent-{name}.png")
        page.get_by_role("button", name="Yes, they may be used").click()
        page.get_by_role("button", name="Well explained").click()
        look(page, axe, pictures / f"reasons-{name}.png")
        page.get_by_role("button", name="Close the reasons").click()
        for choice in ("Show the source", "Edit this answer"):
            page.get_by_role("button", name="More actions").last.click()
            look(page, axe, pictures / f"actions-{name}.png")
            page.get_by_role("menuitem", name=choice).click()
            look(page, axe, pictures / f"{choice.split()[0].lower()}-{name}.png")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Chat settings").click()
        look(page, axe, pictures / f"settings-{name}.png")
        page.keyboard.press("Escape")
        page.locator(".model-picker button").click()
        look(page, axe, pictures / f"models-{name}.png")
        page.keyboard.press("Escape")
        page.get_by_label("Message", exact=True).fill("Far too long")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("group", name="No answer came")).to_be_visible()
        look(page, axe, pictures / f"error-{name}.png")
        page.get_by_label("Message", exact=True).fill("Cut off")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("button", name="Continue")).to_be_visible()
        look(page, axe, pictures / f"continue-{name}.png")
        if size == "narrow":
            page.get_by_role("button", name="Chats", exact=True).click()
        page.get_by_label("Search chats").fill("softmax")
        expect(page.locator(".chat-list small mark")).to_be_visible()
        look(page, axe, pictures / f"chats-{name}.png")
        page.locator(".chat-list a").first.click()
        look(page, axe, pictures / f"found-{name}.png")


def test_the_login_is_accessible_and_has_its_picture(browser, world, fake, pictures, axe):
    world.key = "ck-1"
    with open_page(browser, fake.url, viewport=NARROW) as page:
        look(page, axe, pictures / "login.png")


def test_right_to_left_and_east_asian_text_stand_as_their_readers_expect(warm, world, fake, pictures, axe):
    world.say(
        "مرحبا",
        "أهلاً وسهلاً! هذا مثال:\n\n1. أولاً\n2. ثانياً\n\n```py\nx = 1\n```\n\n**日本語**の文章も、中文也一样。한국어도.",
    )
    with warm.at(fake.url) as page:
        ask(page, "مرحبا")
        wait_for_answer(page)
        direction = "element => getComputedStyle(element).direction"
        assert page.locator(".said").evaluate(direction) == "rtl"
        assert page.locator(".prose").first.evaluate(direction) == "rtl"
        assert page.locator(".code").evaluate(direction) == "ltr"
        look(page, axe, pictures / "right-to-left.png")


def test_motion_is_left_out_for_who_asks_for_that(browser, world, fake):
    world.say("Wait", "a b c", delay_s=2)
    with open_page(browser, fake.url, reduced_motion="reduce") as page:
        ask(page, "Wait")
        expect(page.locator(".waiting span").first).to_be_visible()
        assert page.evaluate("document.getAnimations().filter(a => a.playState === 'running').length") == 0


def test_the_theme_can_be_switched_and_stays(browser, world, fake):
    with open_page(browser, fake.url, color_scheme="light") as page:
        for theme in ("system", "light"):
            page.get_by_role("button", name="More", exact=True).click()
            page.get_by_role("menuitem", name=f"Theme: {theme}").click()
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        assert page.evaluate(paper) == "rgb(26, 24, 22)"
        page.reload()
        assert page.evaluate(paper) == "rgb(26, 24, 22)"
