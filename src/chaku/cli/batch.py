"""chaku batch: many requests out of a file, with answers that survive the death of the run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from chaku.batch import Answers, BatchRequest, open_answers, read_requests, run
from chaku.cli.help_page import group
from chaku.cli.progress.drawing import Pace
from chaku.cli.terminal.asking import endpoint_options
from chaku.cli.terminal.endpoint import choose
from chaku.errors import ChakuError
from chaku.http_out import Transport

_FILE = click.Path(path_type=Path, dir_okay=False)


@group()
def batch() -> None:
    """Send files of requests to a model."""


@batch.command("run")
@click.argument("requests_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("-o", "--output", metavar="FILE", type=_FILE, required=True, help="Answers, one JSON line for each.")
@click.option("-m", "--model", metavar="MODEL", help="Model for the requests that name none.")
@click.option("--parallel", metavar="N", type=click.IntRange(1, 1024), default=8, show_default=True, help="At once.")
@endpoint_options
def run_batch(
    requests_file: Path, output: Path, model: str | None, parallel: int, base_url: str | None, api_key: str | None
) -> None:
    """Send the requests of a file and record each answer.

    A line is a request of OpenAI's Batch API, or {"prompt": TEXT}, or {"messages": [...]}.

    Run the same command again to resume, even after `kill -9`. Recorded requests are not sent again.
    """
    requests = read_requests(requests_file, model)
    with open_answers(output) as answers:
        missing = answers.missing(requests)
        if len(missing) < len(requests):
            click.echo(f"{len(requests) - len(missing):,} of {len(requests):,} answers are recorded", err=True)
        if not missing:
            return
        counts = _Counts(len(missing))
        try:
            asyncio.run(_send(missing, answers, counts, parallel, base_url, api_key, model))
        except* ChakuError as failures:
            counts.end()
            failure = failures.exceptions[0]
            assert isinstance(failure, ChakuError)
            raise failure from None
    counts.end()
    if counts.num_failed:
        raise ChakuError(
            f"{counts.num_failed:,} of {counts.total:,} requests were refused", fix=f"see error in {output}"
        )


async def _send(
    missing: list[BatchRequest],
    answers: Answers,
    counts: _Counts,
    parallel: int,
    base_url: str | None,
    api_key: str | None,
    model: str | None,
) -> None:
    async with choose(base_url, api_key, model) as endpoint:
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else None
        transport = Transport(endpoint.base_url, who=endpoint.base_url, headers=headers)
        try:
            await run(missing, transport, answers, parallel=parallel, watch=counts.add)
        finally:
            await transport.close()


class _Counts:
    """What came so far, drawn on standard error."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.num_done = self.num_failed = self.num_tokens = 0
        self._pace = Pace()
        self._is_terminal = sys.stderr.isatty()
        self._start = "\r\x1b[K" if self._is_terminal else ""

    def add(self, answer: dict[str, Any]) -> None:
        """Count an answer."""
        self.num_done += 1
        self.num_failed += answer["error"] is not None
        body = answer["response"]["body"]
        usage = (body.get("usage") if isinstance(body, dict) else None) or {}
        self.num_tokens += usage.get("completion_tokens") or usage.get("output_tokens") or 0
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
        return f"{self.num_done:,} of {self.total:,} answers{failed}, {tokens}{left}"
