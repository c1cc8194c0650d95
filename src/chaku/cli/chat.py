"""`chaku chat`: a conversation in the terminal, or one question out of a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from chaku.cli.help_page import Command, command
from chaku.cli.terminal import kept, settings
from chaku.cli.terminal.answer import with_way_out
from chaku.cli.terminal.asking import (
    endpoint_options,
    file_option,
    model_rows,
    question_of,
    run_until_ended,
    sampling_options,
)
from chaku.cli.terminal.attached import check_sees, read
from chaku.cli.terminal.endpoint import choose
from chaku.cli.terminal.one_shot import answer_once
from chaku.cli.terminal.recommended import recommended
from chaku.cli.terminal.repl import Repl
from chaku.cli.terminal.transcript import Transcript
from chaku.client import Client
from chaku.errors import ChakuError, UsageError


@command(sections={"Sampling": "temperature", "Output": "json"})
@click.argument("prompt", required=False)
@click.option(
    "-m", "--model", metavar="MODEL", help="A model of the server; without a server, anything that `chaku serve` takes."
)
@endpoint_options
@click.option("-s", "--system", metavar="TEXT", help="System prompt.")
@file_option
@click.option("-c", "--continue", "continues", is_flag=True, help="Continue the last conversation.")
@sampling_options
@click.option("--json", is_flag=True, help="Print the answer with usage and timings as one JSON object.")
@click.option("--raw", is_flag=True, help="Print the answer as it comes, without drawing Markdown.")
@click.pass_context
def chat(
    ctx: click.Context,
    /,
    prompt: str | None,
    model: str | None,
    base_url: str | None,
    api_key: str | None,
    system: str | None,
    files: tuple[Path, ...],
    continues: bool,
    json: bool,
    raw: bool,
    **sampling: settings.Value | None,
) -> None:
    """Talk to a model, or ask one question.

    With PROMPT, or text on standard input, asks once and prints the answer.

    Talks to --base-url or OPENAI_BASE_URL, else to a chaku gateway on this machine, else it starts the small
    built-in model by itself.
    """
    attached = read(files)
    question = question_of(prompt, attached.text)
    if question is None and (json or not sys.stdout.isatty()):
        raise UsageError("there is no prompt, and the output is not a terminal", fix='give one: chaku chat "…"')
    transcript = Transcript()
    if continues:
        before = kept.last()
        transcript, model, base_url = before.transcript, model or before.model, base_url or before.base_url
    given = {name: value for name, value in sampling.items() if value is not None}
    console = Console(no_color=True if ctx.color is False else None, highlight=False)

    def keep() -> None:
        try:
            kept.keep(transcript, model, base_url)
        except UsageError as failure:
            click.echo(f"note: this conversation is not kept for -c: {failure.message}", err=True)

    async def talk() -> None:
        async with choose(base_url, api_key, model) as endpoint, Client(endpoint.base_url, endpoint.api_key) as client:
            try:
                rows = await model_rows(client, endpoint.model)
                models = list(rows)
                chosen = endpoint.model or models[0]
                suits = recommended(rows.get(chosen, {}))
                if attached.images:
                    check_sees(chosen, rows.get(chosen, {}))
                if system is not None or not transcript.messages:
                    transcript.system = system if system is not None else suits.system
                if question is None:
                    repl = Repl(client, chosen, rows, transcript, given, console, raw=raw, keep=keep)
                    await repl.run(attached)
                else:
                    transcript.say(question, [image.url for image in attached.images])
                    if sys.stdout.isatty() and (shown := suits.shown(given)):
                        click.echo(click.style(shown, dim=True), err=True)
                    sampling = {**suits.sampling, **given}
                    answer = await answer_once(client, transcript, chosen, sampling, console, raw=raw, json=json)
                    transcript.answer(answer.text, reasoning=answer.reasoning)
                    keep()
            except ChakuError as failure:
                raise await with_way_out(failure, client, endpoint.model or "") from None

    run_until_ended(talk())


run = Command(
    "run",
    params=[click.Argument(["model"]), *(param for param in chat.params if param.name != "model")],
    callback=chat.callback,
    sections=chat.sections,
    help="""Talk to the model that you name.

    MODEL is anything that `chaku serve` takes. The same as `chaku chat --model MODEL`.
    """,
)
