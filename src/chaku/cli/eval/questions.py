"""`chaku eval questions`: suites of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chaku.cli.help_page import group
from chaku.cli.terminal.asking import endpoint_options, run_until_ended
from chaku.cli.terminal.endpoint import choose
from chaku.errors import ChakuError
from chaku.evals.caller import ModelCaller, ModelHost
from chaku.evals.drafting import SCHEMA, Drafts, read_drafts, request_for
from chaku.evals.records import Question, write_records
from chaku.evals.suites import read_questions
from chaku.models.registry import DEFAULT_MODEL

_MOST_CALLS_WITHOUT_A_NEW_ONE = 3
_PER_CALL = 10


@group()
def questions() -> None:
    """Write suites of your own."""


@questions.command("new")
@click.option("--about", "topic", metavar="TOPIC", required=True, help="What the questions are about.")
@click.option(
    "-n", "--num", metavar="N", type=click.IntRange(1, 1000), default=10, show_default=True, help="Questions to write."
)
@click.option("-m", "--model", metavar="MODEL", show_default=DEFAULT_MODEL, help="The model that drafts them.")
@click.option("--category", metavar="NAME", show_default="the topic", help="Their category.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("questions.jsonl"),
    show_default=True,
    help="A suite; new questions are added to one that exists.",
)
@click.option(
    "--temperature",
    metavar="NUMBER",
    type=click.FloatRange(0, 2),
    default=0.9,
    show_default=True,
    help="Higher is more varied.",
)
@endpoint_options
def new(
    topic: str, num: int, model: str | None, category: str | None, output: Path, temperature: float,
    base_url: str | None, api_key: str | None,
) -> None:  # fmt: skip
    """Draft questions with a model; drop near duplicates.

    Drafts are a start: read them, and delete bad ones. A question that nearly repeats another one is dropped.
    """
    known = read_questions(output) if output.exists() else []
    drafts = Drafts()

    async def draft() -> None:
        wanted = model or DEFAULT_MODEL
        async with choose(base_url, api_key, wanted) as endpoint:
            host = ModelHost(endpoint.base_url, endpoint.api_key)
            async with ModelCaller({wanted: host}, parallel=1, served={wanted: endpoint.model or wanted}) as caller:
                await _draft(caller, wanted, topic, num, temperature, [question.turns[0] for question in known], drafts)

    run_until_ended(draft())
    if not drafts.kept:
        raise ChakuError(
            f"{model or DEFAULT_MODEL} wrote nothing that can be read as a question", fix="try another model"
        )
    taken = {question.id for question in known}
    ids = (f"{_slug(topic)}-{number}" for number in range(1, len(taken) + len(drafts.kept) + 1))
    free = (question_id for question_id in ids if question_id not in taken)
    added = [Question(id=next(free), turns=(text,), category=category or topic) for text in drafts.kept]
    write_records(output, [*known, *added])
    click.echo(f"{len(added)} questions in {output}, {drafts.num_repeated} near duplicates dropped")
    if len(added) < num:
        click.echo(f"the model found no more: {num - len(added)} are missing", err=True)


async def _draft(
    caller: ModelCaller, model: str, topic: str, num: int, temperature: float, known: list[str], drafts: Drafts
) -> None:
    """Ask until there are enough, or several calls in a row brought nothing new."""
    extra: dict[str, Any] = {}
    if await caller.declares(model, "response_format"):
        schema = {"name": "questions", "schema": SCHEMA, "strict": True}
        extra["response_format"] = {"type": "json_schema", "json_schema": schema}
    num_empty = 0
    while len(drafts.kept) < num and num_empty < _MOST_CALLS_WITHOUT_A_NEW_ONE:
        before = len(drafts.kept)
        message = request_for(topic, min(_PER_CALL, num - before), [*known, *drafts.kept])
        called = await caller.chat(
            model, [{"role": "user", "content": message}], max_tokens=1024, temperature=temperature, **extra
        )
        drafts.add(read_drafts(called.completion.text), known, limit=num)
        num_empty = num_empty + 1 if len(drafts.kept) == before else 0


def _slug(topic: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in topic.lower()).split())[:40] or "question"
