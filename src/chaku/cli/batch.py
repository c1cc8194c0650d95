"""chaku batch: many requests out of a file, with answers that survive the death of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from chaku.batch import Answers, BatchLine, Pacer, ask, has_failed, open_answers, read_requests, run
from chaku.cli.help_page import group
from chaku.cli.progress.requests import RequestCounts
from chaku.cli.terminal.asking import endpoint_options
from chaku.cli.terminal.endpoint import choose
from chaku.errors import ChakuError
from chaku.flag_values import prices_of_flags
from chaku.http_out import Transport
from chaku.policies import Price

_FILE = click.Path(path_type=Path, dir_okay=False)


@group()
def batch() -> None:
    """Send files of requests to a model."""


@batch.command("run")
@click.argument("requests_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("-o", "--output", metavar="FILE", type=_FILE, required=True, help="Answers, one JSON line for each.")
@click.option("-m", "--model", metavar="MODEL", help="Model for the requests that name none.")
@click.option(
    "--parallel", metavar="N", type=click.IntRange(1, 1024), default=8, show_default=True, help="Requests at once."
)
@click.option(
    "--requests-per-minute",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    show_default="no limit",
    help="Requests that may begin within a minute, spread evenly.",
)
@click.option(
    "--price",
    "prices",
    metavar="NAME=PROMPT/ANSWER",
    multiple=True,
    help="Price of a model's tokens, in dollars per million: the cost is shown.",
)
@endpoint_options
def run_batch(
    requests_file: Path,
    output: Path,
    model: str | None,
    parallel: int,
    requests_per_minute: float | None,
    prices: tuple[str, ...],
    base_url: str | None,
    api_key: str | None,
) -> None:
    """Send the requests of a file and record each answer.

    A line is a request of OpenAI's Batch API, or {"prompt": TEXT}, or {"messages": [...]}.

    Run the same command again to resume, even after `kill -9`. Recorded requests are not sent again.
    """
    requests = read_requests(requests_file, model)
    price_of = prices_of_flags(prices)
    pacer = Pacer(requests_per_minute)
    with open_answers(output) as answers:
        missing = answers.missing(requests)
        if len(missing) < len(requests):
            click.echo(f"{len(requests) - len(missing):,} of {len(requests):,} answers are recorded", err=True)
        if not missing:
            return
        counts = RequestCounts(len(missing))
        try:
            asyncio.run(_send(missing, answers, counts, parallel, pacer, price_of, base_url, api_key, model))
        finally:
            counts.end()
    if counts.num_failed:
        raise ChakuError(
            f"{counts.num_failed:,} of {counts.total:,} requests were refused", fix=f"see response in {output}"
        )


async def _send(
    missing: list[BatchLine],
    answers: Answers,
    counts: RequestCounts,
    parallel: int,
    pacer: Pacer,
    price_of: Mapping[str, Price],
    base_url: str | None,
    api_key: str | None,
    model: str | None,
) -> None:
    models = {request.custom_id: request.body["model"] for request in missing}

    def count(answer: dict[str, Any]) -> None:
        usage = _usage_of(answer)
        price = price_of.get(models[answer["custom_id"]])
        counts.add(
            is_failed=has_failed(answer),
            tokens=usage.answer,
            dollars=price.dollars(usage.prompt, usage.answer, usage.cached) if price is not None else None,
        )

    async with choose(base_url, api_key, model) as endpoint:
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else None
        transport = Transport(endpoint.base_url, who=endpoint.base_url, headers=headers)

        async def answer(request: BatchLine) -> None:
            await pacer.wait()
            answered = await ask(transport, request)
            answers.add(answered)
            count(answered)

        try:
            await run(missing, answer, parallel=parallel)
        finally:
            await transport.close()


@dataclass(frozen=True)
class _Usage:
    """Tokens of one answer; `cached` are a part of `prompt`."""

    prompt: int = 0
    cached: int = 0
    answer: int = 0


def _usage_of(answer: dict[str, Any]) -> _Usage:
    """In the words of chats or of responses."""
    body = answer["response"]["body"]
    usage = (body.get("usage") if isinstance(body, dict) else None) or {}
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return _Usage(
        prompt=usage.get("prompt_tokens") or usage.get("input_tokens") or 0,
        cached=details.get("cached_tokens") or 0,
        answer=usage.get("completion_tokens") or usage.get("output_tokens") or 0,
    )
