"""Hostile answers are inert: nothing runs, nothing leaves, the page's policy is never even touched."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from web.browser import ask, open_page
from web.hostile_texts import HTML, IMAGES, TEXTS


@pytest.mark.parametrize("is_streamed", [False, True], ids=["read from history", "streamed"])
def test_hostile_texts_run_nothing_load_nothing_and_break_no_rule(browser, world, fake, is_streamed):
    assert len(TEXTS) >= 40
    with open_page(browser, fake.url, watch=False) as page:
        seen = page.seen
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        if is_streamed:
            for i, text in enumerate(TEXTS):
                world.say(f"Say {i}", text, chunk=max(7, len(text) // 60))
                ask(page, f"Say {i}")
                page.wait_for_function(
                    "n => document.querySelectorAll('.assistant .facts').length >= n", arg=min(i + 1, 15)
                )
                page.wait_for_function("() => !document.querySelector('[aria-label=\"Stop the answer\"]')")
        else:
            messages = [pair for i, text in enumerate(TEXTS) for pair in (("user", text), ("assistant", text))]
            chat = world.add_chat(TEXTS[1], messages, system=TEXTS[0])
            page.goto(f"{fake.url}/chat/{chat}")
            page.reload()
            expect(page.locator(".message").first).to_be_visible()
            while (button := page.locator(".earlier")).count():
                button.click()
            expect(page.locator(".message")).to_have_count(2 * len(TEXTS))
        page.wait_for_timeout(500)
        for link in page.locator(".answer-body a").all()[:200]:
            assert link.get_attribute("href").startswith(("http://", "https://", "mailto:"))
            assert link.get_attribute("target") == "_blank"
            assert {"noopener", "noreferrer"} <= set(link.get_attribute("rel").split())
        assert page.evaluate("window.pwned") is None
        assert dialogs == []
        assert seen.outside == []
        assert seen.violations == []
        assert seen.errors == []
        assert page.url.startswith(fake.url)
        forbidden = "script,iframe,object,embed,form,style,base,meta,link,video,svg,input,[onerror],[onload],[srcdoc]"
        assert page.locator(f".answer-body :is({forbidden}):not(.katex *)").count() == 0
        expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_the_count_would_notice_if_the_page_let_something_through(browser, world, fake):
    """The measuring instruments work: the same texts, put in raw past the policy, are seen to run and to leave."""
    with open_page(browser, fake.url, watch=False, bypass_csp=True) as page:
        seen = page.seen
        page.route("https://evil.example/**", lambda route: route.abort())
        page.evaluate("html => { document.body.insertAdjacentHTML('beforeend', html) }", HTML[1] + HTML[2])
        page.wait_for_function("() => window.pwned === 1")
        assert seen.outside == ["https://evil.example/leak.png"]
    with open_page(browser, fake.url, watch=False) as page:
        seen = page.seen
        page.reload()
        page.evaluate("() => { const i = new Image(); i.src = 'https://evil.example/x'; document.body.append(i) }")
        page.wait_for_timeout(200)
        assert any("img-src" in what for what in seen.violations)


def test_a_remote_picture_becomes_a_link_that_names_its_host(browser, world, fake):
    world.say("Show", IMAGES[0])
    with open_page(browser, fake.url) as page:
        ask(page, "Show")
        chip = page.locator(".image-chip")
        expect(chip).to_have_text("load image from evil.example: a")
        assert chip.get_attribute("rel") == "noopener noreferrer nofollow"


def test_a_giant_table_shows_its_beginning_and_the_rest_when_asked(browser, world, fake):
    world.say("Table", "| n |\n|---|\n" + "\n".join(f"| {i} |" for i in range(5000)), chunk=2000)
    with open_page(browser, fake.url) as page:
        ask(page, "Table")
        rows = page.locator(".answer-body tbody tr")
        page.get_by_role("button", name="Show the rest").click()
        expect(rows).to_have_count(5000)
        assert rows.evaluate_all("rows => rows.map(row => Number(row.textContent))") == list(range(5000))
        expect(page.locator(".answer-body table")).to_have_count(1)


def test_a_reader_who_asked_for_the_rest_keeps_it_while_more_comes(browser, world, fake):
    table = "| n |\n|---|\n" + "\n".join(f"| {i} |" for i in range(4000))
    world.say("Table", table + "\n" + "\n".join(f"| {i} |" for i in range(4000, 5000)), chunk=len(table), delay_s=3)
    with open_page(browser, fake.url) as page:
        ask(page, "Table")
        page.get_by_role("button", name="Show the rest").click()
        expect(page.locator(".answer-body tbody tr")).to_have_count(5000)


def test_characters_that_turn_the_reading_direction_can_be_seen(browser, world, fake):
    text = "a\u202eb\n\n```py\nif x:\u2066 # \u2069\n```"
    world.say("Bidi", text)
    with open_page(browser, fake.url) as page:
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
        ask(page, "Bidi")
        expect(page.locator(".answer-body p")).to_have_text("a⟨U+202E⟩b")
        expect(page.locator(".answer-body code")).to_have_text("if x:⟨U+2066⟩ # ⟨U+2069⟩\n")
        page.locator(".code button", has_text="Copy").click()
        assert page.evaluate("copied") == "if x:\u2066 # \u2069"  # a copy is what was written
