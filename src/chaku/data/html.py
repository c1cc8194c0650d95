"""A chat page's HTML to Markdown: one iterative walk over the DOM that selectolax (lexbor, the HTML5 algorithm) builds.

DOC
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from selectolax.lexbor import LexborHTMLParser, LexborNode

from chaku.data import blocks, inline
from chaku.data.markdown import ELEMENTS
from chaku.data.page import Leave, Mark, Page, nothing

_REMOVED = frozenset(
    """button style svg noscript template head iframe object embed select textarea option canvas video audio title meta
    link base applet frame frameset map area dialog param source track datalist""".split()  # noqa: SIM905
)
_BLOCKS = frozenset(
    """div p section article main header footer nav aside figure figcaption details summary address dl dt dd center
    body html fieldset form legend hgroup search""".split()  # noqa: SIM905
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_MARKERS = {"strong": "**", "b": "**", "em": "*", "i": "*", "del": "~~", "s": "~~", "strike": "~~"}
_KEPT = frozenset(("sup", "sub"))
_ENTER: dict[str, Callable[[Page, LexborNode], Leave | None]] = {
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
    opened: list[tuple[LexborNode, Leave]] = []
    node = root.first_child
    while True:
        while node is not None:
            if node.is_text_node:
                page.text(node.text_content or "")
            elif (leave := _enter(page, node)) is not None:
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


def _enter(page: Page, node: LexborNode) -> Leave | None:
    tag = node.tag or ""
    enter = _ENTER.get(tag)
    if enter is not None:
        return enter(page, node)
    if tag in _MARKERS:
        return inline.enter_mark(page, Mark(_MARKERS[tag]))
    if tag in _HEADINGS:
        return blocks.enter_heading(page, node, _HEADINGS[tag])
    if tag in _BLOCKS:
        return blocks.enter_block(page, node, tag)
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
