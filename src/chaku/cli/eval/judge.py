"""`chaku eval judge`: answers that are there already, judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from chaku.cli.eval.asking import Wanted, carry_out, judge_host_of, judging_of, prices_of
from chaku.cli.eval.options import calling_options, code_option, judging_options
from chaku.cli.help_page import command
from chaku.cli.terminal.asking import endpoint_options
from chaku.errors import UsageError
from chaku.evals.answer_files import GivenAnswers, read_answers
from chaku.evals.suites import load_suite

_PATH = click.Path(path_type=Path, exists=True)


@command(sections={"Judging": "judge", "Calls": "output"})
@click.argument("sources", metavar="ANSWERS...", nargs=-1, required=True, type=_PATH)
@click.option("--questions", "suite", metavar="SUITE", help="The questions, where the answers come without them.")
@click.option(
    "--references", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="FastChat's reference answers.",
)  # fmt: skip
@endpoint_options
@judging_options
@calling_options
@code_option
def judge(
    sources: tuple[Path, ...], suite: str | None, references: Path | None, base_url: str | None, api_key: str | None,
    judge_url: str | None, judge_key: str | None, output: Path | None, parallel: int, prices: Path | None,
    budget: float | None, allow_code: bool, dry_run: bool, as_json: bool, **judging: Any,
) -> None:  # fmt: skip
    """Judge answers that were made elsewhere, or those of a run by another judge.

    ANSWERS is the folder of a run, an answers.jsonl of chaku's, answers of FastChat's, or a log of inspect or lm-eval.

    Run the same command again to resume, even after `kill -9`. Recorded calls are not made again.
    """
    questions = load_suite(suite, references=references) if suite else None
    given = read_answers(sources, questions)
    if judging["judge"] is None and not any(question.checker for question in given.questions):
        raise UsageError("no judge is named, and no question has a checker", fix="name one with --judge")
    carry_out(
        Wanted(
            suite=suite or given.suite,
            folder=output or _folder(sources, given),
            questions=given.questions,
            contestants=given.contestants,
            given=given.answers,
            asks=False,
            judging=judging_of(**judging),
            samples=1 + max((answer.sample for answer in given.answers), default=0),
            max_tokens=0,
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


def _folder(sources: Sequence[Path], given: GivenAnswers) -> Path:
    """The run itself, where one is judged again; else a new folder."""
    if len(sources) == 1 and (sources[0] / "run.json").is_file():
        return sources[0]
    return Path("evals") / Path(given.suite).stem
