"""A Markdown document under construction: a stack of open blocks, the inline text of each, and what was removed.

A block that opens inside emphasis or a link ends the mark before it and begins it again inside, so that Markdown's
rule (marks live within a paragraph) holds for any nesting the page has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chaku.data.html import markdown
from chaku.data.html.languages import canonical, language_of_label
from chaku.data.html.markdown import BREAK, Item, mark

MAX_NESTING = 16
"""Lists and quotes nested deeper than this keep their text and lose their markers."""

_MAX_NUMBER = 999_999_999  # CommonMark's largest list number
_SPACE = re.compile(r"[ \t\r\f]*\n[ \t\r\n\f]*|[ \t\r\f]{2,}|[\t\r\f]")
_JUNK = re.compile("[\u200b\u2060\ufeff\u00ad\ufdd0-\ufdef]")
# Reference marks that the page's renderer would have drawn: browsing's 【1†source】 and 2025's private-use brackets.
_CITATION = re.compile("【[^【】]{0,40}†[^【】]{0,200}】|\ue200[^\ue201]{0,400}\ue201|[\ue200-\ue206]")
_PAGER = re.compile(r"[<‹]?\s*\d{1,3}\s?/\s?\d{1,3}\s*[>›]?")
_FURNITURE = re.compile(
    r"Cop(?:y|ied)!?(?: code| table)?(?:\s?\d+ chars / \d+ words)?|ChatGPT|(?:ChatGPT|You) said:"
    r"|Regenerate(?: response)?"
    r"|Was this response better or worse\?(?:BetterWorseSame)?|Thought for (?:a few|\d+) seconds?"
)


@dataclass(slots=True)
class Frame:
    """One open block: finished blocks, and the inline text of the paragraph being built, one buffer per open mark."""

    kind: str
    blocks: list[tuple[str, str]] = field(default_factory=list)
    buffers: list[list[str]] = field(default_factory=lambda: [[]])
    spaced: bool = True
    prose: bool = False
    verbatim: bool = False
    start: int | None = None
    items: list[Item] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    alignment: list[str] = field(default_factory=list)
    number: int | None = None


@dataclass(slots=True)
class Mark:
    """An open inline element: its marker, or a link's target."""

    marker: str
    href: str = ""


class Page:
    """The document: `frames` are the open blocks, `marks` the open inline elements, `notes` the rules that acted."""

    def __init__(self, notes: Counter[str]) -> None:
        self.notes = notes
        self.frames = [Frame("div")]
        self.marks: list[Mark] = []
        self.nesting = 0

    def finished(self) -> str:
        """The Markdown, once everything is closed."""
        frame = self.frames[0]
        self.flush(frame)
        return "\n\n".join(text for _, text in frame.blocks)

    def text(self, text: str) -> None:
        """Add a text node: white space as HTML collapses it, but a line end stays one, since the page showed it."""
        frame = self.frames[-1]
        if frame.kind in ("table", "tr", "list") and not text.strip():
            return
        if frame.verbatim:
            frame.buffers[-1].append(self.without_junk(text))
            return
        if not is_ordinary(text):
            text = _SPACE.sub(lambda run: "\n" if "\n" in run[0] else " ", self.without_junk(text))
            if frame.kind in ("cell", "heading"):
                text = text.replace("\n", " ")
        if frame.spaced:
            text = text.lstrip(" \n")
        if text:
            frame.spaced = text[-1] in " \n"
            frame.buffers[-1].append(mark(text))

    def without_junk(self, text: str) -> str:
        """Text without zero-width characters and the reference marks that the page draws as something else."""
        if text.isascii():
            return text
        text, removed = _JUNK.subn("", text.replace("\u00a0", " "))
        if removed:
            self.notes["zero_width_removed"] += removed
        text, removed = _CITATION.subn("", text)
        if removed:
            self.notes["citation_removed"] += removed
        return text

    def literal(self, markup: str) -> None:
        """Add finished inline Markdown."""
        if markup:
            self.frames[-1].buffers[-1].append(markup)
            self.frames[-1].spaced = False

    def open(self, kind: str, *, verbatim: bool = False, prose: bool = False) -> Frame:
        """Begin a block: the paragraph before it ends, and marks that are open begin again inside."""
        parent = self.frames[-1]
        self.flush(parent)
        frame = Frame(kind, prose=prose or parent.prose, verbatim=verbatim)
        if self.marks:
            frame.buffers += [[] for _ in self.marks]
        self.frames.append(frame)
        return frame

    def close(self) -> Frame:
        """End the innermost block and return it."""
        frame = self.frames[-1]
        self.flush(frame)
        self.frames.pop()
        return frame

    def flush(self, frame: Frame) -> None:
        """End the paragraph that is being built in this frame."""
        while len(frame.buffers) > 1:
            self.finish_mark(frame, self.marks[len(frame.buffers) - 2])
        pieces = frame.buffers[0]
        if not pieces and not self.marks:
            return
        frame.buffers = [[] for _ in range(len(self.marks) + 1)]
        frame.spaced = True
        text = "".join(pieces)
        if not text or text.isspace():
            return
        if frame.verbatim:
            self.append(frame, "p", text.strip("\n").rstrip())
            return
        paragraphs = markdown.paragraph(text)
        if frame.kind == "div" and not frame.prose:
            paragraphs = [text for text in paragraphs if not self.is_furniture(text)]
        kind = "p" if frame.kind == "p" else "text"
        for paragraph in paragraphs:
            self.append(frame, kind, paragraph)

    def is_furniture(self, text: str) -> bool:
        """Whether a paragraph outside the answer is the page's own: a pager, a copy count, a speaker's name."""
        if len(text) > 80:
            return False
        if _PAGER.fullmatch(text):
            self.notes["pager_removed"] += 1
            return True
        if _FURNITURE.fullmatch(text):
            self.notes["furniture_removed"] += 1
            return True
        return False

    def add_block(self, kind: str, text: str) -> None:
        """Add a finished block to the innermost open one."""
        if not text:
            return
        frame = self.frames[-1]
        self.flush(frame)
        self.append(frame, kind, text)

    def append(self, frame: Frame, kind: str, text: str) -> None:
        """Add a finished block; one that lies in a list and in no item goes to the item before it."""
        if frame.kind == "list":
            self.notes["list_repaired"] += 1
            if not frame.items:
                frame.items.append(Item([]))
            frame.items[-1].blocks.append((kind, text))
            return
        if kind == "code" and frame.blocks and frame.kind not in ("li", "cell"):
            text = self.labelled(frame, text)
        frame.blocks.append((kind, text))

    def labelled(self, frame: Frame, code: str) -> str:
        """A code block under a paragraph that is a language's name: the page's label becomes the fence's language."""
        kind, label = frame.blocks[-1]
        ticks, language, rest = markdown.parts_of_fence(code)
        if kind not in ("text", "p") or not (named := language_of_label(label)):
            return code
        if language and canonical(language) != canonical(named):
            return code
        frame.blocks.pop()
        self.notes["label_removed"] += 1
        return f"{ticks}{language or named}{rest}"

    def finish_mark(self, frame: Frame, finished: Mark) -> None:
        """Close the innermost mark's buffer into the one around it."""
        inner = "".join(frame.buffers.pop())
        outer = frame.buffers[-1]
        if finished.marker == "[":
            stripped = inner.strip(f" \n{BREAK}")
            if stripped:
                before, _, after = inner.partition(stripped)
                outer.append(before + markdown.link(stripped, finished.href) + after)
            return
        before, marked, after = markdown.emphasis(finished.marker, inner)
        last = outer[-1] if outer else ""
        size = len(finished.marker)
        if marked and not before and len(last) > 2 * size and _ends_mark(last, finished.marker):
            outer[-1] = last[:-size] + marked[size:]
        elif marked or before:
            outer += [piece for piece in (before, marked) if piece]
        if after:
            outer.append(after)


def _ends_mark(piece: str, marker: str) -> bool:
    """Whether a finished piece is `marker`…`marker` and nothing longer."""
    star = marker[0]
    size = len(marker)
    run = len(piece) - len(piece.rstrip(star))
    return run == size and piece.startswith(marker) and not piece.startswith(star * (size + 1))


Leave = Callable[[Page], None]
"""What to do when an element ends."""


def nothing(_: Page) -> None:
    """Leave an element that only its content speaks for."""


def is_ordinary(text: str) -> bool:
    """Whether text needs no cleaning: printable characters have no junk and no white space but single spaces."""
    return text.isprintable() and "  " not in text and "【" not in text


def is_hidden(attributes: dict[str, str | None], classes: str) -> bool:
    """Whether the page does not show this element, or shows it to screen readers only."""
    return (
        "sr-only" in classes
        or attributes.get("aria-hidden") == "true"
        or "hidden" in attributes
        or "display:none" in (attributes.get("style") or "").replace(" ", "")
    )


def number_of(value: str | None, default: int) -> int:
    """An HTML integer, within what CommonMark takes."""
    try:
        return min(max(int((value or "").strip()[:12]), 0), _MAX_NUMBER)
    except ValueError:
        return default
