"""`chaku chat`: a conversation in the terminal, or one question out of a pipe."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import click
from rich.console import Console

from chaku.cli.terminal import settings
from chaku.cli.terminal.answer import with_way_out
from chaku.cli.terminal.endpoint import choose
from chaku.cli.terminal.one_shot import answer_once
from chaku.cli.terminal.recommended import recommended
from chaku.cli.terminal.repl import Repl
from chaku.cli.terminal.transcript import Transcript
from chaku.client import Client
from chaku.errors import ChakuError, NotFound, UsageError


def _checked(_: click.Context, param: click.Parameter, text: str | None) -> settings.Value | None:
    return None if text is None or param.name is None else settings.parse(param.name, text)


def _sampling_options(command: Any) -> Any:
    """One option for every setting of the table."""
    for name, setting in reversed(settings.SETTINGS.items()):
        option = click.option(
            f"--{name.replace('_', '-')}",
            name,
            callback=_checked,
            metavar="INTEGER" if setting.kind is int else "NUMBER",
            help=f"{setting.meaning[0].upper()}{setting.meaning[1:]} [{setting.range}].",
        )
        command = option(command)
    return command


@click.command()
@click.argument("prompt", required=False)
@click.option("-m", "--model", help="A model of the server; without a server, anything that `chaku serve` takes.")
@click.option(
    "--base-url", metavar="URL", help="An OpenAI-compatible API. Default: OPENAI_BASE_URL, or a gateway here."
)
@click.option("--api-key", metavar="KEY", help="Its key. Default for a configured URL: OPENAI_API_KEY.")
@click.option("-s", "--system", metavar="TEXT", help="System prompt.")
@_sampling_options
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
    json: bool,
    raw: bool,
    **sampling: settings.Value | None,
) -> None:
    """Talk to a model; with PROMPT or text on standard input, ask once and print the answer.

    Talks to --base-url or OPENAI_BASE_URL, else to a chaku gateway on this machine, else it starts the small
    built-in model by itself.

    \b
    chaku chat
    chaku chat "What is the capital of France?"
    cat f.py | chaku chat -s "explain"
    """
    question = _question(prompt)
    if question is None and (json or not sys.stdout.isatty()):
        raise UsageError("there is no prompt, and the output is no terminal", fix='give one: chaku chat "…"')
    transcript = Transcript()
    given = {name: value for name, value in sampling.items() if value is not None}
    console = Console(no_color=True if ctx.color is False else None, highlight=False)

    async def talk() -> None:
        async with choose(base_url, api_key, model) as endpoint, Client(endpoint.base_url, endpoint.api_key) as client:
            try:
                rows = await _models(client, endpoint.model)
                models = list(rows)
                chosen = endpoint.model or models[0]
                suits = recommended(rows.get(chosen, {}))
                transcript.system = system if system is not None else suits.system
                if question is None:
                    await Repl(client, chosen, rows, transcript, given, console, raw=raw).run()
                else:
                    transcript.say(question)
                    if sys.stdout.isatty() and (shown := suits.shown(given)):
                        click.echo(click.style(shown, dim=True), err=True)
                    sampling = {**suits.sampling, **given}
                    await answer_once(client, transcript, chosen, sampling, console, raw=raw, json=json)
            except ChakuError as failure:
                raise await with_way_out(failure, client, endpoint.model or "") from None

    _run(talk())


def _question(prompt: str | None) -> str | None:
    """The prompt and what is piped in, an empty line between them. None: a conversation is wanted."""
    if sys.stdin.isatty():
        return prompt
    try:
        piped = sys.stdin.buffer.read().decode().strip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: byte {error.start} is none") from None
    question = "\n\n".join(part for part in (prompt, piped) if part)
    if not question:
        raise UsageError("nothing to ask: there is no prompt and nothing on standard input")
    return question


async def _models(client: Client, model: str | None) -> dict[str, dict[str, Any]]:
    """The server's models and what it says of them. A server without such a list is fine when the model is named."""
    try:
        models = await client.model_rows()
    except NotFound:
        if model is None:
            raise
        return {model: {}}
    if not models and model is None:
        raise ChakuError(f"{client.base_url} serves no models", fix="name one with -m")
    return models


def _run(talk: Any) -> None:
    """Run it so that being ended (SIGTERM, a closed terminal) still ends what was started."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, _end, task, number)
        await talk

    ended_by: list[signal.Signals] = []

    def _end(task: asyncio.Task[None], number: signal.Signals) -> None:
        ended_by.append(number)
        task.cancel()

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit(128 + ended_by[0] if ended_by else 1)
