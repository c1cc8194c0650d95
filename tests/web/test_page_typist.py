"""A typist who is faster than the screen: what was opened takes the very next key, and nothing typed is lost.

The steps run inside of the page, in one turn of its event loop: no frame is drawn between them.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from web.browser import ask, open_page, wait_for_answer
from web.fake_world import model

TURN = """async (steps) => {
  const key = (name, more) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true, ...more }));
  const settled = async () => { for (let i = 0; i < 5; i++) await null; };
  const escape = () => document.querySelector("dialog").dispatchEvent(new Event("cancel", { cancelable: true }));
  const click = (selector) => document.querySelector(selector).click();
  const focused = () => document.activeElement.getAttribute("aria-label") ?? document.activeElement.tagName;
  return await new Function("key, settled, escape, click, focused", `return (async () => {${steps}})()`)(
    key, settled, escape, click, focused);
}"""


def run(page, steps):
    return page.evaluate(TURN, steps)


@pytest.fixture
def page(browser, world, fake):
    world.add_chat("Old", [("user", "one"), ("assistant", "first")])
    with open_page(browser, fake.url, path="/chat/c1", bypass_csp=True) as page:
        expect(page.locator(".answer-body")).to_have_text("first")
        page.evaluate("import(new URL('../chat/settings_drawer.js', document.querySelector('script[src]').src))")
        yield page


def test_a_closed_dialog_has_given_the_focus_back_and_the_next_key_goes_where_it_says(page):
    page.get_by_label("Search chats").focus()
    steps = """
      key(",", { ctrlKey: true }); await settled();
      const inside = document.querySelector("dialog").contains(document.activeElement);
      escape(); await settled();
      const after = focused();
      document.activeElement.blur(); key("?"); await settled(); escape(); await settled(); key("/");
      return [inside, after, focused()];
    """
    assert run(page, steps) == [True, "Search chats", "Message"]
    page.wait_for_timeout(200)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()  # nothing took it away later


def test_a_dialog_that_the_browser_closed_itself_is_closed_for_the_page_too(page):
    page.keyboard.press("Control+,")
    page.evaluate("document.querySelector('dialog').close()")
    expect(page.locator("dialog")).to_have_count(0)
    page.get_by_label("Messages").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


def test_a_menu_and_the_fields_that_open_are_ready_for_the_next_key(page):
    steps = """
      key("m", { ctrlKey: true, shiftKey: true }); await settled();
      const item = document.activeElement.getAttribute("role");
      key("ArrowDown"); document.activeElement.click(); await settled();
      const chosen = focused();
      click(".edit"); await settled();
      return [item, chosen, focused()];
    """
    assert run(page, steps) == ["menuitemradio", "Model: alpaca-7b", "Edit the message"]
    page.keyboard.press("Escape")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.get_by_role("button", name="What to do with Old").click()
    assert run(page, "click('.chat-list [role=menuitem]'); await settled(); return focused()") == "New title"


def test_a_menu_closes_when_a_shortcut_takes_the_focus_elsewhere(page):
    page.keyboard.press("Control+Shift+M")
    expect(page.get_by_role("menuitemradio")).to_have_count(2)
    page.keyboard.press("Control+K")
    expect(page.get_by_label("Search chats")).to_be_focused()
    expect(page.get_by_role("menuitemradio")).to_have_count(0)


def test_a_new_name_is_given_once_and_escape_gives_none(page, world):
    for key, title in (("Escape", "Old"), ("Enter", "New")):
        page.get_by_role("button", name="What to do with Old").click()
        page.get_by_role("menuitem", name="Rename").click()
        patches = []
        page.on("request", lambda request, seen=patches: request.method == "PATCH" and seen.append(request.url))
        page.get_by_label("New title").fill("New")
        page.keyboard.press(key)
        expect(page.get_by_label("New title")).to_have_count(0)
        expect(page.get_by_role("link", name=title, exact=True)).to_be_focused()
        page.wait_for_timeout(100)
        assert world.chats["c1"]["title"] == title
        assert len(patches) == (key == "Enter")


def test_settings_that_are_being_typed_stay_when_something_else_changes(page, fake, world):
    page.keyboard.press("Control+,")
    for label, text in (("System prompt", "Be kind"), ("Temperature", "0.7"), ("Stop words", "END")):
        page.get_by_label(label).press_sequentially(text)
        for progress in (0.1, 0.2):
            fake.announce({"type": "models", "models": [model("vicuna-7b", state="loading", progress=progress)]})
            expect(page.locator(".model-picker")).to_contain_text(f"loading {progress:.0%}".replace("%", " %"))
        expect(page.get_by_label(label)).to_have_value(text)
    page.get_by_label("System prompt").press_sequentially("!")
    with page.expect_request(lambda request: request.method == "PATCH"):
        page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.keyboard.press("Control+,")
    expect(page.get_by_label("System prompt")).to_have_value("Be kind!")
    assert world.chats["c1"]["settings"] == {"temperature": 0.7, "stop": ["END"]}


def test_what_is_typed_while_a_message_is_under_way_stays_and_a_message_that_failed_comes_back(page):
    waiting = []
    page.route("**/api/chats/c1/messages", lambda route: waiting.append(route))
    ask(page, "two")
    field = page.get_by_label("Message", exact=True)
    expect(field).to_have_value("")
    field.press_sequentially("three")
    while not waiting:
        page.wait_for_timeout(20)
    waiting.pop().fulfill(status=500, json={"error": {"message": "no", "code": "broken"}})
    expect(page.get_by_role("group", name="That did not work")).to_be_visible()
    expect(field).to_have_value("two\n\nthree")
    page.unroute("**/api/chats/c1/messages")
    page.keyboard.press("Enter")
    wait_for_answer(page, 2)
    expect(field).to_have_value("")


def test_an_example_fills_the_field_each_time_and_takes_the_focus(warm, fake):
    with warm.at(fake.url) as page:
        field = page.get_by_label("Message", exact=True)
        for _ in range(2):
            page.locator(".examples button").first.click()
            expect(field).to_be_focused()
            expect(field).not_to_have_value("")
            field.fill("")
