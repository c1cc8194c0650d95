"""The splitter: a stream of Markdown cut into blocks says the same as the whole."""

import html
import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from chaku.cli.terminal.blocks import MAX_OPEN_CHARS, CodeEnd, CodeLine, CodeStart, Markdown, Splitter

PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")


def split(*texts):
    splitter = Splitter()
    pieces = [piece for text in texts for piece in splitter.feed(text)]
    return pieces + splitter.close()


def words(rendered):
    """What is read: text without tags and white space, and every code block's own lines."""
    read = re.sub(r"\s+", "", html.unescape(re.sub(r"</?(p|ul|ol|li)\b[^>]*>", "", rendered)))
    return read.replace("</code></pre><pre><code>", "")  # indented code with an empty line in it is two pieces


def rendered_in_pieces(pieces):
    parts = []
    for piece in pieces:
        if isinstance(piece, Markdown):
            parts.append(PARSER.render(piece.text))
        elif isinstance(piece, CodeStart):
            parts.append(
                "<pre><code" + (f' class="language-{html.escape(piece.language)}">' if piece.language else ">")
            )
        elif isinstance(piece, CodeLine):
            parts.append(html.escape(piece.text) + "\n")
        else:
            parts.append("</code></pre>\n")
    return "".join(parts)


LINES = [
    "", "", "plain words", "more *words*", "# Head", "---", "===", "- item", "* other", "1. first", "2. second",
    "12) twelfth", "  - nested", "   continued", "```", "```python", "~~~", "    indented", "   ```", "> quote",
    ">> deep", "| a | b |", "|---|---|", "| 1 | 2 |", "***", "  text", "`tick`", "- ```", "  ```", "def f():", "\t tab",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=14))
@example(["1. first", "", "   ```", "   - not an item", "   ```", "2. second"])
@example(["- item", "plain words", "", "plain words"])
@example(["plain words", "2. second"])
@example(["```python", "```", "---"])
def test_the_pieces_say_what_the_whole_says(lines):
    text = "\n".join(lines)
    assert words(rendered_in_pieces(split(text))) == words(PARSER.render(text))


@given(st.lists(st.sampled_from(LINES), max_size=10), st.lists(st.integers(0, 80), max_size=5))
def test_the_pieces_are_the_same_however_the_text_arrives(lines, cuts):
    text = "\n".join(lines)
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    arriving = [text[a:b] for a, b in itertools.pairwise(borders)]
    assert split(*arriving) == split(text) == split(*text)


def test_an_item_is_finished_when_the_next_one_begins():
    splitter = Splitter()
    assert splitter.feed("- one\n  - inner\n- tw") == []
    assert splitter.feed("o\n") == [Markdown("- one\n  - inner")]
    assert splitter.open_text == "- two\n"
    assert splitter.feed("\n- three\n") == [Markdown("- two", gap=False)]
    assert splitter.close() == [Markdown("- three", gap=True)]


def test_code_is_handed_out_line_by_line():
    splitter = Splitter()
    assert splitter.feed("Look:\n```py\nx = 1\ny") == [Markdown("Look:"), CodeStart("py"), CodeLine("x = 1")]
    assert (splitter.in_code, splitter.open_text) == (True, "y")
    assert splitter.feed("\n```\n") == [CodeLine("y"), CodeEnd()]
    assert not splitter.in_code


def test_a_fence_that_never_closes_is_closed_at_the_end():
    assert split("```\nx") == [CodeStart(""), CodeLine("x"), CodeEnd()]


def test_a_table_stays_whole():
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
    assert split(table + "\n\nend") == [Markdown(table), Markdown("end")]


@pytest.mark.parametrize("filler", ["words and words. ", "字", "line\n"])
def test_an_endless_paragraph_is_cut_and_loses_nothing(filler):
    text = filler * (20_000 // len(filler))
    splitter = Splitter()
    pieces, longest = [], 0
    for position in range(0, len(text), 7):
        pieces += splitter.feed(text[position : position + 7])
        longest = max(longest, len(splitter.open_text))
    pieces += splitter.close()
    assert longest <= MAX_OPEN_CHARS
    assert [piece.gap for piece in pieces[1:]] == [False] * (len(pieces) - 1)
    assert re.sub(r"\s", "", "".join(piece.text for piece in pieces)) == re.sub(r"\s", "", text)
