"""One question, one answer, out of a pipe or into one."""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson
from rich.console import Console

from chaku.cli.terminal.answer import ShownAnswer, ask
from chaku.cli.terminal.transcript import Transcript
from chaku.cli.terminal.view import PlainView, View, view_for
from chaku.client import Client


class SilentView(PlainView):
    """Shows nothing: the answer is printed in the end."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def reasoning(self, text: str) -> None:
        """Kept in the answer."""

    def text(self, text: str) -> None:
        """Kept in the answer."""


async def answer_once(
    client: Client,
    transcript: Transcript,
    model: str,
    sampling: dict[str, Any],
    console: Console,
    *,
    raw: bool,
    json: bool,
) -> ShownAnswer:
    """Ask, and print the answer: Markdown on a terminal, plain text in a pipe, or one JSON object."""
    view: View = SilentView() if json else view_for(console, raw=raw)
    answer = ShownAnswer()
    await ask(client, transcript, model, sampling, view, answer)
    if json:
        click.echo(orjson.dumps(report(answer, model)).decode())
    elif answer.tool_calls:
        click.echo(orjson.dumps([answer.tool_calls[index] for index in sorted(answer.tool_calls)]).decode())
    if answer.finish_reason not in ("stop", "tool_calls"):
        click.echo(f"note: {why_it_ended(answer)}", err=True)
    return answer


def why_it_ended(answer: ShownAnswer) -> str:
    """In words, why the model said no more."""
    if answer.finish_reason == "length":
        return "the answer was cut at the token limit (finish_reason: length)"
    return f"the answer ended early (finish_reason: {answer.finish_reason})"


def report(answer: ShownAnswer, model: str) -> dict[str, Any]:
    """The answer with everything that was measured, as --json prints it."""
    usage = answer.usage and {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "cached_tokens": answer.usage.cached_tokens,
    }
    return {
        "answer": answer.text,
        "reasoning": answer.reasoning or None,
        "tool_calls": [answer.tool_calls[index] for index in sorted(answer.tool_calls)],
        "model": model,
        "finish_reason": answer.finish_reason,
        "usage": usage,
        "timings": {
            "first_token_s": _rounded(answer.first_token_s),
            "total_s": _rounded(answer.total_s),
            "tokens_per_s": _rounded(answer.tokens_per_s),
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
