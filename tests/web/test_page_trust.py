"""What a person wrote or chose is never lost or hidden."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from web.browser import LONG_TASKS, ask, longest_task_ms, open_page, wait_for_answer
from web.fake_world import World

SEEN = """element => { const box = element.getBoundingClientRect(); const points = [[.5, .5], [.1, .2], [.9, .8]];
  return points.every(([x, y]) => element.contains(
    document.elementFromPoint(box.left + x * box.width, box.top + y * box.height))) }"""
"""Whether an element is really to be seen: nothing clips or covers it."""

FROM_END = """(({scrollTop, scrollHeight, clientHeight}) => scrollHeight - scrollTop - clientHeight)(
  document.querySelector('.messages'))"""

PASTE = """([selector, text]) => { const data = new DataTransfer(); data.setData('text/plain', text);
  document.querySelector(selector).dispatchEvent(
    new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})) }"""


def long_chat(world: World, num: int = 12) -> str:
    pairs = [("user" if i % 2 == 0 else "assistant", f"message {i}\n\n" + "words " * 60) for i in range(num)]
    return world.add_chat("Long", pairs)


def test_every_menu_opens_where_it_can_be_seen(warm, world, fake):
    for i in range(20):
        world.add_chat(f"Chat {i}")
    chat = long_chat(world)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        again = page.get_by_role("button", name="Answer again with another model")
        expect(again).to_have_count(6)
        rows = page.locator(".chat-list li")
        for opener in (*again.all(), rows.first.locator(".menu-button"), rows.last.locator(".menu-button")):
            opener.scroll_into_view_if_needed()
            opener.hover()
            opener.click()
            for item in page.locator(".menu-list button").all():
                assert item.evaluate(SEEN)
            page.keyboard.press("Escape")
            expect(page.locator(".menu-list")).to_have_count(0)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_primary_button_keeps_its_label_when_it_is_pointed_at(browser, world, fake, colours):
    chat = world.add_chat("Old", [("user", "one"), ("assistant", "two")])
    with open_page(browser, fake.url, path=f"/chat/{chat}", color_scheme=colours) as page:
        page.locator(".message.user").hover()
        page.get_by_role("button", name="Edit").click()
        button = page.get_by_role("button", name="Send", exact=True).first
        paint = "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
        before = button.evaluate(paint)
        button.hover()
        assert button.evaluate(paint) == before and before[0] != before[1]


def test_export_all_asks_for_every_branch(warm, world, fake):
    with warm.at(fake.url) as page:
        page.get_by_role("button", name="More", exact=True).click()
        with page.expect_download():
            page.get_by_role("menuitem", name="Export all chats").click()
    assert ("export", {"all": "1"}) in world.requests


def test_a_paste_that_is_hard_to_quote_is_sent_and_the_composer_lives(warm, world, fake):
    with warm.at(fake.url) as page:
        expect(page.get_by_label("Message", exact=True)).to_be_visible()
        page.evaluate(PASTE, [".composer textarea", "`" * 150_000])
        expect(page.locator(".attachments li")).to_have_text(re.compile("pasted-1.txt"))
        ask(page, "What is it?")
        wait_for_answer(page)
        file, text = world.requests[-1][1]["content"]
        assert (file["text"].count("`"), text["text"]) == (150_000 + 2 * 150_001, "What is it?")
        (chat,) = world.chats.values()
        assert chat["title"] == "What is it?"
        expect(page.locator(".message.user .attachments")).to_contain_text("pasted-1.txt")


def test_a_paste_over_the_limit_is_refused_aloud_and_nothing_is_lost(warm, world, fake):
    with warm.at(fake.url) as page:
        page.get_by_label("Message", exact=True).fill("Mine")
        page.evaluate(PASTE, [".composer textarea", "x" * 1_000_001])
        expect(page.locator(".toast")).to_contain_text("1,000,001 bytes; a text may have 1,000,000")
        expect(page.get_by_label("Message", exact=True)).to_have_value("Mine")


def test_drafts_outlive_another_chat_a_reload_and_a_new_chat(warm, world, fake):
    world.add_chat("One")
    world.add_chat("Two")
    with warm.at(fake.url) as page:
        field = page.get_by_label("Message", exact=True)
        field.fill("new draft")
        page.evaluate(PASTE, [".composer textarea", "y" * 7_000])
        page.get_by_role("link", name="One", exact=True).click()
        expect(field).to_have_value("")
        field.fill("draft of one")
        page.get_by_role("link", name="Two", exact=True).click()
        expect(field).to_have_value("")
        page.get_by_role("link", name="One", exact=True).click()
        expect(field).to_have_value("draft of one")
        page.reload()
        expect(field).to_have_value("draft of one")
        page.keyboard.press("Control+Shift+O")
        expect(field).to_have_value("new draft")
        expect(page.locator(".attachments li")).to_have_count(1)
        page.keyboard.press("Control+Shift+O")
        expect(field).to_have_value("new draft")
        ask(page, "sent")
        wait_for_answer(page)
        page.reload()
        expect(field).to_have_value("")
        page.get_by_role("link", name="New chat").click()
        expect(field).to_have_value("")


def test_a_reload_while_a_message_is_under_way_brings_it_back(warm, world, fake):
    chat = world.add_chat("Old", [("user", "one"), ("assistant", "two")])
    with warm.at(fake.url, f"/chat/{chat}") as page:
        page.route("**/messages", lambda route: None)
        ask(page, "precious")
        expect(page.get_by_label("Message", exact=True)).to_have_value("")
        page.get_by_label("Message", exact=True).press_sequentially("more")
        page.reload()
        expect(page.get_by_label("Message", exact=True)).to_have_value("precious\n\nmore")


def test_odd_records_break_neither_the_chat_nor_its_settings(warm, world, fake):
    chat = world.add_chat("Odd", [("user", "one"), ("assistant", "two")], settings={"stop": "END", "top_p": {"a": 1}})
    _, answer = world.chats[chat]["messages"]
    parent = answer["id"]
    odd = [
        ("user", [{"type": "image_url"}, {"type": "text", "text": "three"}], {}),
        ("assistant", "four", {"usage": "much", "timings": {"tokens_per_s": "fast"}}),
        ("user", 17, {}),
        ("assistant", "six", {}),
    ]
    for role, content, more in odd:
        parent = world.new_message(world.chats[chat], parent, role, content, **more)["id"]
    with warm.at(fake.url, f"/chat/{chat}") as page:
        expect(page.locator(".answer-body", has_text="six")).to_be_visible()
        expect(page.locator(".said", has_text="three")).to_be_visible()
        expect(page.get_by_role("group", name="This message can't be shown")).to_have_count(1)
        page.get_by_role("button", name="Chat settings").click()
        expect(page.get_by_label("Stop words")).to_have_value("END")
        page.keyboard.press("Escape")
        ask(page, "seven")
        expect(page.locator(".answer-body", has_text="You said: seven")).to_be_visible()


def test_who_scrolls_up_while_an_answer_is_written_stays_there(warm, world, fake):
    chat = long_chat(world)
    world.say("Go", "line of words\n\n" * 600, chunk=15, delay_s=0.01)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        ask(page, "Go")
        expect(page.locator(".answer-body").last).to_contain_text("line of words")
        page.locator(".messages").hover()
        page.mouse.wheel(0, -40)
        page.wait_for_timeout(100)
        top = page.evaluate("document.querySelector('.messages').scrollTop")
        page.wait_for_timeout(500)
        assert abs(page.evaluate("document.querySelector('.messages').scrollTop") - top) <= 2
        assert page.evaluate(FROM_END) > 60
        page.get_by_role("button", name="Newest").click()
        page.wait_for_timeout(300)
        assert page.evaluate(FROM_END) <= 4


def test_a_chat_opens_at_its_true_end_though_formulas_are_drawn_late(warm, world, fake):
    formulas = "\n\n".join(f"$$\\sum_{{i=0}}^{{{n}}} \\frac{{x^i}}{{i!}}$$" for n in range(30))
    chat = world.add_chat("Sums", [("user", "Sums"), ("assistant", formulas)] * 4)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        expect(page.locator(".katex").last).to_be_visible()
        page.wait_for_timeout(500)
        assert page.evaluate(FROM_END) <= 4


def test_earlier_messages_come_above_what_is_read(warm, world, fake):
    chat = long_chat(world, 80)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        expect(page.locator(".message")).to_have_count(30)
        page.locator(".earlier").scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        first = page.locator(".message").first.get_attribute("data-message")
        place = f"document.querySelector('[data-message={first}]').getBoundingClientRect().top"
        before = page.evaluate(place)
        page.locator(".earlier").click()
        expect(page.locator(".message")).to_have_count(80)
        page.wait_for_timeout(300)
        assert abs(page.evaluate(place) - before) <= 60  # what the button took


def test_the_toast_leaves_the_composer_free_and_waits_for_who_looks_at_it(browser, world, fake):
    world.add_chat("One")
    world.add_chat("Two")
    with open_page(browser, fake.url) as page:
        page.clock.install()
        page.get_by_role("button", name="What to do with Two").click()
        page.get_by_role("menuitem", name="Delete").click()
        toast = page.locator(".toast")
        expect(toast).to_be_visible()
        expect(page.get_by_role("link", name="One", exact=True)).to_be_focused()
        assert page.get_by_label("Message", exact=True).evaluate(SEEN)
        toast.hover()
        page.clock.run_for(20_000)
        expect(toast).to_be_visible()
        page.mouse.move(600, 700)
        page.clock.run_for(20_000)
        expect(toast).to_have_count(0)


def test_files_stay_files_while_their_message_is_edited(warm, world, fake, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with warm.at(fake.url) as page:
        page.locator(".composer input[type=file]").set_input_files(tmp_path / "a.py")
        ask(page, "Why?")
        wait_for_answer(page)
        page.locator(".message.user").hover()
        page.get_by_role("button", name="Edit").click()
        expect(page.get_by_label("Edit the message")).to_have_value("Why?")
        expect(page.locator(".editor .attachments")).to_contain_text("a.py")
        page.get_by_label("Edit the message").fill("How?")
        page.keyboard.press("Enter")
        expect(page.locator(".said")).to_have_text("How?")
        file, text = world.requests[-1][1]["content"]
        assert (file["text"], text["text"]) == ("a.py:\n```\nx = 1\n```\n\n", "How?")


def test_a_megabyte_that_is_edited_holds_nothing_up(browser, world, fake):
    chat = world.add_chat("Big", [("user", "word " * 200_000), ("assistant", "So?")])
    with open_page(browser, fake.url, path=f"/chat/{chat}") as page:
        page.add_init_script(LONG_TASKS)
        page.reload()
        page.locator(".message.user").hover()
        page.get_by_role("button", name="Edit").click()
        expect(page.locator(".editor .attachments")).to_contain_text("1000 KB")
        page.get_by_label("Edit the message").fill("Shorter, please")
        assert longest_task_ms(page) <= 1000


def test_a_thousand_messages_that_are_shown_cost_little_with_each_event(browser, world, fake):
    chat = long_chat(world, 1000)
    with open_page(browser, fake.url, path=f"/chat/{chat}") as page:
        page.add_init_script(LONG_TASKS)
        page.reload()
        for num in range(130, 1031, 100):
            page.locator(".earlier").dispatch_event("click")
            expect(page.locator(".message")).to_have_count(min(num, 1000), timeout=60_000)
        longest_task_ms(page)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def script_ms() -> float:
            rows = session.send("Performance.getMetrics")["metrics"]
            return next(row["value"] for row in rows if row["name"] == "ScriptDuration") * 1000

        before = script_ms()
        for n in range(20):
            fake.announce({"type": "models", "models": [{**model, "running": n} for model in world.models]})
        expect(page.locator(".model-picker")).to_contain_text("vicuna-7b")
        page.wait_for_timeout(500)
        assert (script_ms() - before) / 20 <= 50  # 100 ms before, about 5 on an idle machine


def test_a_chat_without_a_model_takes_the_one_that_is_served(warm, world, fake):
    chat = world.add_chat("Imported", [("user", "one"), ("assistant", "two")], model=None)
    with warm.at(fake.url, f"/chat/{chat}") as page:
        expect(page.locator(".model-picker")).to_contain_text("vicuna-7b")
        ask(page, "three")
        wait_for_answer(page, 2)
        assert world.requests[-1][1]["model"] == "vicuna-7b"


def test_system_messages_and_tools_are_shown_as_what_they_are(warm, world, fake):
    chat = world.add_chat("Tools", [("system", "Be **kind**."), ("user", "Weather?")])
    messages = world.chats[chat]["messages"]
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Cusco"}'}}
    called = world.new_message(world.chats[chat], messages[-1]["id"], "assistant", "", extra={"tool_calls": [call]})
    told = world.new_message(world.chats[chat], called["id"], "tool", "12 °C", extra={"tool_call_id": "c"})
    world.new_message(world.chats[chat], told["id"], "assistant", "It is cold.")
    with warm.at(fake.url, f"/chat/{chat}") as page:
        expect(page.get_by_text("It is cold.")).to_be_visible()
        notes = page.locator(".told")
        expect(notes).to_have_count(3)
        expect(notes.nth(0)).to_contain_text(re.compile("system message.*Be \\*\\*kind\\*\\*", re.S | re.I))
        expect(notes.nth(1)).to_contain_text(re.compile('Tool call: weather.*"city": "Cusco"', re.S))
        expect(notes.nth(2)).to_contain_text(re.compile("Tool result.*12 °C", re.S))
