"""Cleaning as properties: any soup of tags, any text, any code, any list."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser

from chaku.data.html.clean import clean_text, is_page_html
from data.made import PIECE, WRAP

TAGS = """div p ul ol li pre code strong em b i a table tr td th h1 h3 blockquote span br hr img del sup script style
    button""".split()  # noqa: SIM905


SOUP = st.lists(
    st.one_of(
        st.sampled_from([f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]),
        st.sampled_from(
            [
                "<a href='http://x.y'>",
                "<div class='whitespace-pre-wrap'>",
                "<span class='katex'>",
                "&lt;p&gt;",
                "&amp;lt;",
            ]
        ),
        st.text(alphabet="ab *_`[]()<>&!\\$~#-+=|1.\n\u200b\u00a0é", max_size=8),
    ),
    max_size=30,
).map("".join)


@given(SOUP)
@settings(max_examples=300, deadline=None)
def test_tag_soup_never_crashes_and_cleaning_twice_is_cleaning_once(soup: str) -> None:
    once = clean_text(WRAP.format(soup))
    assert clean_text(once.text).text == once.text
    assert not is_page_html(once.text)


@given(SOUP)
@settings(max_examples=200, deadline=None)
def test_nothing_executable_remains(soup: str) -> None:
    soup = soup.replace("</div>", "")  # text after the page's own end makes it a question about HTML, left alone
    hostile = f"<script>{soup}</script><p onclick='x()'>{soup}</p><a href='javascript:x()'>y</a>"
    rendered = MarkdownIt("commonmark", {"html": True}).render(clean_text(WRAP.format(hostile)).text)
    assert LexborHTMLParser(rendered).css_first("script, style, button, [onclick], [href^='javascript']") is None


# `\(` and the like are left to TeX; markdown-it's table-less CommonMark would take the backslash away.
TEX = re.compile(r"\\(?=[()\[\]{},;!%$#|:>])")


WORDS = st.text(alphabet="ab1 *_`[]()<>&!\\~#-+=|.:\"'é", min_size=1, max_size=12)


@st.composite
def inline(draw: st.DrawFn) -> str:
    escape = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"})
    text = draw(WORDS.filter(lambda text: not TEX.search(text))).translate(escape)
    return draw(
        st.sampled_from(["{}", "{}", "{}", "<code>x{}</code>", " <strong>a</strong> {}", "{} <em>b c</em> "])
    ).format(text)


def words_of(html: str) -> str:
    return "".join(LexborHTMLParser(html).body.text(deep=True).split())


@given(st.lists(inline(), min_size=1, max_size=5))
@settings(max_examples=400, deadline=None)
def test_text_survives_the_way_through_markdown(pieces: list[str]) -> None:
    page = f"<p>x {' '.join(pieces)} x</p>"
    rendered = MarkdownIt("commonmark").enable("strikethrough").render(clean_text(WRAP.format(page)).text)
    assert words_of(rendered) == words_of(page)


@given(
    st.lists(inline(), max_size=5), st.sampled_from(["<p>{}</p>", "<ul><li>{}</li></ul>", "<table><tr><td>{}</table>"])
)
@settings(max_examples=300, deadline=None)
def test_the_short_way_through_plain_lines_says_what_the_walk_says(pieces: list[str], around: str) -> None:
    line = "".join(pieces)
    # A comment within the element is nothing to the reader, and makes it take the long way.
    assert (
        clean_text(WRAP.format(around.format(line))).text
        == clean_text(WRAP.format(around.format(line + "<!-- -->"))).text
    )


CODE = st.text(alphabet="ab `~\n\t<>&*_\\", max_size=40)


@given(
    CODE, st.sampled_from(["{}", "<ul><li>{}</li></ul>", "<blockquote>{}</blockquote>", "<ol><li><p>a</p>{}</li></ol>"])
)
@settings(max_examples=200, deadline=None)
def test_code_survives_the_way_through_markdown(code: str, around: str) -> None:
    escaped = code.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    page = WRAP.format(around.format(f'<pre><code class="language-x">#{escaped}#\n</code></pre>'))
    rendered = MarkdownIt("commonmark").render(clean_text(page).text)
    holder = LexborHTMLParser(rendered).css_first("pre code.language-x")
    assert holder is not None
    lines = holder.text(deep=True).split("\n")
    assert [line if line.strip() else "" for line in lines] == [
        line if line.strip() else "" for line in f"#{code}#\n".split("\n")
    ]


@st.composite
def lists(draw: st.DrawFn, depth: int = 3) -> str:
    tag = draw(st.sampled_from(["ul", "ol"]))
    items = draw(st.lists(st.sampled_from(["a", "<p>b</p>", "c <code>d</code>"]), min_size=1, max_size=3))
    if depth:
        items = [item + draw(st.one_of(st.just(""), lists(depth=depth - 1))) for item in items]
    return f"<{tag}>" + "".join(f"<li>{item}</li>" for item in items) + f"</{tag}>"


def shape_of(html: str) -> list[str]:
    body = LexborHTMLParser(html).body
    return [
        "/".join(parents_of(node))
        for node in body.traverse(include_text=False)
        if node.tag in ("li", "code", "ul", "ol")
    ]


def parents_of(node) -> list[str]:
    path = []
    while node is not None and node.tag != "body":
        path.append(node.tag)
        node = node.parent
    return [tag for tag in path if tag in ("li", "code", "ul", "ol")]


@given(lists())
@settings(max_examples=200, deadline=None)
def test_lists_keep_their_shape(page: str) -> None:
    rendered = MarkdownIt("commonmark").render(clean_text(page).text)
    assert shape_of(rendered) == shape_of(page)


@given(SOUP)
@settings(max_examples=200, deadline=None)
def test_pieces_among_soup_never_crash(soup: str) -> None:
    clean_text(f"x {soup} {PIECE} {soup}", is_answer=True)
