"""`chaku compare`: one prompt, the answers of several models side by side."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from chaku.cli.help_page import command
from chaku.cli.terminal import settings
from chaku.cli.terminal.answer import ask, with_way_out
from chaku.cli.terminal.asking import (
    endpoint_options,
    file_option,
    model_rows,
    question_of,
    run_until_ended,
    sampling_options,
)
from chaku.cli.terminal.attached import Attached, check_sees, read
from chaku.cli.terminal.endpoint import choose
from chaku.cli.terminal.one_shot import SilentView, report
from chaku.cli.terminal.recommended import recommended
from chaku.cli.terminal.side_by_side import Contender, fits, show_below, show_columns
from chaku.cli.terminal.transcript import Transcript
from chaku.client import Client
from chaku.errors import ChakuError, UsageError

_FEWEST = 2
_MOST = 4


@command(sections={"Sampling": "temperature", "Output": "json"})
@click.argument("prompt", required=False)
@click.option(
    "-m",
    "--model",
    "models",
    metavar="MODEL",
    multiple=True,
    help="A model of the server, two to four times; without a server, anything that `chaku serve` takes.",
)
@endpoint_options
@click.option("-s", "--system", metavar="TEXT", help="System prompt of all models.")
@file_option
@sampling_options
@click.option("--json", is_flag=True, help="Print the answers with usage and timings as one JSON object.")
@click.option("--raw", is_flag=True, help="Print the answers one below the other, without drawing Markdown.")
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    prompt: str | None,
    models: tuple[str, ...],
    base_url: str | None,
    api_key: str | None,
    system: str | None,
    files: tuple[Path, ...],
    json: bool,
    raw: bool,
    **sampling: settings.Value | None,
) -> None:
    """Ask several models the same, and show their answers side by side.

    The models answer at the same time, each at its own pace. A narrow terminal and a pipe get the answers one below
    the other. If a model fails, the others are shown and the exit code is that of the failure.
    """
    if not _FEWEST <= len(models) <= _MOST:
        raise UsageError(
            f"chaku compare takes {_FEWEST} to {_MOST} models, got {len(models)}",
            fix='name them: chaku compare -m A -m B "…"',
        )
    attached = read(files)
    question = question_of(prompt, attached.text)
    if question is None:
        raise UsageError("there is no prompt", fix='give one: chaku compare -m A -m B "…"')
    given = {name: value for name, value in sampling.items() if value is not None}
    console = Console(no_color=True if ctx.color is False else None, highlight=False)

    async def answer_all() -> list[Contender]:
        unique = tuple(dict.fromkeys(models))
        chosen = choose(base_url, api_key, unique[0], beside=unique[1:])
        async with chosen as endpoint, Client(endpoint.base_url, endpoint.api_key) as client:
            names = dict(zip(unique, endpoint.names or unique, strict=True))
            contenders = [Contender(names[model]) for model in models]
            rows = await model_rows(client, contenders[0].model)
            async with asyncio.TaskGroup() as group:
                works = [
                    group.create_task(
                        _answer(client, contender, rows.get(contender.model, {}), question, attached, system, given)
                    )
                    for contender in contenders
                ]
                if json:
                    await asyncio.wait(works)
                elif not raw and fits(console, len(contenders)):
                    await show_columns(console, contenders, works)
                else:
                    await show_below(console, contenders, works, raw=raw)
            return contenders

    contenders: list[Contender] = run_until_ended(answer_all())
    if json:
        click.echo(orjson.dumps({"prompt": question, "answers": [_reported(one) for one in contenders]}).decode())
    if failures := [one.failure for one in contenders if one.failure is not None]:
        sys.exit(failures[0].exit_code)


async def _answer(
    client: Client,
    contender: Contender,
    row: dict[str, Any],
    question: str,
    attached: Attached,
    system: str | None,
    given: dict[str, settings.Value],
) -> None:
    """Fill in the contender's answer, or why there is none."""
    suits = recommended(row)
    transcript = Transcript()
    transcript.system = system if system is not None else suits.system
    transcript.say(question, [image.url for image in attached.images])
    try:
        if attached.images:
            check_sees(contender.model, row)
        await ask(client, transcript, contender.model, {**suits.sampling, **given}, SilentView(), contender.answer)
    except ChakuError as failure:
        contender.failure = await with_way_out(failure, client, contender.model)
    contender.is_done = True


def _reported(contender: Contender) -> dict[str, Any]:
    """The answer as --json prints it; a failure has its own field and never travels as text."""
    failure = contender.failure
    error = failure and {"message": failure.message, "code": failure.code, "fix": failure.fix}
    return {**report(contender.answer, contender.model), "error": error}
