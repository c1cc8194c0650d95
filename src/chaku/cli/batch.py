"""chaku batch: many requests out of a file, with answers that survive the death of the run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from chaku.batch import Answers, BatchRequest, open_answers, read_requests, run
from chaku.cli.help_page import group
from chaku.cli.progress.requests import RequestCounts
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
        counts = RequestCounts(len(missing))
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
    counts: RequestCounts,
    parallel: int,
    base_url: str | None,
    api_key: str | None,
    model: str | None,
) -> None:
    async with choose(base_url, api_key, model) as endpoint:
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else None
        transport = Transport(endpoint.base_url, who=endpoint.base_url, headers=headers)
        try:
            await run(
                missing,
                transport,
                answers,
                parallel=parallel,
                watch=lambda answer: counts.add(is_failed=answer["error"] is not None, tokens=_tokens_of(answer)),
            )
        finally:
            await transport.close()


def _tokens_of(answer: dict[str, Any]) -> int:
    body = answer["response"]["body"]
    usage = (body.get("usage") if isinstance(body, dict) else None) or {}
    return usage.get("completion_tokens") or usage.get("output_tokens") or 0
