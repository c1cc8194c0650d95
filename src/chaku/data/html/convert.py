"""A chat page's HTML to Markdown: one iterative walk over the DOM that selectolax (lexbor, the HTML5 algorithm) builds.

html-to-markdown 3.21.2 is not used: bare it gives 28 of our 76 golden pages, behind a DOM pre-pass 38. It runs
`&lt;script&gt;` and `javascript:` links, lets `__init__` become bold, doubles backslashes in TeX, joins neighbouring
lists, drops alignment, `value=` and breaks in cells; on pages with code it is no faster (bench/clean.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from selectolax.lexbor import LexborHTMLParser, LexborNode

from chaku.data.html import blocks, inline
from chaku.data.html.markdown import ELEMENTS
from chaku.data.html.page import Leave, Page, nothing

_REMOVED = frozenset(
    """button style svg noscript template head iframe object embed select textarea option canvas video audio title meta
    link base applet frame frameset map area dialog param source track datalist""".split()  # noqa: SIM905
)
_BLOCKS = frozenset(
    """div p section article main header footer nav aside figure figcaption details summary address dl dt dd center
    body html fieldset form legend hgroup search""".split()  # noqa: SIM905
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_KEPT = frozenset(("sup", "sub"))
_ENTER: dict[str | None, Callable[[Page, LexborNode], Leave | None]] = {
    **dict.fromkeys(_BLOCKS, blocks.enter_block),
    "p": blocks.enter_paragraph,
    **{tag: partial(blocks.enter_heading, level=level) for tag, level in _HEADINGS.items()},
    **{tag: partial(inline.enter_mark, marker=marker) for tag, marker in inline.MARKERS.items()},
    "a": inline.enter_link,
    "blockquote": blocks.enter_quote,
    "br": inline.enter_break,
    "code": inline.enter_code,
    "hr": blocks.enter_rule,
    "img": inline.enter_image,
    "input": inline.enter_input,
    "kbd": inline.enter_code,
    "li": blocks.enter_item,
    "math": inline.enter_mathml,
    "mjx-container": inline.enter_mathjax,
    "ol": blocks.enter_list,
    "pre": inline.enter_pre,
    "samp": inline.enter_code,
    "script": inline.enter_script,
    "span": inline.enter_span,
    "table": blocks.enter_table,
    "td": blocks.enter_cell,
    "th": blocks.enter_cell,
    "tr": blocks.enter_row,
    "tt": inline.enter_code,
    "ul": blocks.enter_list,
}


def parse(html: str) -> LexborHTMLParser:
    """The DOM, as a browser without scripting builds it."""
    return LexborHTMLParser(html)


def to_markdown(root: LexborNode, notes: Counter[str]) -> str:
    """Markdown of everything under `root`; what was removed or repaired is added to `notes`."""
    page = Page(notes)
    enter_by_tag = _ENTER.get
    opened: list[tuple[LexborNode, Leave]] = []
    node = root.first_child
    while True:
        while node is not None:
            if node.is_text_node:
                page.text(node.text_content or "")
            elif (leave := enter_by_tag(node.tag, _enter_other)(page, node)) is not None:
                child = node.first_child
                if child is not None:
                    opened.append((node, leave))
                    node = child
                    continue
                leave(page)
            node = node.next
        if not opened:
            return page.finished()
        node, leave = opened.pop()
        leave(page)
        node = node.next


def _enter_other(page: Page, node: LexborNode) -> Leave | None:
    tag = node.tag or ""
    if tag in _REMOVED or tag.startswith(("-", "_", "!")):
        if tag in ("button", "iframe", "object", "embed"):
            page.notes[f"{tag}_removed"] += 1
        return None
    if tag in _KEPT and not page.frames[-1].verbatim:
        return inline.enter_kept(page, tag)
    if tag not in ELEMENTS and tag.isalnum() and not node.attributes:
        page.notes["unknown_tag_kept"] += 1
        page.literal(f"<{tag}>")
    return nothing
