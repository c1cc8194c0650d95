"""Answers of several models to one prompt: in columns on a wide terminal, one below the other elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from chaku.cli.terminal.answer import ShownAnswer
from chaku.cli.terminal.markdown import THEME, Block, clean
from chaku.cli.terminal.one_shot import why_it_ended
from chaku.errors import ChakuError, error_lines

MIN_WIDTH = 36
"""Characters of a column; narrower terminals get the answers one below the other."""
_FRAME_S = 1 / 10


@dataclass
class Contender:
    """One model and its answer, or the failure in its place."""

    model: str
    answer: ShownAnswer = field(default_factory=ShownAnswer)
    failure: ChakuError | None = None
    is_done: bool = False

    @property
    def note(self) -> str:
        """What went wrong, or why a whole answer is none; "" where nothing is to be said."""
        if self.failure is not None:
            return "\n".join(f"{label.strip()} {text}" for label, text in error_lines(self.failure))
        if self.is_done and self.answer.finish_reason not in ("stop", "tool_calls"):
            return f"note: {why_it_ended(self.answer)}"
        return ""

    def title(self) -> Text:
        """The model's name with what was measured."""
        facts = []
        if self.is_done and self.failure is None:
            facts = [f"{self.answer.num_tokens} tokens"]
            if self.answer.tokens_per_s is not None:
                facts.append(f"{self.answer.tokens_per_s:.1f} tokens/s")
            if self.answer.first_token_s is not None:
                facts.append(f"first token {self.answer.first_token_s:.2f} s")
        return Text.assemble((clean(self.model), "bold"), *(Text(f" · {fact}", style="dim") for fact in facts))

    def body(self) -> RenderableType:
        """The answer as Markdown, then what went wrong."""
        return _Stack(list(self._parts()))

    def _parts(self) -> Iterator[RenderableType]:
        if self.answer.text:
            yield Block(clean(self.answer.text))
        elif not self.is_done:
            yield Text("…", style="dim")
        if self.note:
            yield Text(self.note, style="red" if self.failure else "dim")


@dataclass
class _Stack:
    parts: list[RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.parts


@dataclass
class _Tail:
    """The last lines of something, as many as `height`."""

    whole: RenderableType
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.whole, options.update(height=None), pad=False)
        for line in lines[-self.height :]:
            yield from line
            yield Segment.line()


def fits(console: Console, num: int) -> bool:
    """Whether `num` columns are wide enough to be read here."""
    return console.is_terminal and not console.is_dumb_terminal and console.width >= num * (MIN_WIDTH + 3)


def columns(contenders: Sequence[Contender], height: int | None = None) -> Table:
    """All answers side by side; with `height`, only the last lines of each."""
    table = Table(box=None, expand=True, show_header=True, header_style="", padding=(0, 3, 0, 0), pad_edge=False)
    for contender in contenders:
        table.add_column(contender.title(), ratio=1, overflow="fold", vertical="top")
    bodies = [contender.body() for contender in contenders]
    table.add_row(*(bodies if height is None else [_Tail(body, height) for body in bodies]))
    return table


async def show_columns(console: Console, contenders: Sequence[Contender], works: Sequence[asyncio.Task[None]]) -> None:
    """Draw the answers side by side while they come, and print them whole at the end."""
    console.push_theme(THEME)
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            waiting = set(works)
            while waiting:
                live.update(columns(contenders, max(3, console.height - 4)), refresh=True)
                _, waiting = await asyncio.wait(waiting, timeout=_FRAME_S)
        console.print(columns(contenders))
    finally:
        console.pop_theme()


async def show_below(
    console: Console, contenders: Sequence[Contender], works: Sequence[asyncio.Task[None]], *, raw: bool
) -> None:
    """Print the answers one below the other, each when it is whole and those before it are printed."""
    console.push_theme(THEME)
    try:
        for number, (contender, work) in enumerate(zip(contenders, works, strict=True)):
            await asyncio.wait([work])
            if number:
                console.print()
            if raw or not console.is_terminal:
                console.out(contender.title().plain, highlight=False)
                if contender.answer.text:
                    console.out(contender.answer.text.rstrip("\n"), highlight=False)
                if contender.note:
                    click.echo(contender.note, err=True)
            else:
                console.print(Rule(contender.title(), align="left", style="dim"))
                console.print(contender.body())
    finally:
        console.pop_theme()
