"""What models write beyond plain Markdown is drawn as its readers expect, streamed and read from history."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from web.browser import ask, open_page, wait_for_answer
from web.fake_page import FakePage
from web.fake_world import World

RICH = r"""| step | what |
|---|---|
| 1 | read<br>write |

- [ ] open
- [x] done **well**

1. First:

   ```python
   def one() -> int:
       return 1  # ‮ turned
   ```

> Quoted:
>
> ```sql
> select 1
> ```

\begin{align}
a &= b + c \\

  &= d
\end{align}

So \begin{pmatrix} 1 & \begin{pmatrix} 2 \end{pmatrix} \end{pmatrix} holds.

```math
x^2
```

彼は**「はい」**と言った。

As shown[^1] and again[^long], not[^none], by [a reference][r].

[r]: https://example.org/r

[^1]: The *first* note.
[^long]: The second one

    has two paragraphs.

```text
the end
```
"""


@pytest.fixture(scope="module")
def page(browser, rich_world):
    world, fake = rich_world
    with open_page(browser, fake.url) as page:
        page.add_init_script("navigator.clipboard.writeText = async (text) => { window.copied = text }")
        chat = world.add_chat("Rich", [("user", "Go"), ("assistant", RICH)])
        page.goto(f"{fake.url}/chat/{chat}")
        expect(page.locator(".hljs-keyword").nth(1)).to_be_attached()
        yield page


@pytest.fixture(scope="module")
def rich_world():
    world = World()
    with FakePage(world).running() as fake:
        yield world, fake


def test_a_cell_breaks_its_line_and_a_task_shows_its_box(page: Page) -> None:
    assert page.locator(".answer-body td").nth(1).inner_text() == "read\nwrite"
    tasks = page.locator(".answer-body li.task")
    assert tasks.all_inner_texts() == ["open", "done well"]
    assert tasks.evaluate_all("items => items.map(item => getComputedStyle(item).listStyleType)") == ['"☐  "', '"☑  "']


def test_bare_environments_and_math_fences_are_formulas(page: Page) -> None:
    formulas = page.locator(".answer-body .math.display .katex")
    expect(formulas).to_have_count(3)
    assert page.locator(".math-error").count() == 0
    sources = page.locator(".answer-body annotation").all_text_contents()
    assert [source.split("}")[0] for source in sources] == ["\\begin{align", "\\begin{pmatrix", "x^2"]
    assert "\\begin" not in "".join(page.locator(".answer-body p").evaluate_all("all => all.map(p => p.innerText)"))


def test_emphasis_holds_beside_east_asian_letters(page: Page) -> None:
    expect(page.locator(".answer-body strong", has_text="はい")).to_have_text("「はい」")


def test_a_footnote_is_reached_from_its_mark_by_keyboard(page: Page) -> None:
    marks = page.get_by_role("link", name="Footnote")
    assert marks.all_text_contents() == ["1", "long"]
    assert "not[^none]," in page.locator(".answer-body").inner_text()
    notes = page.locator(".answer-body .note")
    texts = [" ".join(text.split()) for text in notes.all_inner_texts()]
    assert texts == ["The first note.", "The second one has two paragraphs."]
    marks.nth(1).press("Enter")
    expect(notes.nth(1)).to_be_focused()


def test_a_link_may_be_used_before_it_is_defined(page: Page) -> None:
    expect(page.get_by_role("link", name="a reference")).to_have_attribute("href", "https://example.org/r")


@pytest.mark.parametrize(
    ("place", "language", "source"), [("li", "python", "def one"), ("blockquote", "sql", "select 1")]
)
def test_code_in_a_list_or_a_quote_has_all_that_other_code_has(
    page: Page, place: str, language: str, source: str
) -> None:
    block = page.locator(f".answer-body {place} .code")
    expect(block.locator("figcaption span")).to_have_text(language)
    expect(block.locator(".hljs-keyword").first).to_be_attached()
    block.get_by_role("button", name="Wrap").click()
    assert (
        block.locator("pre").evaluate(
            "pre => getComputedStyle(pre).whiteSpaceCollapse + getComputedStyle(pre).textWrapMode"
        )
        == "preservewrap"
    )
    block.get_by_role("button", name="Copy").click()
    copied = page.evaluate("copied")
    assert copied.startswith(source)
    if place == "li":
        assert "⟨U+202E⟩" in block.locator("code").inner_text()
        assert "\u202e" in copied  # a copy is what was written


def test_a_streamed_answer_ends_as_the_same_one_that_is_read(browser, world, fake, page: Page) -> None:
    world.say("Go", RICH, chunk=3)
    with open_page(browser, fake.url) as streamed:
        ask(streamed, "Go")
        wait_for_answer(streamed)
        expect(streamed.locator("[aria-busy]")).to_have_count(0)
        expect(streamed.locator(".note")).to_have_count(2)
        expect(page.get_by_role("button", name="Copied")).to_have_count(0)  # as an earlier test left it
        body = "document.querySelector('.answer-body').innerText"
        assert streamed.evaluate(body) == page.evaluate(body)
