"""What the commands that ask models share: options, the question, the server's models, an end by signal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from chaku.cli.terminal import settings
from chaku.client import Client
from chaku.complaints import not_utf8
from chaku.errors import ChakuError, NotFound, UsageError


def _checked(_: click.Context, param: click.Parameter, text: str | None) -> settings.Value | None:
    return None if text is None or param.name is None else settings.parse(param.name, text)


def sampling_options(command: Any) -> Any:
    """One option for every setting of the table."""
    for name, setting in reversed(settings.SETTINGS.items()):
        option = click.option(
            f"--{name.replace('_', '-')}",
            name,
            callback=_checked,
            metavar="N" if setting.kind is int else "NUMBER",
            help=f"{setting.meaning[0].upper()}{setting.meaning[1:]}: {setting.range}.",
        )
        command = option(command)
    return command


def endpoint_options(command: Any) -> Any:
    """Where the models are: --base-url and --api-key."""
    key = click.option("--api-key", metavar="KEY", show_default="OPENAI_API_KEY, for a configured URL", help="Its key.")
    url = click.option(
        "--base-url", show_default="OPENAI_BASE_URL, or a gateway here", metavar="URL", help="An OpenAI-compatible API."
    )
    return url(key(command))


def file_option(command: Any) -> Any:
    """Files that go into the message: -f."""
    option = click.option(
        "-f",
        "--file",
        "files",
        metavar="FILE",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Put a text file or an image into the message.",
    )
    return option(command)


def question_of(prompt: str | None, attached: str) -> str | None:
    """The prompt, the attached files and what is piped in, empty lines between them. None: a conversation is wanted."""
    if sys.stdin.isatty():
        return "\n\n".join(part for part in (prompt, attached) if part) if prompt else None
    try:
        piped = sys.stdin.buffer.read().decode().strip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(not_utf8("standard input", error), fix="convert it to UTF-8") from None
    question = "\n\n".join(part for part in (prompt, attached, piped) if part)
    if not question:
        raise UsageError(
            "nothing to ask: there is no prompt and nothing on standard input", fix='give a prompt: chaku chat "…"'
        )
    return question


async def model_rows(client: Client, model: str | None) -> dict[str, dict[str, Any]]:
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


_Result = TypeVar("_Result")


def run_until_ended(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run it so that being ended (SIGTERM, a closed terminal) still ends what was started."""

    async def main() -> _Result:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, _end, task, number)
        return await work

    ended_by: list[signal.Signals] = []

    def _end(task: asyncio.Task[Any], number: signal.Signals) -> None:
        ended_by.append(number)
        task.cancel()

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit(128 + ended_by[0] if ended_by else 1)
