"""Chatting: asking, stopping, branching, settings, history, files; by mouse and by keyboard alone."""

from __future__ import annotations

import json
import re
import struct
import zlib

from playwright.sync_api import expect

from web.browser import ask, wait_for_answer, wait_until
from web.fake_world import model

MARKDOWN = """## Head

A *word*, `code` and [a link](https://example.org).

```python
def f(x):
    return x + 1
```

| a | b |
|:-:|--:|
| 1 | 2 |

Inline $x^2$, price $5 and $6, and

$$\\int_0^1 x\\,dx$$
"""


def png() -> bytes:
    """A picture of one pixel."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(b"\0\x96\x47\x1a")) + part(b"IEND", b"")


def test_a_first_prompt_makes_a_chat_whose_answer_is_drawn_as_markdown(warm, world, fake):
    world.say("Go", MARKDOWN, reasoning="Let me think.", chunk=3)
    with warm.at(fake.url) as page:
        expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        ask(page, "Go")
        wait_for_answer(page)
        answer = page.locator(".message.assistant")
        expect(answer.locator("h2")).to_have_text("Head")
        expect(answer.locator(".hljs-keyword").first).to_have_text("def")
        expect(answer.locator("td.align-right")).to_have_text("2")
        expect(answer.locator(".katex")).to_have_count(2)
        expect(answer.locator("p", has_text="price $5 and $6")).to_be_visible()
        assert answer.locator(".katex [style]").count() > 0  # the policy let KaTeX place its parts
        link = answer.locator("a")
        assert link.get_attribute("target") == "_blank" and "noopener" in link.get_attribute("rel")
        expect(answer.locator(".facts")).to_contain_text(
            re.compile(r"vicuna-7b · \d+ tokens · .* tokens/s · first token ")
        )
        expect(page.get_by_text("Let me think.")).to_be_hidden()
        page.get_by_text("Thoughts").click()
        expect(page.get_by_text("Let me think.")).to_be_visible()
        expect(page.locator(".chat-list li")).to_have_count(1)
        assert "/chat/" in page.url and page.title() == "Go · chaku"


def test_an_answer_can_be_stopped_given_again_by_another_model_and_every_version_stays(warm, world, fake):
    world.say("Count", " ".join(map(str, range(3000))), delay_s=0.01)
    with warm.at(fake.url) as page:
        ask(page, "Count")
        expect(page.locator(".answer-body")).to_contain_text("5 6 7")
        page.get_by_role("button", name="Stop the answer").click()
        expect(page.locator(".facts")).to_contain_text("stopped")
        world.say("Count", "Done.")
        page.get_by_role("button", name="Answer again with another model").click()
        page.get_by_role("menuitem", name="alpaca-7b").click()
        expect(page.locator(".answer-body")).to_have_text("Done.")
        expect(page.locator(".facts")).to_contain_text("alpaca-7b")
        expect(page.locator(".siblings")).to_have_text("2 / 2")
        page.get_by_role("button", name="Previous version").click()
        expect(page.locator(".answer-body")).to_contain_text("0 1 2 3")
        expect(page.locator(".siblings")).to_have_text("1 / 2")


def test_editing_a_message_starts_a_branch_and_keeps_the_old_one(warm, world, fake):
    chat = world.add_chat("Old", [("user", "one"), ("assistant", "first"), ("user", "two"), ("assistant", "second")])
    with warm.at(fake.url, f"/chat/{chat}") as page:
        page.locator(".message.user").nth(1).hover()
        page.locator(".message.user").nth(1).get_by_role("button", name="Edit").click()
        page.get_by_label("Edit the message").fill("other")
        page.keyboard.press("Enter")
        expect(page.locator(".answer-body").last).to_have_text("You said: other")
        assert page.locator(".said").all_inner_texts() == ["one", "other"]
        page.get_by_role("button", name="Previous version").click()
        expect(page.locator(".answer-body").last).to_have_text("second")


def test_only_settings_that_were_set_are_sent_and_the_code_shows_the_same(warm, world, fake):
    with warm.at(fake.url) as page:
        page.get_by_role("button", name="Chat settings").click()
        page.get_by_role("button", name="Brief").click()
        page.get_by_label("Temperature").fill("0.3")
        page.get_by_label("Seed").fill("7")
        page.get_by_label("Stop words").fill("END")
        page.get_by_label("Longest answer").focus()
        code = page.locator(".request-code")
        expect(code).to_contain_text('"temperature": 0.3')
        page.get_by_role("tab", name="Python", exact=True).click()
        expect(code).to_contain_text('stop=["END"]')
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        ask(page, "Hi")
        wait_for_answer(page)
        (_, body), *_ = world.requests
        assert body["settings"] == {"temperature": 0.3, "seed": 7, "stop": ["END"]}
        (chat,) = world.chats.values()
        assert chat["system"].startswith("Answer in as few words")
        page.get_by_role("button", name="Chat settings, 4 set").click()
        page.get_by_role("button", name="Reset to model default").click()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        ask(page, "Again")
        wait_for_answer(page, 2)
        assert world.requests[-1][1]["settings"] == {}


def test_changing_the_model_keeps_the_chat_and_the_picker_shows_states_as_they_change(warm, world, fake):
    chat = world.add_chat("Old", [("user", "one"), ("assistant", "first")])
    with warm.at(fake.url, f"/chat/{chat}") as page:
        expect(page.locator(".answer-body")).to_have_text("first")
        page.get_by_role("button", name="Model: vicuna-7b").click()
        page.get_by_role("menuitemradio", name="alpaca-7b").click()
        expect(page.locator(".answer-body")).to_have_text("first")
        ask(page, "two")
        wait_for_answer(page, 2)
        assert world.requests[-1][1]["model"] == "alpaca-7b"
        states = [model("vicuna-7b", waiting=2), model("alpaca-7b", state="loading", progress=0.42)]
        fake.announce({"type": "models", "models": states})
        expect(page.locator(".model-picker")).to_contain_text("loading 42 %")
        expect(page.locator(".composer .hint")).to_contain_text("alpaca-7b is loading")
        page.locator(".model-picker button").click()
        expect(page.get_by_role("menuitemradio", name="vicuna-7b")).to_contain_text("busy, 2 in line")


def test_chats_are_found_named_pinned_deleted_and_brought_back(warm, world, fake, tmp_path):
    for title in ("Apples", "Pears", "Plums"):
        world.add_chat(title, [("user", f"about {title}")])
    with warm.at(fake.url) as page:
        titles = page.locator(".chat-list li a")
        expect(titles).to_have_count(3)
        page.keyboard.press("Control+k")
        page.keyboard.type("pear")
        expect(page.locator(".chat-list li a > span")).to_have_text(["Pears"])
        page.get_by_label("Search chats").fill("")
        expect(titles).to_have_count(3)

        def choose(title: str, what: str) -> None:
            page.get_by_role("button", name=f"What to do with {title}").click()
            page.get_by_role("menuitem", name=what, exact=True).click()

        choose("Apples", "Rename")
        page.get_by_label("New title").fill("Cider")
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="Cider")).to_be_visible()
        choose("Cider", "Pin")
        expect(page.locator(".chat-list h2").first).to_have_text("Pinned")
        choose("Pears", "Delete")
        expect(titles).to_have_count(2)
        page.get_by_role("button", name="Undo").click()
        expect(titles).to_have_count(3)
        with page.expect_download() as download:
            choose("Plums", "Export all branches (JSONL)")
        assert download.value.suggested_filename == "Plums.jsonl"
        assert json.loads(download.value.path().read_text()) == {"messages": []}
        file = tmp_path / "chats.jsonl"
        file.write_text('{"title": "Brought in"}\n')
        page.get_by_label("File of chats").set_input_files(file)
        expect(page.get_by_role("link", name="Brought in")).to_be_visible()
        expect(page.locator(".toast")).to_contain_text("1 chat imported")


def test_text_files_are_quoted_and_pictures_go_only_to_models_that_see(warm, world, fake, tmp_path):
    picture = tmp_path / "dot.png"
    picture.write_bytes(png())
    script = tmp_path / "a.py"
    script.write_text("x = '```'\n")
    with warm.at(fake.url) as page:
        chooser = page.locator(".composer input[type=file]")
        chooser.set_input_files(picture)
        expect(page.locator(".toast")).to_contain_text("this model reads text only")
        seeing = [model("eyes-7b", capabilities=["vision"]), *world.models]
        fake.announce({"type": "models", "models": seeing})
        page.locator(".model-picker button").click()
        page.get_by_role("menuitemradio", name="eyes-7b").click()
        chooser.set_input_files([picture, script])
        expect(page.locator(".attachments li")).to_have_count(2)
        ask(page, "What is this?")
        wait_for_answer(page)
        file, text, image = world.requests[-1][1]["content"]
        assert file["text"] == "a.py:\n````\nx = '```'\n````\n\n"
        assert text["text"] == "What is this?"
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
        expect(page.locator(".message.user img")).to_be_visible()


def test_a_failed_answer_is_a_card_that_says_what_why_and_what_to_do(warm, world, fake):
    problem = {"message": "prompt is 9,120 tokens, vicuna-7b takes 8,192", "code": "context_length_exceeded"}
    world.say("Too much", "Half an ans", error=problem)
    with warm.at(fake.url) as page:
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
        ask(page, "Too much")
        card = page.get_by_role("group", name="The answer broke off")
        expect(card).to_contain_text("prompt is 9,120 tokens")
        expect(card).to_contain_text("What to do")
        expect(page.locator(".answer-body")).to_have_text("Half an ans")
        card.get_by_role("button", name="Copy details").click()
        expect(card.get_by_role("button", name="Copied")).to_be_visible()
        assert json.loads(page.evaluate("copied"))["code"] == "context_length_exceeded"
        world.say("Too much", "All of it.")
        card.get_by_role("button", name="Try again").click()
        expect(page.locator(".answer-body")).to_have_text("All of it.")


def test_a_prompt_in_the_address_is_never_sent(warm, world, fake):
    for path in ("/?q=hello", "/?prompt=hello&submit=1", "/#/?q=hello", "/#q=hello"):
        with warm.at(fake.url, path) as page:
            expect(page.get_by_label("Message", exact=True)).to_have_value("")
            page.wait_for_timeout(100)
    assert world.requests == [] and world.chats == {}


def test_with_keys_the_page_asks_for_one_and_takes_only_the_right_one(warm, world, fake):
    world.key = "ck-right"
    with warm.at(fake.url) as page:
        page.get_by_label("API key").fill("ck-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("That key is not known here.")
        page.get_by_label("API key").fill("ck-right")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Message", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_the_keyboard_alone_reaches_everything(warm, world, fake):
    world.say("Count", " ".join(map(str, range(3000))), delay_s=0.01)
    with warm.at(fake.url) as page:
        press, type_ = page.keyboard.press, page.keyboard.type
        focused = "document.activeElement.getAttribute('aria-label')"
        expect(page.get_by_label("Message", exact=True)).to_be_focused()
        type_("Count")
        press("Enter")
        expect(page.locator(".answer-body")).to_contain_text("5 6 7")
        press("Escape")  # stops
        expect(page.locator(".facts")).to_contain_text("stopped")
        press("ArrowUp")  # edits the last message
        expect(page.get_by_label("Edit the message")).to_be_focused()
        press("Control+a")
        type_("Hello")
        press("Enter")
        expect(page.locator(".answer-body")).to_have_text("You said: Hello")
        press("Control+Shift+M")
        expect(page.get_by_role("menuitemradio", name="vicuna-7b")).to_be_focused()
        press("ArrowDown")
        press("Enter")
        expect(page.locator(".model-picker")).to_contain_text("alpaca-7b")
        assert page.evaluate(focused) == "Model: alpaca-7b"
        press("Control+,")
        expect(page.get_by_role("dialog", name="Chat settings")).to_be_visible()
        press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert page.evaluate(focused) == "Model: alpaca-7b"
        press("?")
        help_window = page.get_by_role("dialog", name="Keyboard shortcuts")
        expect(help_window).to_contain_text("Search chats")
        expect(help_window.get_by_role("link", name="API reference")).to_have_attribute("href", "/docs")
        press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        press("/")
        expect(page.get_by_label("Message", exact=True)).to_be_focused()
        reached = set()
        for _ in range(60):
            press("Shift+Tab")
            reached.add(
                page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
            )
        wanted = {
            "Previous version",
            "Copy",
            "Edit",
            "Answer again",
            "Answer again with another model",
            "Chat settings",
        }
        wanted |= {"Search chats", "What to do with Count", "More", "New chat", "Model: alpaca-7b", "Messages"}
        assert wanted <= reached, wanted - reached
        press("Control+Shift+O")
        expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()


def test_screen_readers_hear_that_an_answer_began_and_ended_and_not_its_text(warm, world, fake):
    with warm.at(fake.url) as page:
        page.evaluate(
            """() => { window.heard = []; new MutationObserver(() => {
              const text = document.querySelector('.chat-panel > [role=status]').textContent;
              if (text && heard.at(-1) !== text) heard.push(text);
            }).observe(document.body, {subtree: true, childList: true, characterData: true}) }"""
        )
        world.say("Hi", "one two three four five six seven", delay_s=0.02)
        ask(page, "Hi")
        wait_for_answer(page)
        wait_until(page, "() => heard.length >= 2")
        assert page.evaluate("heard") == ["Answer started", "Answer finished, 7 tokens"]
        assert page.locator("[role=log]").get_attribute("aria-live") == "off"


def test_what_a_models_makers_advise_is_applied_and_shown_until_something_else_is_set(warm, world, fake):
    advice = {"system": "You are a helpful assistant.", "temperature": 0.2, "repetition_penalty": 1.1, "top_p": None}
    world.models[0]["recommended"] = advice
    with warm.at(fake.url) as page:
        page.get_by_role("button", name="Chat settings", exact=True).click()
        expect(page.get_by_label("Temperature")).to_have_attribute("placeholder", "default 0.2")
        expect(page.get_by_label("System prompt")).to_have_attribute("placeholder", re.compile("You are a helpful"))
        page.get_by_label("Temperature").fill("0.7")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        ask(page, "Hi")
        wait_for_answer(page)
        assert world.requests[-1][1]["settings"] == {"temperature": 0.7, "repetition_penalty": 1.1}
        (chat,) = world.chats.values()
        assert chat["system"] == "You are a helpful assistant."
        page.reload()
        page.get_by_role("button", name="Chat settings, 1 set").click()
        expect(page.get_by_label("Temperature")).to_have_value("0.7")
