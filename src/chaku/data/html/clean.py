"""One message's text to clean Markdown: page HTML is converted by its DOM, anything else is left alone byte for byte.

`is_page_html` decides which, and when in doubt says no: HTML that a user *asks about* must survive. A text is page
HTML only when it is nothing but elements (starts with a page block's tag, no text beside the top-level elements) and
either carries a chat page's own marks (`markdown prose`, `katex-mathml`, …) or uses nothing but what rendered
Markdown consists of, without ids, styles or handlers and not laid out in indented lines as people write source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from selectolax.lexbor import LexborNode

from chaku.data.html.bounds import bounded
from chaku.data.html.convert import parse, to_markdown
from chaku.data.html.fragments import CHAT_MARKS, has_chat_marks, without_fragments

Kind = Literal["html", "markdown", "plain"]

ERROR_TEXTS = (
    "too many requests in 1 hour. try again later.",
    "an error occurred. if this issue persists please contact us",
    "an error occurred. either the engine you requested does not exist",
    "there was an error generating a response",
    "the server had an error while processing your request",
    "our systems are a bit busy at the moment, please take a break",
    "hmm...something seems to have gone wrong.",
    "something went wrong. if this issue persists please contact us",
    "something went wrong, please try reloading the conversation",
    "only one message at a time. please allow any other responses to complete",
    "you've reached our limit of messages per",
    "you've reached the current usage cap for gpt-4",
    "the message you submitted was too long",
    "error in message stream",
    "error in body stream",
    "conversation not found",
    "unable to load conversation",
    "unusual activity has been detected from your device",
    "we're experiencing exceptionally high demand",
    "network error",
    "failed to fetch",
)
"""How ChatGPT's page says, in the place of an answer, that there is none (2023 to 2025); compared in lower case."""
_ERROR_TAIL_CHARS = 200

_START = re.compile(r"<([A-Za-z][A-Za-z0-9-]*)(?=[\s>/])")
_FIRST = frozenset(
    """div p ul ol pre h1 h2 h3 h4 h5 h6 blockquote table hr dl article section main figure
    message-content response-element code-block""".split()  # noqa: SIM905
)
_PAGE_MARKS = (
    *CHAT_MARKS, "result-streaming", "whitespace-pre-wrap", "min-h-[20px]", "text-token-", "cm-content",
)  # fmt: skip
"""Marks that also stand in other sites' HTML count only where the text is nothing but elements."""
_VOCABULARY = frozenset(
    """div p span ul ol li pre code h1 h2 h3 h4 h5 h6 blockquote table thead tbody tfoot tr th td caption colgroup col
    hr br dl dt dd strong b em i del s strike a img sup sub mark kbd q cite figure figcaption article section main
    -text -comment""".split()  # noqa: SIM905
)
_PLAIN_ATTRIBUTES = frozenset(
    "href src alt title start value colspan rowspan align rel target dir lang width height cite".split()  # noqa: SIM905
)
_CODE_CLASS = re.compile(r"(?:hljs|lang\S*|prettyprint\S*|highlight\S*|codehilite|sourceCode|\s)*")
_ALIGN_STYLE = re.compile(r"\s*text-align:\s*(?:left|center|right|start|end);?\s*")
_INDENTED_TAG = re.compile(
    r"\n[ \t]+</?(?:p|div|ul|ol|li|h[1-6]|table|thead|tbody|tr|td|th|span|a|img|blockquote)\b", re.I
)
_MARKDOWN = re.compile(
    r"^(?:#{1,6} |```|~~~|> |[-*+] |\d{1,9}[.)] |\|.*\|[ \t]*$)"
    r"|\*\*\S|`[^`\n]{1,200}`|\[[^\]\n]{1,200}\]\([^)\s]{1,500}\)|\$\$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The text after cleaning, what it was, and how often each rule acted or found something (for the ledger).

    Rules ending in `_removed`, `_dropped`, `_flattened`, `_repaired`, `_replaced`, `_converted` changed the text; the
    others (`error_text`, `formula_lost`, `pager_like`, `page_html_in_text`, …) only say what was seen.
    """

    text: str
    kind: Kind
    notes: Mapping[str, int] = field(default_factory=dict)


def clean_text(text: str, *, is_answer: bool = False) -> Cleaned:
    """Clean one message. Never raises on any `str`; time and memory are linear in its length.

    In an answer, pieces of a chat page between Markdown are converted too: what a user writes may ask about them.
    """
    notes: Counter[str] = Counter()
    text = _without_surrogates(text, notes)
    body = _page_body(text, notes)
    if body is None:
        if is_answer:
            text = without_fragments(text, notes)
        _look_at_plain(text, notes)
        kind: Kind = "markdown" if _MARKDOWN.search(text) else "plain"
    else:
        kind = "html"
        text = to_markdown(body, notes)
        if is_page_html(text):
            notes["html_in_text_escaped"] += 1
            text = "\\" + text
    _look_for_errors(text, notes)
    return Cleaned(text, kind, {rule: count for rule, count in sorted(notes.items()) if count})


def is_page_html(text: str) -> bool:
    """Whether `text` is a rendered page's HTML, as opposed to text that holds or asks about HTML."""
    return _page_body(text, Counter()) is not None


def _page_body(text: str, notes: Counter[str]) -> LexborNode | None:
    start = _START.match(text.lstrip())
    if start is None or start[1].lower() not in _FIRST:
        return None
    found: Counter[str] = Counter()
    body = parse(bounded(text, found)).body
    has_marks = any(page_mark in text for page_mark in _PAGE_MARKS)
    is_whole = body is not None and all(not node.is_text_node or _is_blank(node) for node in _children(body))
    if body is not None and is_whole and (has_marks or _is_rendered_markdown(body, text)):
        notes.update(found)
        return body
    if is_whole:
        notes["html_left_alone"] += 1
    return None


def _children(node: LexborNode) -> list[LexborNode]:
    children = []
    child = node.first_child
    while child is not None:
        children.append(child)
        child = child.next
    return children


def _is_blank(node: LexborNode) -> bool:
    return not (node.text_content or "").strip()


def _is_rendered_markdown(body: LexborNode, text: str) -> bool:
    if _INDENTED_TAG.search(text):
        return False
    for node in body.traverse(include_text=False):
        tag = node.tag or ""
        if node.mem_id == body.mem_id or tag.startswith("-"):
            continue
        if tag not in _VOCABULARY:
            return False
        for name, value in node.attributes.items():
            if name in _PLAIN_ATTRIBUTES or name.startswith("data-"):
                continue
            if name == "class" and tag in ("pre", "code", "span", "div") and _CODE_CLASS.fullmatch(value or ""):
                continue
            if name == "style" and _ALIGN_STYLE.fullmatch(value or ""):
                continue
            return False
    return True


def _without_surrogates(text: str, notes: Counter[str]) -> str:
    """No lone halves of UTF-16 pairs, which no UTF-8 file can hold: pairs are joined, halves become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        notes["surrogate_replaced"] += 1
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _look_at_plain(text: str, notes: Counter[str]) -> None:
    if re.match(r"\s*\d{1,3} / \d{1,3}(?!\d)", text):
        notes["pager_like"] += 1
    if has_chat_marks(text):
        notes["page_html_in_text"] += 1


def _look_for_errors(text: str, notes: Counter[str]) -> None:
    beginning = text[:400].strip().lstrip("!").lower().replace("’", "'")
    for error in ERROR_TEXTS:
        if beginning.startswith(error) and len(text) <= len(error) + _ERROR_TAIL_CHARS:
            is_sentence = len(error) > 20
            if is_sentence or beginning.rstrip(".! ") == error:
                notes["error_text"] += 1
                return
