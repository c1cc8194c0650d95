"""What is done with single messages on the page: continued, rated, rewritten, deleted, linked to, read as source."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page, expect

from web.browser import ask, open_page, wait_for_answer
from web.fake_world import World

CONTINUES = ["chat", "continue_final_message"]


def more(page: Page, number: int, choice: str) -> None:
    """Choose from the menu of a message, by mouse."""
    message = page.locator(".message").nth(number)
    message.hover()
    message.get_by_role("button", name="More actions").click()
    page.get_by_role("menuitem", name=choice).click()


def old_chat(world: World) -> str:
    pairs = [("user", "one"), ("assistant", "first *answer*"), ("user", "two"), ("assistant", "second")]
    return world.add_chat("Old", pairs)


def test_an_answer_at_its_token_limit_is_continued_in_the_same_message(warm, world, fake):
    world.models[0]["capabilities"] = CONTINUES
    world.say("Count", "one two three four five six", limit=13)
    with warm.at(fake.url) as page:
        ask(page, "Count")
        wait_for_answer(page)
        expect(page.locator(".answer-body")).to_have_text("one two three")
        expect(page.locator(".facts")).to_contain_text("stopped at the token limit")
        expect(page.locator(".continue")).to_contain_text("reached its token limit")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator(".answer-body")).to_have_text("one two three four five six")
        expect(page.locator(".continue")).to_have_count(0)
        assert world.requests[-1] == ("continue", {"model": "vicuna-7b", "settings": {}})
        page.reload()
        expect(page.locator(".answer-body")).to_have_text("one two three four five six")
        expect(page.locator(".message")).to_have_count(2)


def test_a_stopped_answer_goes_on_and_other_tabs_see_it(browser, world, fake):
    world.models[0]["capabilities"] = CONTINUES
    text = " ".join(map(str, range(60)))
    world.say("Count", text, delay_s=0.02)
    with open_page(browser, fake.url) as page:
        ask(page, "Count")
        expect(page.locator(".answer-body")).to_contain_text("5 6 7")
        page.get_by_role("button", name="Stop the answer").click()
        expect(page.locator(".continue")).to_contain_text("was stopped")
        other = page.context.new_page()
        other.goto(page.url)
        expect(other.locator(".continue")).to_be_visible()
        page.get_by_role("button", name="Continue").focus()
        page.keyboard.press("Enter")
        for tab in (page, other):
            expect(tab.locator(".answer-body")).to_have_text(text)
            expect(tab.locator(".continue")).to_have_count(0)


def test_a_model_that_can_not_continue_is_named_and_no_button_promises_it(warm, world, fake):
    world.models[0]["capabilities"] = ["chat"]
    world.say("Count", "one two three", limit=7)
    with warm.at(fake.url) as page:
        ask(page, "Count")
        expect(page.locator(".continue")).to_contain_text("vicuna-7b can't continue an answer")
        expect(page.get_by_role("button", name="Continue")).to_have_count(0)


def test_the_first_thumb_asks_for_consent_and_later_ones_do_not(warm, world, fake):
    chat = old_chat(world)
    first, second = (m for m in world.chats[chat]["messages"] if m["role"] == "assistant")
    with warm.at(fake.url, f"/chat/{chat}") as page:
        good = page.get_by_role("button", name="Good answer")
        good.first.click()
        asked = page.get_by_role("group", name="May ratings be used?")
        expect(asked.get_by_role("button", name="Yes, they may be used")).to_be_focused()
        assert first["feedback"] is None
        asked.get_by_role("button", name="No, keep them for me").click()
        expect(good.first).to_have_attribute("aria-pressed", "true")
        assert (first["feedback"]["value"], first["feedback"]["consent"]) == ("up", False)
        page.get_by_role("button", name="Bad answer").last.click()
        reasons = page.get_by_role("group", name="Reasons").last
        reasons.get_by_role("button", name="Too long").click()
        expect(reasons.get_by_role("button", name="Too long")).to_have_attribute("aria-pressed", "true")
        with page.expect_response("**/feedback"):
            reasons.get_by_label("Another reason").fill("2 + 2 is 4")
            page.keyboard.press("Enter")
        with page.expect_response("**/feedback"):
            reasons.get_by_label("My ratings may be used").click()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Good answer").last).to_be_focused()
        expect(page.get_by_role("group", name="Reasons")).to_have_count(1)
        page.reload()
        expect(page.get_by_role("button", name="Bad answer").last).to_have_attribute("aria-pressed", "true")
        told = second["feedback"]
        assert (told["value"], told["reasons"], told["consent"]) == ("down", ["Too long", "2 + 2 is 4"], True)
        page.get_by_role("button", name="Bad answer").last.click()  # once more takes it back
        expect(page.get_by_role("button", name="Bad answer").last).to_have_attribute("aria-pressed", "false")
        assert second["feedback"] is None


def test_an_answer_can_be_rewritten_and_the_old_version_stays(warm, world, fake):
    chat = old_chat(world)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        more(page, 1, "Edit this answer")
        field = page.get_by_label("Edit the answer")
        expect(field).to_have_value("first *answer*")
        expect(page.locator(".editor")).to_contain_text("the old one stays, with what follows it")
        field.fill("Better\n\n**so**")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".answer-body strong")).to_have_text("so")
        expect(page.locator(".facts")).to_contain_text("edited")
        expect(page.locator(".message")).to_have_count(2)
        assert world.requests == []  # no model was asked
        page.get_by_role("button", name="Previous version").click()
        expect(page.locator(".message")).to_have_count(4)


def test_a_deleted_message_takes_what_follows_says_so_and_comes_back(warm, world, fake):
    chat = old_chat(world)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        more(page, 2, "Delete this message and the message after it")
        expect(page.locator(".message")).to_have_count(2)
        expect(page.get_by_label("Message", exact=True)).to_be_focused()
        expect(page.locator(".toast")).to_contain_text("Message and the message after it deleted")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".message")).to_have_count(4)
        expect(page.locator(".answer-body").last).to_have_text("second")


def test_the_source_of_an_answer_is_shown_as_it_was_written(warm, world, fake):
    chat = old_chat(world)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        more(page, 1, "Show the source")
        source = page.get_by_role("region", name="Source of the answer")
        expect(source).to_have_text("first *answer*")
        expect(source).to_be_focused()
        more(page, 1, "Show it formatted")
        expect(page.locator(".answer-body em")).to_have_text("answer")


def test_times_are_relative_and_whole_when_asked(warm, world, fake):
    chat = old_chat(world)
    messages = world.chats[chat]["messages"]
    now = datetime.now(UTC)
    ages = (timedelta(days=30), timedelta(hours=49), timedelta(minutes=5, seconds=2), timedelta())
    for message, age in zip(messages, ages, strict=True):
        message["created_at"] = (now - age).isoformat()
    with warm.at(fake.url, f"/chat/{chat}") as page:
        times = page.locator("time")
        expect(times.nth(0)).to_have_text(re.compile(r"^\w+ \d+, \d{4} · "))
        expect(times.nth(1)).to_have_text(re.compile("^[23] days ago · "))
        expect(times.nth(2)).to_have_text(re.compile("^[567] minutes ago · "))
        expect(times.nth(3)).to_have_text(re.compile("^(just now|1 minute ago) · "))
        width = "element => element.getBoundingClientRect().width"
        before = times.nth(3).evaluate(width)
        times.nth(3).focus()
        assert times.nth(3).evaluate(width) > before + 50
