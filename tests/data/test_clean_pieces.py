"""Pieces of a page within other text: what is cleaned in place, and what stays."""

from __future__ import annotations

import time

import pytest

from chaku.data.html.clean import clean_text
from data.made import PIECE, WRAP


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Set **x**:\n\n{PIECE}\n\nDone.", "Set **x**:\n\n```python\nx = 1\n```\n\nDone."),
        (f"Set it:{PIECE}Done.", "Set it:\n\n```python\nx = 1\n```\n\nDone."),
        (f"1. Set it:\n   {PIECE}\n2. Done.", "1. Set it:\n\n   ```python\n   x = 1\n   ```\n\n2. Done."),
        (
            'So <span class="katex"><span class="katex-mathml"><math><annotation encoding="application/x-tex">a^2'
            "</annotation></math></span></span> is **it**.",
            "So $a^2$ is **it**.",
        ),
        (WRAP.format("<p>It <em>is</em>.</p>") + "\n\nAnd more.", "It *is*.\n\nAnd more."),
        (f"```html\n{PIECE}\n```", f"```html\n{PIECE}\n```"),
        (f"> ```html\n> {PIECE}\n> ```\n", f"> ```html\n> {PIECE}\n> ```\n"),
        ('Write `<div class="markdown prose">` and `</div>`.', 'Write `<div class="markdown prose">` and `</div>`.'),
        ("Own HTML:\n\n<div class='a'><p>Hi</p></div>", "Own HTML:\n\n<div class='a'><p>Hi</p></div>"),
    ],
)
def test_pieces_of_a_page_in_an_answer_become_markdown_in_place(text: str, expected: str) -> None:
    cleaned = clean_text(text, is_answer=True)
    assert cleaned.text == expected
    assert cleaned.notes.get("page_html_converted", 0) == (text != expected)
    assert "page_html_in_text" not in cleaned.notes
    assert clean_text(cleaned.text, is_answer=True).text == expected


def test_pieces_of_a_page_in_a_question_stay_and_are_counted() -> None:
    text = f"Why does this not render?\n\n{PIECE}"
    cleaned = clean_text(text)
    assert cleaned.text == text
    assert cleaned.notes == {"page_html_in_text": 1}


@pytest.mark.parametrize(
    "text",
    [
        "x " + '<div class="markdown prose">' * 100_000,
        "x " + '<div class="markdown prose">' * 50_000 + "</div>" * 50_000,
        "x " + '<pre class="hljs language-x">y</pre>' * 20_000,
        "x <pre " + "`" * 500_000 + "\n```\n" * 100_000 + "hljs language-",
        "x " + "</div>" * 100_000 + '<div class="markdown prose">',
    ],
)
def test_hostile_pieces_end_in_bounded_time(text: str) -> None:
    begin = time.process_time()
    clean_text(text, is_answer=True)
    assert time.process_time() - begin < 10
