"""Markdown that is still being written, cut into blocks that are finished and the one that is open.

Pure text in, pure text out; after CommonMark, where a block is finished once nothing that follows can change it.
Items of a list are blocks of their own, and a fenced block is handed out line by line, so that neither a long list
nor a long program is ever open as a whole.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

MAX_OPEN_CHARS = 4000  # a paragraph that grows beyond is cut, so that drawing the open block stays cheap

_FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$")
_HEADING = re.compile(r"^ {0,3}#{1,6}(?:[ \t]|$)")
_RULE = re.compile(r"^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_UNDERLINE = re.compile(r"^ {0,3}(?:=+|-+)[ \t]*$")
_ITEM = re.compile(r"^( {0,3})([-*+]|\d{1,9}[.)])(?:([ \t]+)(?=\S)|[ \t]*$)")
_QUOTE = re.compile(r"^ {0,3}>")


@dataclass(frozen=True)
class Markdown:
    """A finished block. `gap`: whether an empty line belongs before it."""

    text: str
    gap: bool = True


@dataclass(frozen=True)
class CodeStart:
    """A fenced block begins; `language` is the first word after the fence."""

    language: str


@dataclass(frozen=True)
class CodeLine:
    """One whole line of a fenced block."""

    text: str


@dataclass(frozen=True)
class CodeEnd:
    """The fenced block is closed."""


Piece = Markdown | CodeStart | CodeLine | CodeEnd


class Splitter:
    """Feed it text as it comes; it gives back what is finished. What is not is `open_text`."""

    def __init__(self) -> None:
        self._line = ""  # the unfinished last line
        self._block: list[str] = []  # the lines of the open block
        self._fence = ""  # what the open fence consists of, "" outside
        self._fence_indent = 0
        self._item_indent: int | None = None  # where an open item's text starts, None outside a list
        self._item_fence = ""
        self._gap = False
        self._cut = False  # the open paragraph is the rest of a longer one
        self._after_item = False
        self._pieces: list[Piece] = []

    @property
    def in_code(self) -> bool:
        """Whether a fenced block is open."""
        return bool(self._fence)

    @property
    def open_text(self) -> str:
        """What is not finished: Markdown of the open block, or the open line of a fenced one."""
        if self._fence:
            return self._line
        return "\n".join([*self._block, self._line])

    @property
    def gap(self) -> bool:
        """Whether an empty line belongs before the open block."""
        return self._wants_gap(_ITEM.match(self._block[0] if self._block else self._line) is not None)

    def feed(self, text: str) -> list[Piece]:
        """What this text finishes."""
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            self._line = ""
            self._take(line)
        self._line = rest
        if not self._fence and self._item_indent is None and len(self.open_text) > MAX_OPEN_CHARS:
            self._cut_paragraph()
        return self._hand_out()

    def close(self) -> list[Piece]:
        """Everything that is left, the text being over."""
        if self._line:
            line, self._line = self._line, ""
            self._take(line)
        self._finish()
        if self._fence:
            self._fence = ""
            self._pieces.append(CodeEnd())
        return self._hand_out()

    def _hand_out(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _take(self, line: str) -> None:
        if self._is_indented_code() and line.strip() and _indent(line.expandtabs(4)) < 4:
            self._finish()
        if self._item_indent is not None and not self._continues_item(line, self._item_indent):
            self._finish()
        if self._fence:
            self._take_code(line)
        elif self._item_indent is not None:
            self._note_fence_in_item(line, self._item_indent)
            self._block.append(line.rstrip() and line)
        elif not line.strip():
            self._finish()
            self._gap = True
        elif self._block and not self._is_quote() and _UNDERLINE.match(line) and not self._is_table():
            self._block.append(line)
            self._finish()
        elif _RULE.match(line) or _HEADING.match(line):
            self._finish()
            self._block = [line]
            self._finish()
        elif fence := _FENCE.match(line):
            self._finish()
            self._fence_indent, self._fence = len(fence[1]), fence[2]
            self._after_item = False
            self._pieces.append(CodeStart(fence[3].split()[0] if fence[3].strip() else ""))
        elif item := self._starts_item(line):
            self._finish()
            self._block = [line]
            self._item_indent = len(item[0]) if item[3] and len(item[3]) <= 4 else len(item[1]) + len(item[2]) + 1
            fence = _FENCE.match(line[self._item_indent :])
            self._item_fence = fence[2] if fence else ""
        else:
            if _QUOTE.match(line) and not self._is_quote():
                self._finish()
            self._block.append(line)

    def _take_code(self, line: str) -> None:
        mark = line.strip()
        if _indent(line) <= 3 and mark.startswith(self._fence) and not mark.strip(self._fence[0]):
            self._fence = ""
            self._gap = True
            self._pieces.append(CodeEnd())
        else:
            indent = min(self._fence_indent, _indent(line))
            self._pieces.append(CodeLine(line[indent:]))

    def _continues_item(self, line: str, item_indent: int) -> bool:
        """Whether a line goes on with the open item: an empty one, an indented one, or one more of its paragraph."""
        if not line.strip():
            return True
        if self._block[1:2] == [""] and not self._block[0][item_indent:].strip():
            return False  # an item begins with at most one empty line
        if _indent(line.expandtabs(4)) >= item_indent:
            return True
        last = self._block[-1][item_indent:] if len(self._block) == 1 else self._block[-1]
        after_paragraph = bool(last.strip()) and not _FENCE.match(last.lstrip()) and not _HEADING.match(last.lstrip())
        starts_another = any(start.match(line) for start in (_HEADING, _RULE, _FENCE, _ITEM, _QUOTE))
        return after_paragraph and not self._item_fence and not starts_another

    def _note_fence_in_item(self, line: str, item_indent: int) -> None:
        """Whether a fenced block is open inside the item after this line."""
        wide = line.expandtabs(4)
        if _indent(wide) < item_indent:
            return
        inner = wide[item_indent:]
        if not self._item_fence:
            fence = _FENCE.match(inner)
            self._item_fence = fence[2] if fence else ""
        elif inner.strip().startswith(self._item_fence) and not inner.strip().strip(self._item_fence[0]):
            self._item_fence = ""

    def _starts_item(self, line: str) -> re.Match[str] | None:
        """In the middle of a paragraph only a bullet or a 1 with text after it begins a list (CommonMark 5.3)."""
        item = _ITEM.match(line)
        if (
            item
            and self._block
            and not self._is_quote()
            and not (item[3] and (item[2] in "-*+" or item[2][:-1] == "1"))
        ):
            return None
        return item

    def _is_quote(self) -> bool:
        return bool(self._block) and _QUOTE.match(self._block[0]) is not None

    def _is_table(self) -> bool:
        """A table takes any line until an empty one, `===` too."""
        return any("|" in head and _TABLE_RULE.fullmatch(rule) for head, rule in itertools.pairwise(self._block))

    def _is_indented_code(self) -> bool:
        return bool(self._block) and self._item_indent is None and _indent(self._block[0].expandtabs(4)) >= 4

    def _wants_gap(self, is_item: bool) -> bool:
        return not self._cut and (self._gap or not (is_item and self._after_item))

    def _finish(self) -> None:
        if not self._block:
            return
        trailing_empty = not self._block[-1].strip()
        is_item = self._item_indent is not None
        text = "\n".join(self._block).rstrip()
        if text:
            self._pieces.append(Markdown(text, self._wants_gap(is_item)))
        self._block = []
        self._item_indent = None
        self._item_fence = ""
        self._cut = False
        self._after_item = is_item
        self._gap = trailing_empty

    def _cut_paragraph(self) -> None:
        text = self.open_text
        ends = (text.rfind(end, MAX_OPEN_CHARS // 2) for end in ("\n", ". ", " "))
        end = next((end + 1 for end in ends if end >= 0), MAX_OPEN_CHARS)
        self._pieces.append(Markdown(text[:end].rstrip(), self._wants_gap(False)))
        *self._block, self._line = text[end:].split("\n")
        self._cut, self._gap, self._after_item = True, False, False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
