"""What a chat begins with: the model's default, the reader's default for new chats, presets."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from web.browser import ask, wait_for_answer
from web.fake_world import model

BRIEF = {"system": "Be brief.", "temperature": 0.1, "stop": ["END"]}


def open_settings(page: Page) -> None:
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    page.keyboard.press("Control+,")
    expect(page.get_by_role("dialog", name="Chat settings")).to_be_visible()


def test_the_settings_show_what_the_default_of_the_model_is(warm, world, fake):
    world.models[:] = [model("vicuna-7b", recommended=BRIEF), model("alpaca-7b")]
    with warm.at(fake.url) as page:
        open_settings(page)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text('Default of vicuna-7b: temperature 0.1, stop words "END".')
        expect(dialog.get_by_label("System prompt")).to_have_attribute("placeholder", "Model default: Be brief.")
        page.keyboard.press("Escape")
        page.locator(".model-picker button").click()
        page.get_by_role("menuitemradio", name="alpaca-7b").or_(page.get_by_role("menuitem", name="alpaca-7b")).click()
        open_settings(page)
        expect(dialog).to_contain_text("Default of alpaca-7b: its server decides.")


def test_new_chats_begin_as_the_reader_has_set_until_they_take_it_back(warm, world, fake):
    with warm.at(fake.url) as page:
        page.locator(".model-picker button").click()
        page.get_by_role("menuitemradio", name="alpaca-7b").or_(page.get_by_role("menuitem", name="alpaca-7b")).click()
        open_settings(page)
        page.get_by_label("System prompt").fill("Speak like a pirate.")
        page.get_by_label("Temperature").fill("0.4")
        page.get_by_role("button", name="Begin new chats like this one").click()
        expect(page.get_by_role("dialog")).to_contain_text(
            "They begin with alpaca-7b, the system prompt “Speak like a pirate.”, temperature 0.4."
        )
        page.reload()
        ask(page, "Ahoy")
        wait_for_answer(page)
        chat = world.chats["c1"]
        assert (chat["model"], chat["system"], chat["settings"]) == (
            "alpaca-7b",
            "Speak like a pirate.",
            {"temperature": 0.4},
        )
        page.get_by_role("link", name="New chat").click()
        open_settings(page)
        expect(page.get_by_label("Temperature")).to_have_value("0.4")
        page.get_by_role("button", name="Back to the model's defaults").click()
        page.reload()
        ask(page, "Hello")
        wait_for_answer(page)
        newest = list(world.chats.values())[-1]
        assert (newest["system"], newest["settings"]) == ("", {})


def test_a_default_model_that_is_gone_gives_way_to_one_that_is_served(warm, world, fake):
    with warm.at(fake.url) as page:
        kept = '{"model": "gone", "settings": {"seed": 1, "odd": {}}, "system": 7}'
        page.evaluate("kept => localStorage.setItem('chaku.defaults', kept)", kept)
        page.reload()
        ask(page, "Hello")
        wait_for_answer(page)
        assert (world.chats["c1"]["model"], world.chats["c1"]["settings"]) == ("vicuna-7b", {"seed": 1})


def test_a_preset_carries_its_sampling(warm, world, fake):
    with warm.at(fake.url) as page:
        open_settings(page)
        page.get_by_label("System prompt").fill("Count slowly.")
        page.get_by_label("Top-k").fill("5")
        page.get_by_label("Name of the preset").fill("Counter")
        page.get_by_role("button", name="Keep", exact=True).click()
        page.reload()
        open_settings(page)
        page.get_by_role("button", name="Brief").click()
        expect(page.get_by_label("Top-k")).to_have_value("")  # a preset without sampling leaves it as it is
        page.get_by_role("button", name="Counter").click()
        expect(page.get_by_label("Top-k")).to_have_value("5")
        expect(page.get_by_label("System prompt")).to_have_value("Count slowly.")
