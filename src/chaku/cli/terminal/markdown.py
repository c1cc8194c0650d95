"""Markdown and code drawn with rich, in the terminal's own sixteen colours so that dark and light ones both work."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import ClassVar, cast

import rich.markdown
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline, escape
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Token
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

# No background anywhere, and none of the colours that one of dark and light can't show (black, white, yellow, blue).
THEME = Theme(
    {
        "markdown.h1": Style(bold=True, underline=True),
        "markdown.h2": Style(bold=True, underline=True),
        "markdown.h3": Style(bold=True),
        "markdown.h4": Style(bold=True, italic=True),
        "markdown.code": Style(color="cyan"),
        "markdown.block_quote": Style(italic=True),
        "markdown.item.bullet": Style(color="cyan"),
        "markdown.item.number": Style(color="cyan"),
        "markdown.link": Style(underline=True),
        "markdown.link_url": Style(dim=True),
        "markdown.table.border": Style(dim=True),
        "markdown.table.header": Style(bold=True),
    }
)
CODE_THEME = ANSISyntaxTheme(
    {
        Token: Style(),
        Comment: Style(dim=True, italic=True),
        Keyword: Style(color="magenta"),
        Operator.Word: Style(color="magenta"),
        Name.Function: Style(bold=True),
        Name.Class: Style(bold=True),
        Name.Decorator: Style(color="magenta"),
        Name.Builtin: Style(color="cyan"),
        Name.Tag: Style(color="magenta"),
        Number: Style(color="cyan"),
        String: Style(color="green"),
    }
)
CONTEXT_LINES = 100  # how far back the highlighter looks; a string opened before that is not seen

# Control characters a model may write must not steer the terminal: ESC is shown, the others go. Tab and newline stay.
_CONTROL = {code: None for code in [*range(32), *range(127, 160)] if chr(code) not in "\t\n"} | {27: "␛"}


def clean(text: str) -> str:
    """Text that a terminal only shows."""
    return text.translate(_CONTROL)


class _Heading(rich.markdown.Heading):
    LEVEL_ALIGN = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "left")


class _CodeBlock(rich.markdown.CodeBlock):
    """Code inside a list or a quote; fenced blocks of their own are drawn line by line."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = Syntax(str(self.text).rstrip(), self.lexer_name, theme=CODE_THEME)
        yield code.highlight(str(self.text).rstrip())


class _ListItem(rich.markdown.ListItem):
    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        numeral = f" {number}. "
        style = console.get_style("markdown.item.number")
        lines = console.render_lines(self.elements, options.update(width=max(1, options.max_width - len(numeral))))
        for position, line in enumerate(lines):
            yield Segment(" " * len(numeral) if position else numeral, style)
            yield from line
            yield Segment.line()


class _Rule(rich.markdown.HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(style="markdown.hr")


class _Table(rich.markdown.TableElement):
    """Cells wrap, and break where a word is too long: nothing is cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, border_style="markdown.table.border")
        if self.header is not None and self.header.row is not None:
            for cell in self.header.row.cells:
                heading = cell.content.copy()
                heading.stylize("markdown.table.header")
                table.add_column(heading, overflow="fold")
        for row in self.body.rows if self.body is not None else ():
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class Block(rich.markdown.Markdown):
    """One block of Markdown. HTML is shown as it was written: a tag may be what the answer is about."""

    elements: ClassVar = {
        **rich.markdown.Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "list_item_open": _ListItem,
        "hr": _Rule,
        "table_open": _Table,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Without the empty lines that rich puts around (gaps are the view's) and its spaces at line ends."""
        drawn = Segment.split_lines(cast(Iterable[Segment], super().__rich_console__(console, options)))
        lines = list(itertools.dropwhile(lambda line: not line, map(_without_padding, drawn)))
        while lines and not lines[-1]:
            lines.pop()
        for line in lines:
            yield from line
            yield Segment.line()


def _without_padding(line: list[Segment]) -> list[Segment]:
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style)
    return kept


def _escape_but_math(state: StateInline, silent: bool) -> bool:
    r"""CommonMark's backslash rule, which would turn \( \) and \[ \], the marks of a formula, into plain brackets."""
    if state.src[state.pos : state.pos + 2] in _MATH:
        return False
    return escape(state, silent)


_MATH = (r"\(", r"\)", r"\[", r"\]")
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_PARSER.inline.ruler.at("escape", _escape_but_math)


class Highlighter:
    """Colours the lines of one program as they come, with the lines before them in view."""

    def __init__(self, language: str) -> None:
        self._syntax = Syntax("", language or "text", theme=CODE_THEME)
        self._lines: deque[str] = deque(maxlen=CONTEXT_LINES)

    def line(self, text: str) -> Text:
        """One finished line in colour."""
        self._lines.append(text)
        whole = self._syntax.highlight("\n".join(self._lines))
        if whole.plain.endswith("\n"):
            whole.right_crop(1)
        lines = whole.split("\n", allow_blank=True)
        return lines[-1] if len(lines) == len(self._lines) else Text(text)
