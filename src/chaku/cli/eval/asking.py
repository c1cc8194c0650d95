"""What `eval run` and `eval judge` share: options, hosts, the dry run, the calls themselves."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from chaku import __version__
from chaku.cli.eval.show import counts_of, print_counts
from chaku.cli.progress.requests import RequestCounts
from chaku.cli.terminal.asking import run_until_ended
from chaku.cli.terminal.endpoint import choose
from chaku.config import environment
from chaku.errors import ChakuError, UsageError
from chaku.evals.caller import ModelCaller, ModelHost
from chaku.evals.plan import Answers, AnswerTask, JudgementTask, Judging, plan_answers, plan_judgements
from chaku.evals.prices import Budget, estimated_tokens, load_prices
from chaku.evals.prompts import load_prompts
from chaku.evals.records import ContestantAnswer, Judgement, Manifest, Mode, Question, Run
from chaku.evals.session import Session, open_session
from chaku.policies import Price
from chaku.settings import Contestant

ASSUMED_ANSWER_CHARS = 1200
"""Length of an answer that isn't there yet, for the estimate of what judging it takes."""


@dataclass(frozen=True)
class Wanted:
    """Everything that one command asks for."""

    suite: str
    folder: Path
    questions: Sequence[Question]
    contestants: Sequence[Contestant]
    given: Sequence[ContestantAnswer]
    """Answers that were made elsewhere."""
    asks: bool
    """Whether the contestants are asked. False: only `given` and what is recorded is judged."""
    judging: Judging | None
    samples: int
    max_tokens: int
    parallel: int
    prices: dict[str, Price]
    budget: float | None
    allow_code: bool
    base_url: str | None
    api_key: str | None
    judge_host: ModelHost | None


def judging_of(
    *,
    judge: str | None,
    mode: Mode,
    orders: Literal["both", "given"],
    baseline: str | None,
    repeats: int,
    prompts: Path | None,
    judge_temperature: float,
    judge_tokens: int,
) -> Judging | None:
    """The options of `judging_options`, without the judge's host."""
    if judge is None:
        return None
    sampling = {"temperature": judge_temperature, "max_tokens": judge_tokens}
    return Judging(judge, mode, load_prompts(prompts, mode), orders, baseline, repeats, sampling)


def prices_of(path: Path | None) -> dict[str, Price]:
    """The file of --prices; empty without one."""
    return load_prices(path) if path else {}


def carry_out(wanted: Wanted, *, is_dry: bool, as_json: bool) -> None:
    """Make the run, or say what it would take."""
    judging = wanted.judging
    recorded = Run.load(wanted.folder) if (wanted.folder / "run.json").exists() else None
    names = list(dict.fromkeys([*_names(recorded), *(contestant.name for contestant in wanted.contestants)]))
    answer_tasks = (
        plan_answers(wanted.questions, wanted.contestants, samples=wanted.samples, max_tokens=wanted.max_tokens)
        if wanted.asks
        else []
    )

    def judgement_tasks(answers: Answers) -> list[JudgementTask]:
        if judging is None:
            return []
        return plan_judgements(wanted.questions, names, answers, judging, samples=wanted.samples)

    assumed = judgement_tasks(_assumed(wanted, names, recorded))
    asked_models = [contestant.model for contestant in wanted.contestants] if wanted.asks else []
    models = list(dict.fromkeys([*asked_models, *([judging.judge] if judging else [])]))
    Budget(wanted.budget, wanted.prices).require_prices(models)
    if is_dry:
        done = _done(recorded)
        _print_dry_run(
            [task for task in answer_tasks if task.key not in done],
            [task for task in assumed if task.key not in done],
            judging, wanted.prices, as_json=as_json,
        )  # fmt: skip
        return
    manifest = _manifest(wanted, num_models=len(names), num_judgements=len(assumed))
    with open_session(wanted.folder, manifest, wanted.questions) as session:
        known = {answer.key for answer in session.run.answers}
        for answer in wanted.given:
            if answer.key not in known:
                session.add(answer)
        run_until_ended(_make(session, wanted, answer_tasks, judgement_tasks))
        num_unchecked = session.check_by_program(allow_code=wanted.allow_code)
        _print_result(session, wanted, num_unchecked, as_json=as_json)


def _manifest(wanted: Wanted, *, num_models: int, num_judgements: int) -> Manifest:
    judging = wanted.judging
    return Manifest(
        suite=wanted.suite,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        contestants=tuple(wanted.contestants),
        judge=judging.judge if judging else None,
        mode=judging.mode if judging else None,
        orders=judging.orders if judging else "both",
        samples=wanted.samples,
        prompt=judging.prompts.name if judging else None,
        num_answers=num_models * len(wanted.questions) * wanted.samples if wanted.asks else len(wanted.given),
        num_judgements=num_judgements,
        chaku=__version__,
    )


async def _make(
    session: Session,
    wanted: Wanted,
    answer_tasks: Sequence[AnswerTask],
    judgement_tasks: Callable[[Answers], list[JudgementTask]],
) -> None:
    missing = session.missing_answers(answer_tasks)
    if not missing and not session.missing_judgements(judgement_tasks(session.answers())):
        return
    async with _caller(session, wanted, missing) as caller:
        with _counting(len(missing), len(answer_tasks), "answers") as watch:
            await session.ask(missing, caller, watch)
        if wanted.judging is not None:
            tasks = judgement_tasks(session.answers())
            unjudged = session.missing_judgements(tasks)
            with _counting(len(unjudged), len(tasks), "judgements") as watch:
                await session.judge(unjudged, wanted.judging, caller, watch)


@contextlib.asynccontextmanager
async def _caller(session: Session, wanted: Wanted, missing: Sequence[AnswerTask]) -> AsyncIterator[ModelCaller]:
    """A caller that knows where each model is; a server that was started for it ends with the block."""
    judge = wanted.judging.judge if wanted.judging else None
    models = list(dict.fromkeys(task.contestant.model for task in missing))
    if judge is not None and wanted.judge_host is None and judge not in models:
        models.append(judge)
    budget = Budget(wanted.budget, wanted.prices, spent=session.spent)
    async with contextlib.AsyncExitStack() as stack:
        hosts: dict[str, ModelHost] = {}
        served: dict[str, str] = {}
        if models:
            endpoint = await stack.enter_async_context(
                choose(wanted.base_url, wanted.api_key, models[0], beside=models[1:])
            )
            served = dict(zip(models, endpoint.names or models, strict=True))
            hosts = {model: ModelHost(endpoint.base_url, endpoint.api_key) for model in models}
        if judge is not None and wanted.judge_host is not None:
            hosts[judge] = wanted.judge_host
        yield await stack.enter_async_context(
            ModelCaller(hosts, parallel=wanted.parallel, budget=budget, served=served)
        )


@contextlib.contextmanager
def _counting(num_missing: int, total: int, what: str) -> Any:
    """A watcher that draws progress; says first how many are recorded already."""
    if num_missing < total:
        click.echo(f"{total - num_missing:,} of {total:,} {what} are recorded", err=True)
    counts = RequestCounts(num_missing, what)

    def watch(record: ContestantAnswer | Judgement) -> None:
        is_failed = bool(record.error) if isinstance(record, ContestantAnswer) else record.state == "failed"
        counts.add(is_failed=is_failed, tokens=record.usage.completion_tokens)

    try:
        yield watch
    finally:
        if num_missing:
            counts.end()


def _names(recorded: Run | None) -> tuple[str, ...]:
    return recorded.manifest.model_names if recorded else ()


def _done(recorded: Run | None) -> set[str]:
    """Keys of the calls that need not be made again."""
    if recorded is None:
        return set()
    answered = {answer.key for answer in recorded.answers if not answer.error}
    return answered | {judgement.key for judgement in recorded.judgements if judgement.state != "failed"}


def _assumed(wanted: Wanted, names: Sequence[str], recorded: Run | None) -> Answers:
    """The answers that are there, and an answer of ordinary length for each of the others."""
    there = [*(recorded.answers if recorded else ()), *wanted.given]
    given = {(answer.question_id, answer.model, answer.sample): answer for answer in there if not answer.error}
    if not wanted.asks:
        return given
    text = "x" * ASSUMED_ANSWER_CHARS
    return {
        (question.id, name, sample): given.get((question.id, name, sample))
        or ContestantAnswer(
            key="", question_id=question.id, model=name, turns=(text,) * len(question.turns), sample=sample
        )
        for question in wanted.questions
        for name in names
        for sample in range(wanted.samples)
    }


def _print_dry_run(
    answers: Sequence[AnswerTask],
    judgements: Sequence[JudgementTask],
    judging: Judging | None,
    prices: dict[str, Price],
    *,
    as_json: bool,
) -> None:
    """Calls and tokens by model; the dollars are the most that they can cost, were every answer of full length."""
    calls: dict[str, list[int]] = {}

    def add(model: str, prompt_tokens: int, max_tokens: int) -> None:
        row = calls.setdefault(model, [0, 0, 0])
        row[0] += 1
        row[1] += prompt_tokens
        row[2] += max_tokens

    for task in answers:
        assumed: list[str] = []
        for _ in task.question.turns:
            add(task.contestant.model, estimated_tokens(task.messages(assumed)), task.sampling["max_tokens"])
            assumed.append("x" * ASSUMED_ANSWER_CHARS)
    if judging is not None:
        for judgement in judgements:
            add(judging.judge, estimated_tokens(judgement.messages), judging.sampling["max_tokens"])
    rows = [
        {
            "model": model,
            "calls": num_calls,
            "prompt_tokens": prompt,
            "most_completion_tokens": completion,
            "most_dollars": round(prices[model].dollars(prompt, completion), 4) if model in prices else None,
        }
        for model, (num_calls, prompt, completion) in calls.items()
    ]
    if as_json:
        click.echo(orjson.dumps({"calls": sum(row[0] for row in calls.values()), "models": rows}).decode())
        return
    for row in rows:
        dollars = "no price" if row["most_dollars"] is None else f"up to about ${row['most_dollars']:,.4f}"
        click.echo(
            f"{row['model']}: {row['calls']:,} calls, about {row['prompt_tokens']:,} tokens of prompts, "
            f"at most {row['most_completion_tokens']:,} of answers, {dollars}"
        )
    click.echo("Nothing was sent. Judging assumes answers of about 300 tokens.")


def _print_result(session: Session, wanted: Wanted, num_unchecked: int, *, as_json: bool) -> None:
    counts = counts_of(Run.load(wanted.folder))
    if as_json:
        click.echo(orjson.dumps({"run": str(wanted.folder), "unchecked": num_unchecked, **counts}).decode())
    else:
        print_counts(counts)
        if num_unchecked:
            click.echo(f"{num_unchecked:,} answers hold code that was not run: allow it with --allow-code")
        click.echo(f"run          {wanted.folder}")
    if not session.answers():
        raise ChakuError("there is not one answer", fix=f"see error in {wanted.folder / 'answers.jsonl'}")


def judge_host_of(url: str | None, key: str | None, judge: str | None) -> ModelHost | None:
    """The host of --judge-url. Raises UsageError for one without a judge."""
    if url is None:
        if key is not None:
            raise UsageError("--judge-key is given without --judge-url", fix="add --judge-url, or give --api-key")
        return None
    if judge is None:
        raise UsageError("--judge-url is given without a judge", fix="name one with --judge")
    return ModelHost(url, key or environment("OPENAI_API_KEY"))
