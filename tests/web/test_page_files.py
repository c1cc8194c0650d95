"""Chats as files: exported to be read, imported from elsewhere."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from web.browser import open_page
from web.hostile_texts import TEXTS

ANSWER = "A *table*:\n\n| a |\n|---|\n| b |\n\n```python\ndef f(): return 1\n```\n\n$$x^2$$\n\n- [x] done"


def export(page: Page, title: str, label: str, folder: Path) -> Path:
    """Export a chat by its menu. Returns the file."""
    page.get_by_role("button", name=f"What to do with {title}").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name=label).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_a_chat_is_exported_as_markdown(warm, world, fake, tmp_path):
    chat = world.add_chat("Plums", [("user", "Why?"), ("assistant", ANSWER)], system="Be kind.")
    world.new_message(
        world.chats[chat],
        world.chats[chat]["leaf_id"],
        "assistant",
        "",
        extra={"tool_calls": [{"function": {"name": "f"}}]},
    )
    with warm.at(fake.url) as page:
        path = export(page, "Plums", "Export as Markdown", tmp_path)
        text = path.read_text()
    assert path.name == "Plums.md"
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Plums",
        "## System prompt",
        "## You",
        "## Assistant",
        "## Assistant",
    ]
    assert "Be kind." in text and ANSWER in text and '"name": "f"' in text


def test_a_chat_is_exported_as_a_page_that_stands_alone(browser, warm, world, fake, tmp_path):
    world.add_chat("Plums & <b>pears</b>", [("user", "Why <i>?"), ("assistant", ANSWER)])
    with warm.at(fake.url) as page:
        path = export(page, "Plums", "Export as HTML", tmp_path)
    with open_page(browser, path.as_uri(), path="") as page:
        assert page.title() == "Plums & <b>pears</b>"
        assert page.locator(".user .plain").inner_text() == "Why <i>?"
        expect(page.locator("math")).to_be_visible()
        expect(page.locator("figure .hljs-keyword").first).to_have_text("def")
        assert page.locator("figcaption").inner_text() == "python"
        assert page.locator("td").inner_text() == "b"
        assert page.locator("li.task.done").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_hostile_chat_is_inert_as_a_page_too(browser, warm, world, fake, tmp_path):
    short = [text for text in TEXTS if len(text) < 2000]
    world.add_chat("Evil", [pair for text in short for pair in (("user", text), ("assistant", text))])
    with warm.at(fake.url) as page:
        path = export(page, "Evil", "Export as HTML", tmp_path)
    with open_page(
        browser, path.as_uri(), path="", watch=False, bypass_csp=True
    ) as page:  # the file needs no policy to be safe
        assert page.locator("article").count() == 2 * len(short)
        assert page.evaluate("window.pwned") is None
        assert page.seen.outside == []
        assert (
            page.locator("script, iframe, object, embed, form, base, link, video, input, [onerror], [onload]").count()
            == 0
        )


def test_an_import_says_what_came_in_what_was_left_out_and_what_was_repaired(warm, world, fake, tmp_path):
    world.skipped = [{"line": 3, "reason": "the speaker is 'alien'"}]
    world.repaired = {"a branch that was not open was left out": 2}
    file = tmp_path / "conversations.json"
    file.write_text('{"title": "From elsewhere"}')
    with warm.at(fake.url) as page:
        page.get_by_label("File of chats").set_input_files(file)
        toast = page.locator(".toast")
        expect(toast).to_contain_text("1 chat imported; 1 record left out: the speaker is 'alien' (number 3)")
        expect(toast).to_contain_text("2 × a branch that was not open was left out")
        expect(page.get_by_role("link", name="From elsewhere")).to_be_visible()
