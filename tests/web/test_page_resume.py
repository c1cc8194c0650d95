"""What is said survives the page: reload in mid-answer, a server that is gone for a while, two tabs."""

from __future__ import annotations

import contextlib
import re

from playwright.sync_api import expect

from web.browser import ask, follow, open_page, wait_for_answer
from web.cable import Cable
from web.fake_page import FakePage
from web.fake_world import model

NUMBERS = " ".join(map(str, range(400)))


def test_a_reload_in_mid_answer_loses_nothing_and_the_answer_goes_on(warm, world, fake):
    world.say("Count", NUMBERS, delay_s=0.005)
    with warm.at(fake.url) as page:
        ask(page, "Count")
        expect(page.locator(".answer-body")).to_contain_text("18 19 20")
        page.reload()
        expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
        wait_for_answer(page)
        assert page.locator(".answer-body").inner_text().strip() == NUMBERS


def test_a_lost_connection_is_taken_up_where_it_broke_off(browser, world, fake):
    world.say("Count", NUMBERS, delay_s=0.01)
    port = int(fake.url.rsplit(":", 1)[1])
    with Cable(port).running() as cable, open_page(browser, cable.url, watch=False) as page:
        ask(page, "Count")
        expect(page.locator(".answer-body")).to_contain_text("18 19 20")
        cable.pull()
        expect(page.locator(".offline")).to_be_visible()
        expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
        cable.plug_in()
        wait_for_answer(page)
        assert page.locator(".answer-body").inner_text().strip() == NUMBERS


def test_a_server_that_comes_back_finds_the_page_waiting_with_all_that_was_said(browser, world):
    world.say("Count", NUMBERS, delay_s=0.02)
    with contextlib.ExitStack() as stack:
        with FakePage(world).running() as first:
            page = stack.enter_context(open_page(browser, first.url, watch=False))
            ask(page, "Count")
            expect(page.locator(".answer-body")).to_contain_text("18 19 20")
        expect(page.get_by_text(re.compile("Connection lost|does not answer")).first).to_be_visible()
        expect(page.locator(".answer-body")).to_contain_text("18 19 20")
        with FakePage(world).running(port=int(first.url.rsplit(":", 1)[1])):
            card = page.get_by_role("group", name="The answer broke off")
            expect(card).to_contain_text("the gateway was restarted", timeout=15_000)
            expect(page.locator(".answer-body")).to_contain_text("18 19 20")
            expect(page.locator(".offline")).to_have_count(0)
            world.say("Count", "Whole.")
            card.get_by_role("button", name="Try again").click()
            expect(page.locator(".answer-body")).to_have_text("Whole.")
            page.context.close()


def test_a_page_opened_while_the_server_is_gone_says_so(browser, world, fake):
    with open_page(browser, fake.url, watch=False) as page:
        page.route("**/api/**", lambda route: route.abort())
        page.reload()
        card = page.get_by_role("group", name="The page can't start")
        expect(card).to_contain_text("does not answer")
        page.unroute("**/api/**")
        card.get_by_role("button", name="Try again").click()
        expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_two_tabs_see_the_same(browser, world, fake):
    world.say("Count", NUMBERS, delay_s=0.005)
    with open_page(browser, fake.url) as one:
        two = one.context.new_page()
        seen = follow(two, fake.url)
        ask(one, "Hello")
        wait_for_answer(one)
        two.goto(one.url)
        expect(two.locator(".answer-body")).to_have_text("You said: Hello")
        ask(one, "Count")
        expect(two.locator(".answer-body").last).to_contain_text("18 19 20")  # while it is being written
        two.get_by_role("button", name="Stop the answer").click()
        expect(one.locator(".facts").last).to_contain_text("stopped")
        two.get_by_role("button", name="Model: vicuna-7b").click()
        two.get_by_role("menuitemradio", name="alpaca-7b").click()
        expect(one.locator(".model-picker")).to_contain_text("alpaca-7b")
        ask(two, "Third")
        wait_for_answer(two, 3)
        wait_for_answer(one, 3)
        assert one.locator(".answer-body").all_text_contents() == two.locator(".answer-body").all_text_contents()
        one.get_by_role("button", name="What to do with").click()
        one.get_by_role("menuitem", name="Delete").click()
        expect(two.locator(".toast")).to_have_text(re.compile("^This chat was deleted"))
        expect(two).to_have_url(fake.url + "/")
        expect(one.locator(".toast")).to_contain_text("“Hello” deleted")
        seen.assert_clean()


def test_all_tabs_hear_the_server_over_one_connection_which_the_next_tab_takes_over(browser, world, fake):
    world.add_chat("First")
    with open_page(browser, fake.url) as one:
        expect(one.get_by_role("link", name="First")).to_be_visible()
        two = one.context.new_page()
        two.goto(fake.url)
        expect(two.get_by_role("link", name="First")).to_be_visible()
        fake.announce({"type": "models", "models": [model("vicuna-7b", state="loading", progress=0.5)]})
        for tab in (one, two):
            expect(tab.locator(".model-picker")).to_contain_text("loading 50 %")
        assert len(fake._listeners) == 1
        one.close()
        two.wait_for_timeout(300)
        fake.announce({"type": "models", "models": [model("vicuna-7b", waiting=2)]})
        expect(two.locator(".model-picker")).to_contain_text("busy, 2 in line")
