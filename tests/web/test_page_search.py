"""Finding a place again: search by keyboard, links to messages, and how full the context is before sending."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from web.browser import ask, wait_for_answer, wait_until
from web.fake_world import World

MARKED = "[...(CSS.highlights.get('found') ?? [])].map(range => range.toString())"
IN_VIEW = """element => { const box = element.getBoundingClientRect();
  const outer = document.querySelector('.messages').getBoundingClientRect();
  return box.bottom > outer.top && box.top < outer.bottom }"""


def long_chat(world: World) -> tuple[str, list[dict]]:
    """A chat of 120 messages, with words to find in an early one, and a second answer to the first question."""
    pairs = [("user" if i % 2 == 0 else "assistant", f"message {i}\n\n" + "words " * 40) for i in range(120)]
    pairs[11] = ("assistant", "Some words.\n\n- The **Guanaco** is wild.\n- A guanaco runs.")
    chat = world.add_chat("Animals", pairs)
    messages = world.chats[chat]["messages"]
    other = world.new_message(world.chats[chat], messages[0]["id"], "assistant", "the other branch: alpaca")
    world.chats[chat]["leaf_id"] = messages[119]["id"]
    return chat, [*messages[:120], other]


def test_a_search_leads_to_the_place_by_keyboard_alone(warm, world, fake):
    world.add_chat("Trees", [("user", "oaks")])
    _, messages = long_chat(world)
    world.add_chat("Guanaco in the title", [("user", "nothing")])
    with warm.at(fake.url) as page:
        press, hits = page.keyboard.press, page.locator(".chat-list li a")
        expect(hits).to_have_count(3)
        press("Control+k")
        page.keyboard.type("guanaco")
        expect(hits).to_have_count(2)
        expect(page.locator(".chat-list small mark")).to_have_text("Guanaco")
        press("ArrowDown")
        expect(hits.first).to_be_focused()
        press("ArrowDown")
        expect(hits.last).to_be_focused()
        press("ArrowUp")
        press("ArrowUp")
        expect(page.get_by_label("Search chats")).to_be_focused()
        press("ArrowDown")
        press("ArrowDown")
        press("Enter")
        found = page.locator(f"[data-message='{messages[11]['id']}']")
        expect(found).to_be_focused()
        wait_until(page, f"() => {MARKED}.length === 2")
        assert page.evaluate(MARKED) == ["Guanaco", "guanaco"]
        assert page.url.endswith(f"?msg={messages[11]['id']}&find=guanaco")
        page.wait_for_timeout(300)
        assert found.evaluate(IN_VIEW)
        page.get_by_role("button", name="Newest").click()
        expect(page.locator(".message").last).to_be_in_viewport()


def test_enter_in_the_search_field_opens_the_first_hit(warm, world, fake):
    _, messages = long_chat(world)
    with warm.at(fake.url) as page:
        page.get_by_label("Search chats").fill("alpaca")
        expect(page.locator(".chat-list small")).to_contain_text("alpaca")
        page.keyboard.press("Enter")
        expect(page.locator(f"[data-message='{messages[-1]['id']}']")).to_be_focused()
        expect(page.locator(".siblings")).to_have_text("2 / 2")  # its branch was opened


def test_a_link_to_a_message_opens_its_branch_and_one_to_nowhere_says_so(warm, world, fake):
    chat, messages = long_chat(world)
    with warm.at(fake.url, f"/chat/{chat}?msg={messages[-1]['id']}") as page:
        expect(page.locator(f"[data-message='{messages[-1]['id']}']")).to_be_focused()
        expect(page.locator(".message")).to_have_count(2)
    with warm.at(fake.url, f"/chat/{chat}?msg=gone") as page:
        expect(page.locator(".toast")).to_contain_text("not in this chat any more")


def test_the_link_of_a_message_is_copied(warm, world, fake):
    chat = world.add_chat("Old", [("user", "one"), ("assistant", "two")])
    with warm.at(fake.url, f"/chat/{chat}") as page:
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
        page.locator(".message.assistant").get_by_role("button", name="More actions").click()
        page.get_by_role("menuitem", name="Copy a link to this message").click()
        expect(page.locator(".toast")).to_contain_text("Link copied")
        answer = world.chats[chat]["messages"][1]["id"]
        assert page.evaluate("copied") == f"{fake.url}/chat/{chat}?msg={answer}"


def test_a_meter_that_does_not_come_leaves_the_message_field_whole_and_comes_later(warm, world, fake):
    with warm.at(fake.url) as page:
        field = page.get_by_label("Message", exact=True)
        page.route("**/context_meter.js", lambda route: route.abort())
        field.press_sequentially("hello")
        expect(field).to_have_value("hello")
        expect(page.get_by_role("alert")).to_have_count(0)
        page.unroute("**/context_meter.js")
        field.press_sequentially(" you")
        ask(page, "hello")
        wait_for_answer(page)


def test_the_meter_says_before_sending_how_full_the_context_is(warm, world, fake):
    world.models[0]["context_tokens"] = 1000
    with warm.at(fake.url) as page:
        expect(page.get_by_label("Message", exact=True)).to_be_visible()
        expect(page.locator(".meter")).to_have_count(0)
        page.get_by_label("Message", exact=True).fill("a word " * 100)  # 700 characters
        expect(page.locator(".meter")).to_have_text("about 18 % of 1000 tokens")
        page.get_by_label("Message", exact=True).fill("a word " * 600)
        expect(page.locator(".meter")).to_have_text("about 1,054 tokens, 1,000 fit")
        expect(page.locator(".meter")).to_have_class(re.compile("full"))
        page.get_by_label("Message", exact=True).fill("")
        ask(page, "Hi")
        wait_for_answer(page)
        usage = next(iter(world.chats.values()))["messages"][-1]["usage"]
        counted = usage["prompt_tokens"] + usage["completion_tokens"]
        expect(page.locator(".meter")).to_have_attribute("title", re.compile(f"^About {counted} of 1,000 tokens"))
