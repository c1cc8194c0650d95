"""Progress of many requests: one line that is redrawn on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys

import click

from chaku.cli.progress.drawing import Pace


class RequestCounts:
    """What came so far, drawn on standard error."""

    def __init__(self, total: int, what: str = "answers") -> None:
        self.total = total
        self.what = what
        self.num_done = self.num_failed = self.num_tokens = 0
        self.dollars: float | None = None
        """What the answers cost; None where no price is known."""
        self._pace = Pace()
        self._is_terminal = sys.stderr.isatty()
        self._start = "\r\x1b[K" if self._is_terminal else ""

    def add(self, *, is_failed: bool, tokens: int, dollars: float | None = None) -> None:
        """Count an answer of so many tokens, at that price."""
        if dollars is not None:
            self.dollars = (self.dollars or 0.0) + dollars
        self.num_done += 1
        self.num_failed += is_failed
        self.num_tokens += tokens
        if self._is_terminal or self._pace.is_due():
            click.echo(self._start + self._line(), err=True, nl=not self._is_terminal)

    def end(self) -> None:
        """Print the last line."""
        click.echo(self._start + self._line(), err=True)

    def _line(self) -> str:
        per_s = self._pace.per_s(self.num_done)
        left = f", {(self.total - self.num_done) / per_s:,.0f} s left" if per_s and self.num_done < self.total else ""
        failed = f", {self.num_failed:,} refused" if self.num_failed else ""
        tokens = f"{self.num_tokens:,} tokens, {self._pace.per_s(self.num_tokens):,.0f} tokens/s"
        cost = f", {self.dollars:,.4f} dollars" if self.dollars is not None else ""
        return f"{self.num_done:,} of {self.total:,} {self.what}{failed}, {tokens}{cost}{left}"
