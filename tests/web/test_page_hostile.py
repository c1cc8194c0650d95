"""Hostile answers are inert: nothing runs, nothing leaves, the page's policy is never even touched."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import expect

from web.browser import ask, open_page, wait_for_answer, wait_until
from web.hostile_texts import HTML, IMAGES, TEXTS

LINKS = "links => links.map(link => ['href', 'target', 'rel'].map(name => link.getAttribute(name)))"


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
                wait_until(page, "n => document.querySelectorAll('.assistant .facts').length >= n", min(i + 1, 15))
                wait_until(page, "() => !document.querySelector('[aria-label=\"Stop the answer\"]')")
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
        for href, target, rel in page.locator(".answer-body a").evaluate_all(LINKS):
            assert href.startswith(("http://", "https://", "mailto:"))
            assert target == "_blank"
            assert {"noopener", "noreferrer"} <= set(rel.split())
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
        wait_until(page, "() => window.pwned === 1")
        assert seen.outside == ["https://evil.example/leak.png"]
    with open_page(browser, fake.url, watch=False) as page:
        seen = page.seen
        page.reload()
        page.evaluate("() => { const i = new Image(); i.src = 'https://evil.example/x'; document.body.append(i) }")
        page.wait_for_timeout(200)
        assert any("img-src" in what for what in seen.violations)


def test_a_remote_picture_becomes_a_link_that_names_its_host(warm, world, fake):
    world.say("Show", IMAGES[0])
    with warm.at(fake.url) as page:
        ask(page, "Show")
        chip = page.locator(".image-chip")
        expect(chip).to_have_text("load image from evil.example: a")
        assert chip.get_attribute("rel") == "noopener noreferrer nofollow"


def test_a_giant_table_shows_its_beginning_and_the_rest_when_asked(warm, world, fake):
    world.say("Table", "| n |\n|---|\n" + "\n".join(f"| {i} |" for i in range(5000)), chunk=2000)
    with warm.at(fake.url) as page:
        ask(page, "Table")
        rows = page.locator(".answer-body tbody tr")
        page.get_by_role("button", name="Show the rest").click()
        expect(rows).to_have_count(5000)
        assert rows.evaluate_all("rows => rows.map(row => Number(row.textContent))") == list(range(5000))
        expect(page.locator(".answer-body table")).to_have_count(1)


CLICK_AT_END = """() => {
  window.clicks = 0;
  new MutationObserver(() => {
    if (window.clicks || document.querySelector('[aria-label="Stop the answer"]')) return;
    document.querySelector('.answer-body .rest').click();
    window.clicks++;
  }).observe(document.body, {childList: true, subtree: true, attributes: true});
}"""


@pytest.mark.parametrize("when", ["before the end", "at the end", "after the end"])
def test_a_reader_who_asked_for_the_rest_keeps_it_whenever_they_asked(warm, world, fake, when):
    gate = threading.Event()
    table = "| n |\n|---|\n" + "\n".join(f"| {i} |" for i in range(5000))
    world.say("Table", table, chunk=25_000, gate=gate)
    with warm.at(fake.url) as page:
        ask(page, "Table")
        rest = page.get_by_role("button", name="Show the rest")
        expect(rest).to_be_visible()
        if when == "at the end":
            page.evaluate(CLICK_AT_END)
        if when == "before the end":
            rest.click()
        gate.set()
        wait_for_answer(page)
        if when == "after the end":
            rest.click()
        if when == "at the end":
            assert page.evaluate("clicks") == 1
        rows = page.locator(".answer-body tbody tr")
        expect(rows).to_have_count(5000)
        assert rows.evaluate_all("rows => rows.map(row => Number(row.textContent))") == list(range(5000))


VIEW = """
  const base = document.querySelector('script[src]').src.replace('app/main.js', 'markdown/');
  const {MarkdownView} = await import(`${base}markdown_view.js`);
  const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
  const root = document.createElement('div');
  document.body.append(root);
  const view = new MarkdownView(root);
  const button = () => root.querySelector('.rest');
  const shown = () => root.querySelectorAll('tbody tr, .prose > p').length;
  const until = async is => { for (let i = 0; !is() && i < 2000; i++) await pause(5); };
"""
SET = f"""async texts => {{{VIEW}
  const counts = [];
  for (const [text, isWhole, wanted] of texts) {{
    view.set(text, isWhole);
    if (!counts.length) {{
      await until(button);
      button().click();
    }}
    await until(() => shown() === wanted);
    counts.push(shown());
  }}
  root.remove();
  return counts;
}}"""
APPEND = f"""async ([text, more, wait, isWhole, wanted]) => {{{VIEW}
  view.set(text, false);
  await until(button);
  view.append(more);
  if (isWhole) view.finish();
  const start = performance.now();
  while (performance.now() < start + wait) await pause(0);
  button()?.click();
  await until(() => shown() === wanted);
  root.remove();
  return shown();
}}"""


def rows_of(first: int, end: int) -> str:
    head = "| n |\n|---|\n" if first == 0 else ""
    return head + "".join(f"| {i} |\n" for i in range(first, end))


def paragraphs(first: int, end: int) -> str:
    return "".join(f"word {i}\n\n" for i in range(first, end))


@pytest.mark.parametrize(
    ("write", "calls"),
    [(rows_of, [(False, True), (True, True), (True, False)]), (paragraphs, [(True, False)])],
    ids=["rows", "paragraphs"],
)
def test_what_a_reader_asked_to_see_holds_when_the_text_is_given_anew_and_longer(warm, fake, write, calls):
    """A stopped, resumed or continued answer, or one whose stream was taken up again, is the same text and more."""
    with warm.at(fake.url) as page:
        for first, second in calls:
            texts = [(write(0, 4000), first, 4000), (write(0, 4100), second, 4100), (write(0, 4100), True, 4100)]
            assert page.evaluate(SET, texts) == [4000, 4100, 4100], (first, second)


@pytest.mark.parametrize("is_whole", [False, True], ids=["more may come", "finished"])
def test_a_click_counts_at_every_moment_while_a_longer_text_is_drawn(warm, fake, is_whole):
    with warm.at(fake.url) as page:
        for wait_ms in (0, 15, 40, 80):
            asked = [rows_of(0, 4000), rows_of(4000, 5000), wait_ms, is_whole, 5000]
            assert page.evaluate(APPEND, asked) == 5000, wait_ms


def test_characters_that_turn_the_reading_direction_can_be_seen(warm, world, fake):
    text = "a\u202eb\n\n```py\nif x:\u2066 # \u2069\n```"
    world.say("Bidi", text)
    with warm.at(fake.url) as page:
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
        ask(page, "Bidi")
        expect(page.locator(".answer-body p")).to_have_text("a⟨U+202E⟩b")
        expect(page.locator(".answer-body code")).to_have_text("if x:⟨U+2066⟩ # ⟨U+2069⟩\n")
        page.locator(".code button", has_text="Copy").click()
        assert page.evaluate("copied") == "if x:\u2066 # \u2069"  # a copy is what was written
