"""Pieces of a chat page between Markdown: found by the page's marks, outside code, and turned to Markdown in place."""

from __future__ import annotations

import bisect
import re
from collections import Counter, defaultdict

from chaku.data.html.bounds import bounded
from chaku.data.html.convert import parse, to_markdown
from chaku.data.html.markdown import indent

CHAT_MARKS = (
    # ChatGPT
    "markdown prose", "katex-mathml", "!whitespace-pre", "whitespace-pre!", "hljs language-",
    "data-message-author-role", "data-message-id", "data-start=", "contain-inline-size", "webpage-citation-pill",
    ">Copy code<", "Copy code</", "</svg>Copy",
    # Claude, Gemini, DeepSeek, Grok, Open WebUI
    "font-claude-", "font-user-message", "<message-content", "model-response-text", "code-block-decoration",
    "ds-markdown", "md-code-block", "response-content-markdown", "markdown-prose",
)  # fmt: skip
"""What stands in the HTML of chat pages and hardly anywhere else."""

_MARK = re.compile("|".join(map(re.escape, CHAT_MARKS)))
_FENCE = re.compile(r"^[ \t>]*(?:[-*+][ \t]+|\d{1,9}[.)][ \t]+)?(`{3,}|~{3,})(.*)$", re.MULTILINE)
_INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`)[^`\n]+\1(?!`)")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)(?=[\s>/])[^<>]*>")
_SPACE = re.compile(r"[ \t\n]*")
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())  # noqa: SIM905
_INLINE = frozenset("a b code del em i kbd s span strike strong sub sup".split())  # noqa: SIM905
Span = tuple[int, int]


def has_chat_marks(text: str) -> bool:
    """Whether HTML of a chat page stands in a text, outside its code."""
    return "<" in text and bool(_marks(text, _code_spans(text)) if _MARK.search(text) else ())


def without_fragments(text: str, notes: Counter[str]) -> str:
    """The text with every whole element that carries a chat page's marks as Markdown; unclosed ones stay."""
    if "<" not in text or not _MARK.search(text):
        return text
    code = _code_spans(text)
    marks = _marks(text, code)
    pieces: list[str] = []
    done = 0
    for name, start, end in _outermost(text, code):
        first = bisect.bisect_left(marks, start)
        body = parse(bounded(text[start:end], notes)).body if first < len(marks) and marks[first] < end else None
        if body is None:
            continue
        notes["page_html_converted"] += 1
        before, markdown = text[done:start], to_markdown(body, notes)
        if name not in _INLINE:
            before, markdown, end = _set_apart(text, before, markdown, end)
        pieces += [before, markdown]
        done = end
    return "".join([*pieces, text[done:]])


def _set_apart(text: str, before: str, block: str, end: int) -> tuple[str, str, int]:
    """A block between blank lines, indented as the line on which its element began."""
    line = before.rsplit("\n", 1)[-1]
    margin = line if not line.strip() else ""
    lead = before.rstrip()
    end = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # matches anywhere
    after_space = "\n\n" if end < len(text) else ""
    before_space = "\n\n" + margin if lead else margin
    return lead + before_space, indent(block, margin) + after_space, end


def _code_spans(text: str) -> list[Span]:
    """Where fenced blocks and code spans are, in order."""
    spans: list[Span] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        ticks, words = fence.groups()
        if opened is None:
            if "`" not in words or ticks[0] == "~":
                opened = fence
        elif ticks.startswith(opened[1]) and not words.strip():
            spans.append((opened.start(), fence.end()))
            opened = None
    if opened is not None:
        spans.append((opened.start(), len(text)))
    lines = [found.span() for found in _INLINE_CODE.finditer(text)]
    return sorted([*spans, *(span for span in lines if not _is_within(span[0], spans))])


def _is_within(position: int, spans: list[Span]) -> bool:
    at = bisect.bisect_right(spans, (position, len(spans) and spans[-1][1] + 1)) - 1
    return at >= 0 and spans[at][0] <= position < spans[at][1]


def _marks(text: str, code: list[Span]) -> list[int]:
    """Where marks stand inside of tags or beside them, not in code."""
    return [found.start() for found in _MARK.finditer(text) if not _is_within(found.start(), code)]


def _outermost(text: str, code: list[Span]) -> list[tuple[str, int, int]]:
    """Whole elements that lie in no other one, in order: name, start, end."""
    opened: defaultdict[str, list[int]] = defaultdict(list)
    whole: list[tuple[int, int, str]] = []
    for tag in _TAG.finditer(text):
        name = tag[2].lower()
        if name in _VOID or tag[0].endswith("/>") or _is_within(tag.start(), code):
            continue
        if not tag[1]:
            opened[name].append(tag.start())
        elif opened[name]:
            whole.append((opened[name].pop(), -tag.end(), name))
    found: list[tuple[str, int, int]] = []
    for start, minus_end, name in sorted(whole):
        if not found or start >= found[-1][2]:
            found.append((name, start, -minus_end))
    return found
