"""`chaku eval run`: the questions of a suite, the contestants' answers, the judge's verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chaku.cli.eval.asking import Wanted, carry_out, judge_host_of, judging_of, prices_of
from chaku.cli.eval.options import calling_options, code_option, judging_options
from chaku.cli.help_page import command
from chaku.cli.terminal.asking import endpoint_options
from chaku.errors import UsageError
from chaku.evals.plan import ANSWER_TOKENS
from chaku.evals.suites import load_suite, spread
from chaku.settings import Contestant


@command(sections={"Judging": "judge", "Calls": "output"})
@click.argument("suite")
@click.option(
    "-m",
    "--model",
    "models",
    metavar="CONTESTANT",
    multiple=True,
    required=True,
    help="A model, NAME=MODEL, or {name: NAME, model: MODEL, system: TEXT, sampling: {...}}. Several times.",
)
@click.option(
    "--samples", metavar="K", type=click.IntRange(1), default=1, show_default=True, help="Answers per question."
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="Ask only N questions, of as many categories as possible."
)
@click.option("--category", "categories", metavar="NAME", multiple=True, help="Ask only this category. Several times.")
@click.option(
    "--references",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="FastChat's reference answers.",
)
@click.option(
    "--max-tokens",
    metavar="N",
    type=click.IntRange(1),
    default=ANSWER_TOKENS,
    show_default=True,
    help="Longest answer.",
)
@endpoint_options
@judging_options
@calling_options
@code_option
def run(
    suite: str, models: tuple[str, ...], samples: int, limit: int | None, categories: tuple[str, ...],
    references: Path | None, max_tokens: int, base_url: str | None, api_key: str | None, judge_url: str | None,
    judge_key: str | None, output: Path | None, parallel: int, prices: Path | None, budget: float | None,
    allow_code: bool, dry_run: bool, as_json: bool, **judging: Any,
) -> None:  # fmt: skip
    """Ask models the questions of a suite, and judge the answers.

    SUITE is chaku-80, the name of a fetched suite, or a file: JSONL or CSV with prompts, or FastChat's question.jsonl.

    Run the same command again to resume, even after `kill -9`. Recorded calls are not made again.
    """
    contestants = [Contestant.of_flag(text) for text in models]
    names = [contestant.name for contestant in contestants]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two contestants are called {repeated!r}", fix="give one another name: NAME=MODEL")
    questions = load_suite(suite, references=references)
    if categories:
        known = dict.fromkeys(question.category or "" for question in questions)
        if unknown := [name for name in categories if name not in known]:
            raise UsageError(f"{suite} has no category {unknown[0]!r}", fix=f"categories: {', '.join(known)}")
        questions = [question for question in questions if question.category in categories]
    if limit is not None:
        questions = spread(questions, limit)
    carry_out(
        Wanted(
            suite=suite,
            folder=output or Path("evals") / Path(suite).stem,
            questions=questions,
            contestants=contestants,
            given=(),
            asks=True,
            judging=judging_of(**judging),
            samples=samples,
            max_tokens=max_tokens,
            parallel=parallel,
            prices=prices_of(prices),
            budget=budget,
            allow_code=allow_code,
            base_url=base_url,
            api_key=api_key,
            judge_host=judge_host_of(judge_url, judge_key, judging["judge"]),
        ),
        is_dry=dry_run,
        as_json=as_json,
    )
