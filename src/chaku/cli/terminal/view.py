"""Where an answer appears while it comes: as plain text, or as Markdown whose open block alone is ever drawn again."""

from __future__ import annotations

import itertools
import sys
import time
from abc import ABC, abstractmethod
from typing import IO, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.text import Text

from chaku.cli.terminal.blocks import CodeEnd, CodeLine, CodeStart, Markdown, Piece, Splitter
from chaku.cli.terminal.markdown import THEME, Block, Highlighter, clean

MIN_FRAME_S = 1 / 15
MAX_DRAWING_SHARE = 0.2  # of the time, where drawing the open block is slow
REASONING_STYLE = "dim italic"


class View(ABC):
    """`with view: view.reasoning(…); view.text(…)`, and `view.draw()` now and then."""

    frame_s = MIN_FRAME_S
    """Seconds until `draw` should be called again."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Show what is left; leave the cursor at the start of a line."""

    @abstractmethod
    def reasoning(self, text: str) -> None:
        """More of what the model thinks before it answers."""

    @abstractmethod
    def text(self, text: str) -> None:
        """More of the answer."""

    @abstractmethod
    def draw(self) -> None:
        """Show what has come since the last time."""


class PlainView(View):
    """The answer as it is, for a pipe or for people who want no Markdown. Reasoning goes to `aside`, if anywhere."""

    def __init__(self, out: IO[str], aside: IO[str] | None = None, *, terminal: bool = False) -> None:
        self._out = out
        self._aside = aside
        self._clean = clean if terminal else str
        self._last = "\n"
        self._in_reasoning = False

    def __exit__(self, *_: object) -> None:
        self._end_reasoning()
        if self._last != "\n":
            self._out.write("\n")
            self._out.flush()

    def reasoning(self, text: str) -> None:
        """Dim, on the other stream, so that a pipe only carries the answer."""
        if self._aside is not None:
            self._in_reasoning = True
            self._aside.write(f"\x1b[2m{clean(text)}\x1b[0m")
            self._aside.flush()

    def text(self, text: str) -> None:
        """Written and flushed at once."""
        self._end_reasoning()
        if text:
            self._out.write(self._clean(text))
            self._out.flush()
            self._last = text[-1]

    def draw(self) -> None:
        """Nothing waits here."""

    def _end_reasoning(self) -> None:
        if self._in_reasoning and self._aside is not None:
            self._in_reasoning = False
            self._aside.write("\n\n")
            self._aside.flush()


class MarkdownView(View):
    """Finished blocks are printed once and scroll away; the open one stands below them and is drawn again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._splitter = Splitter()
        self._highlighter: Highlighter | None = None
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._start = time.monotonic()
        self._reasoning = ""
        self._reasoning_start: float | None = None
        self._printed = False
        self._shown: object = None

    def __enter__(self) -> Self:
        self._console.push_theme(THEME)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_reasoning()
        self._print(self._splitter.close())
        self._live.update(Text())
        self._live.stop()
        self._console.pop_theme()

    def reasoning(self, text: str) -> None:
        """Whole lines are printed, dim and behind a bar; the unfinished one stays open."""
        if self._reasoning_start is None:
            self._reasoning_start = time.monotonic()
        *lines, self._reasoning = (self._reasoning + clean(text)).split("\n")
        if lines:
            self._above([_Thought(line) for line in lines])

    def text(self, text: str) -> None:
        """Whole blocks are printed; the rest waits for `draw`."""
        if text:
            self._end_reasoning()
            self._print(self._splitter.feed(clean(text)))

    def draw(self) -> None:
        """Draw the open block, unless it looks as it did."""
        waiting_s = int(time.monotonic() - self._start)
        state = (self._splitter.open_text, self._reasoning, self._console.width, self._printed or waiting_s)
        if state == self._shown:
            return
        self._shown = state
        start = time.monotonic()
        self._live.update(_Tail(self._open()), refresh=True)
        self.frame_s = max(MIN_FRAME_S, (time.monotonic() - start) / MAX_DRAWING_SHARE)

    def _open(self) -> RenderableType:
        text = self._splitter.open_text
        if self._reasoning_start is not None:
            return _Thought(self._reasoning)
        if self._splitter.in_code:
            return Text(text, overflow="fold")
        if text.strip():
            return Padding(Block(text), (int(self._printed and self._splitter.gap), 0, 0, 0))
        waiting_s = int(time.monotonic() - self._start)
        return Text("" if self._printed else f"… {waiting_s} s" if waiting_s else "…", style="dim")

    def _end_reasoning(self) -> None:
        if self._reasoning_start is None:
            return
        lines = [_Thought(self._reasoning)] if self._reasoning else []
        seconds = time.monotonic() - self._reasoning_start
        self._reasoning, self._reasoning_start = "", None
        self._above([*lines, Text(f"thought for {seconds:.1f} s", style="dim")])

    def _print(self, pieces: list[Piece]) -> None:
        if pieces:
            self._above([line for piece in pieces for line in self._drawn(piece)])

    def _drawn(self, piece: Piece) -> list[RenderableType]:
        if isinstance(piece, Markdown):
            return [*self._gap(piece.gap), Block(piece.text)]
        if isinstance(piece, CodeStart):
            self._highlighter = Highlighter(piece.language)
            return [*self._gap(True), _rule(piece.language)]
        if isinstance(piece, CodeLine):
            assert self._highlighter is not None
            return [self._highlighter.line(piece.text)]
        assert isinstance(piece, CodeEnd)
        return [_rule("")]

    def _gap(self, wanted: bool) -> list[RenderableType]:
        gap: list[RenderableType] = [Text()] if wanted and self._printed else []
        self._printed = True
        return gap

    def _above(self, finished: list[RenderableType]) -> None:
        """Print in place of the open block, in one write; what is open now appears with the next frame."""
        self._printed = True
        self._shown = None
        with self._console:
            self._live.update(Text())
            for is_text, together in itertools.groupby(finished, lambda renderable: isinstance(renderable, Text)):
                # Code keeps its long lines whole: the terminal wraps them, and copying gives them back.
                self._console.print(Group(*together), soft_wrap=is_text, highlight=False)


class _Tail:
    """The last lines of something, as many as the screen has room for."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._renderable, options.update(height=None), pad=False)
        for line in lines[-max(1, options.size.height - 1) :]:
            yield from line
            yield Segment.line()


class _Thought:
    """A line of reasoning, dim and set in."""

    def __init__(self, line: str) -> None:
        self._text = Text(line, style=REASONING_STYLE, overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._text, options.update(width=max(1, options.max_width - 2)), pad=False):
            yield Segment("  ")
            yield from line
            yield Segment.line()


def _rule(title: str) -> RenderableType:
    return Rule(Text(title, style="dim") if title else "", align="left", style="dim", characters="─")


def view_for(console: Console, *, raw: bool) -> View:
    """Markdown on a terminal that can move its cursor, plain text anywhere else."""
    if console.is_terminal and not console.is_dumb_terminal and not raw:
        return MarkdownView(console)
    aside = sys.stderr if sys.stderr.isatty() else None
    return PlainView(console.file, aside, terminal=console.is_terminal)
