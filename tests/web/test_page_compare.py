"""Compare: chats side by side under one composer, at their own pace, on wide and narrow screens."""

from __future__ import annotations

import json
import subprocess

from playwright.sync_api import expect

from chaku.web.page import STATIC
from web import node_tools
from web.browser import ask, open_page, wait_for_answer, wait_until
from web.test_page_looks import LONG, NARROW, axe, look, pictures

__all__ = ["axe", "pictures"]

PROMPT = "How does attention work?"
HIGHLIGHTED = "() => [...(CSS.highlights.get('differs') ?? [])].map(range => range.toString())"


def test_one_message_goes_to_every_column_and_each_streams_by_itself(warm, world, fake):
    """A slow column holds up nobody: the other one ends, and can be asked again, while it still writes."""
    world.say_as("vicuna-7b", PROMPT, "quick", delay_s=0.0)
    world.say_as("alpaca-7b", PROMPT, "slow " * 400, delay_s=0.1)
    with warm.at(fake.url, "/compare") as page:
        columns = page.locator(".compare-column")
        expect(columns).to_have_count(2)
        ask(page, PROMPT)
        expect(columns.nth(0).locator(".facts")).to_be_visible()
        expect(columns.nth(1).locator(".answer-body")).to_contain_text("slow slow")
        expect(page.get_by_role("button", name="Stop answer 2")).to_be_visible()
        page.get_by_role("button", name="Stop answer 2").click()
        expect(columns.nth(1).locator(".facts")).to_contain_text("stopped")
        assert {body["model"] for kind, body in world.requests if kind == "message"} == {"vicuna-7b", "alpaca-7b"}
        assert page.url.endswith(f"/compare?chats={','.join(world.chats)}")
        page.get_by_role("checkbox", name="Write here").nth(1).uncheck()
        ask(page, "Only you")
        expect(columns.nth(0).locator(".message.user")).to_have_count(2)
        expect(columns.nth(1).locator(".message.user")).to_have_count(1)
        page.reload()
        expect(columns.nth(0).locator(".message.user")).to_have_count(2)
        expect(columns.nth(1).locator(".message.user")).to_have_count(1)


def test_a_choice_between_named_answers_is_sent_once_for_the_answers_it_is_about(warm, world, fake):
    with warm.at(fake.url, "/compare") as page:
        ask(page, PROMPT)
        wait_for_answer(page, 2)
        page.get_by_role("button", name="2 is best").click()
        expect(page.get_by_text("Your choice is kept.")).to_be_visible()
        page.get_by_role("button", name="Undo").click()
        page.get_by_role("button", name="2 is best").click()
        expect(page.get_by_text("Your choice is kept.")).to_be_visible()
        (vote, undone, again) = [body for kind, body in world.requests if kind == "vote"]
        assert undone == {**vote, "choice": "none", "best": None} and again == vote
        assert (vote["choice"], vote["best"], vote["is_blind"]) == ("best", 1, False)
        answers = {message["id"]: chat["id"] for chat in world.chats.values() for message in chat["messages"][1:]}
        assert {answer["message"]: answer["chat"] for answer in vote["answers"]} == answers
        ask(page, "Next")
        expect(page.get_by_role("button", name="2 is best")).to_be_visible()


def test_names_can_be_hidden_and_a_column_added_and_taken_away(warm, world, fake):
    with warm.at(fake.url, "/compare?models=alpaca-7b,vicuna-7b") as page:
        ask(page, PROMPT)
        wait_for_answer(page, 2)
        expect(page.get_by_role("button", name="Model: alpaca-7b")).to_be_visible()
        page.get_by_role("switch", name="Hide names").check()
        expect(page.get_by_role("heading", name="Model 2")).to_be_visible()
        assert "7b" not in page.locator("main").inner_html()
        page.get_by_role("switch", name="Hide names").uncheck()
        page.get_by_role("button", name="Add a column").click()
        page.get_by_role("button", name="Add a column").click()
        expect(page.locator(".compare-column")).to_have_count(4)
        expect(page.get_by_role("button", name="Add a column")).to_be_disabled()
        page.get_by_role("button", name="Remove column 3").click()
        expect(page.locator(".compare-column")).to_have_count(3)


def test_differences_are_marked_and_columns_scroll_together(warm, world, fake):
    body = "\n\n".join(f"paragraph {i}" for i in range(80))
    world.say_as("vicuna-7b", PROMPT, f"The **red** fox runs\n\n{body}")
    world.say_as("alpaca-7b", PROMPT, f"The brown fox runs home\n\n{body}")
    with warm.at(fake.url, "/compare") as page:
        ask(page, PROMPT)
        wait_for_answer(page, 2)
        page.get_by_role("switch", name="Mark differences").check()
        wait_until(page, f"() => ({HIGHLIGHTED})().length === 3")
        assert page.evaluate(HIGHLIGHTED) == ["red", "brown", "home"]
        expect(page.get_by_text("2 of 165 words of answer 2 are not in answer 1.")).to_be_visible()
        boxes = page.locator(".messages")
        boxes.nth(0).hover()
        page.mouse.wheel(0, -600)
        # In shares of their lengths: a browser estimates the heights of what it has not drawn.
        share = "box => box.scrollTop / (box.scrollHeight - box.clientHeight)"
        gap = f"boxes => Math.abs(({share})(boxes[0]) - ({share})(boxes[1]))"
        wait_until(page, "() => document.querySelector('.messages').scrollTop > 0")
        wait_until(page, f"() => ({gap})([...document.querySelectorAll('.messages')]) < 0.02")
        page.get_by_role("switch", name="Scroll together").uncheck()
        boxes.nth(0).hover()
        page.mouse.wheel(0, -400)
        wait_until(page, f"() => ({gap})([...document.querySelectorAll('.messages')]) > 0.06")


def test_compare_fits_wide_and_narrow_screens(browser, world, fake, pictures, axe):
    world.say_as("vicuna-7b", PROMPT, LONG, chunk=100)
    world.say_as("alpaca-7b", PROMPT, LONG.replace("the", "a"), chunk=100)
    for name, options in {
        "wide-light": {"color_scheme": "light"},
        "wide-dark": {"color_scheme": "dark"},
        "narrow-dark": {"color_scheme": "dark", "viewport": NARROW, "has_touch": True, "is_mobile": True},
    }.items():
        with open_page(browser, fake.url, path="/compare", **options) as page:
            look(page, axe, pictures / f"compare-empty-{name}.png")
            page.get_by_label("Message", exact=True).fill(PROMPT)
            page.get_by_role("button", name="Send").click()
            wait_for_answer(page, 1 if "narrow" in name else 2)
            if "wide" in name:
                page.get_by_role("switch", name="Mark differences").check()
                expect(page.locator(".differences")).to_be_visible()
            else:
                page.get_by_role("tab").nth(1).click()
                expect(page.get_by_role("region", name="Column 2")).to_be_visible()
                expect(page.locator(".compare-column")).to_have_count(1)
                expect(page.locator(".facts")).to_contain_text("alpaca-7b")
            look(page, axe, pictures / f"compare-{name}.png")


def test_words_that_differ_are_those_outside_of_a_longest_common_subsequence():
    cases = [
        [["a", "b", "c"], ["a", "x", "c"], [1], [1]],
        [[], ["a"], [], [0]],
        [["a", "b"], ["b", "a"], [0], [1]],
        [["same"] * 5, ["same"] * 5, [], []],
    ]
    script = (
        f"import {{differentWords}} from {json.dumps((STATIC / 'compare' / 'word_diff.js').as_uri())};"
        f"console.log(JSON.stringify({json.dumps(cases)}.map(([a, b]) => differentWords(a, b))))"
    )
    command = [*node_tools.node(), "--input-type=module", "-e", script]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)
    assert found == [{"first": first, "second": second} for _, _, first, second in cases]
