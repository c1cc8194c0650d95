"""A run that is being made: what is missing is asked for, and each answer and judgement is on disk when it came.

A run may be killed at any moment. The same command then asks only for what is not recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from chaku.errors import ChakuError, UsageError
from chaku.evals.caller import ENDING, ModelCaller
from chaku.evals.checkers import check, needs_code
from chaku.evals.parse import answer_schema, parsed
from chaku.evals.plan import Answers, AnswerTask, JudgementTask, Judging
from chaku.evals.prices import BudgetReached
from chaku.evals.records import CallUsage, ContestantAnswer, Judgement, Manifest, Question, Run, content_key, write_run
from chaku.records import AppendOnly, append_only

Watch = Callable[[ContestantAnswer | Judgement], None]
Task = TypeVar("Task")


@dataclass
class Session:
    """An open run: its folder is locked for this process."""

    run: Run
    spent: float
    """Dollars of all calls so far, those whose answer was replaced by a later one too."""
    _answers_file: AppendOnly
    _judgements_file: AppendOnly
    _answers: dict[str, ContestantAnswer] = field(default_factory=dict)
    _judgements: dict[str, Judgement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._answers = {answer.key: answer for answer in self.run.answers}
        self._judgements = {judgement.key: judgement for judgement in self.run.judgements}

    def missing_answers(self, tasks: Sequence[AnswerTask]) -> list[AnswerTask]:
        """The tasks without an answer; a failed one is tried again."""
        return [task for task in tasks if task.key not in self._answers or self._answers[task.key].error]

    def missing_judgements(self, tasks: Sequence[JudgementTask]) -> list[JudgementTask]:
        """The tasks without a judgement. One that can't be read was made: a better parser may read it."""
        return [
            task for task in tasks if task.key not in self._judgements or self._judgements[task.key].state == "failed"
        ]

    def answers(self) -> Answers:
        """The answers that did not fail."""
        return {
            (answer.question_id, answer.model, answer.sample): answer
            for answer in self._answers.values()
            if not answer.error
        }

    def add(self, record: ContestantAnswer | Judgement) -> None:
        """Record something: when this returns, the death of this process can't lose it."""
        if isinstance(record, ContestantAnswer):
            self._answers_file.add(record.line())
            self._answers[record.key] = record
        else:
            self._judgements_file.add(record.line())
            self._judgements[record.key] = record

    async def ask(self, tasks: Sequence[AnswerTask], caller: ModelCaller, watch: Watch) -> None:
        """Ask for answers. Raises BudgetReached, and what means that no further call would do better."""
        await _in_parallel(tasks, caller.num_workers, lambda task: self._note(answer_to(task, caller), watch))

    async def judge(self, tasks: Sequence[JudgementTask], judging: Judging, caller: ModelCaller, watch: Watch) -> None:
        """Ask for judgements. Raises as `ask` does."""
        extra: dict[str, Any] = {}
        if tasks and await caller.declares(judging.judge, "response_format"):
            schema = {"name": "judgement", "schema": answer_schema(judging.mode), "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        await _in_parallel(
            tasks, caller.num_workers, lambda task: self._note(judgement_of(task, judging, caller, extra), watch)
        )

    async def _note(self, coming: Awaitable[ContestantAnswer | Judgement], watch: Watch) -> None:
        record = await coming
        self.add(record)
        watch(record)

    def check_by_program(self, *, allow_code: bool) -> int:
        """Check the answers to questions that have a checker; returns how many need `allow_code` to be checked."""
        num_left = 0
        for answer in list(self.answers().values()):
            question = self.run.questions.get(answer.question_id)
            if question is None or question.checker is None:
                continue
            key = content_key("check", answer.key, answer.turns, question.checker.model_dump())
            if key in self._judgements:
                continue
            if needs_code(question.checker) and not allow_code:
                num_left += 1
                continue
            result = check(question.checker, answer.turns[-1])
            self.add(
                Judgement(
                    key=key,
                    question_id=question.id,
                    mode="check",
                    judge="checker",
                    models=(answer.model,),
                    turn=len(answer.turns),
                    sample=answer.sample,
                    text=result.reason,
                    scores=(float(result.passed),),
                )
            )
        return num_left


async def answer_to(task: AnswerTask, caller: ModelCaller) -> ContestantAnswer:
    """The contestant's answer to all turns. A failure of this call alone is an answer with an error."""
    turns: list[str] = []
    reasons: list[str] = []
    usages: list[CallUsage] = []
    error = None
    try:
        for _ in task.question.turns:
            called = await caller.chat(task.contestant.model, task.messages(turns), **task.sampling)
            turns.append(called.completion.text)
            reasons.append(called.completion.finish_reason)
            usages.append(called.usage)
    except (*ENDING, BudgetReached):
        raise
    except ChakuError as failure:
        turns, reasons, error = [], [], failure.message
    return ContestantAnswer(
        key=task.key,
        question_id=task.question.id,
        model=task.contestant.name,
        turns=tuple(turns),
        sample=task.sample,
        finish_reasons=tuple(reasons),
        usage=_sum(usages),
        error=error,
    )


async def judgement_of(
    task: JudgementTask, judging: Judging, caller: ModelCaller, extra: dict[str, Any] | None = None
) -> Judgement:
    """What the judge says, read. A failure of this call alone is a judgement that failed."""
    judgement = Judgement(
        key=task.key,
        question_id=task.question.id,
        mode=judging.mode,
        judge=judging.judge,
        models=task.models,
        turn=task.turn,
        sample=task.sample,
        repeat=task.repeat,
        prompt=task.prompt,
    )
    try:
        called = await caller.chat(judging.judge, task.messages, **judging.sampling, **(extra or {}))
    except (*ENDING, BudgetReached):
        raise
    except ChakuError as failure:
        return judgement.model_copy(update={"state": "failed", "error": failure.message})
    told = judgement.model_copy(update={"text": called.completion.text, "usage": called.usage})
    return parsed(told, question="\n".join(task.question.turns))


def _sum(usages: Sequence[CallUsage]) -> CallUsage:
    prices = [usage.dollars for usage in usages if usage.dollars is not None]
    return CallUsage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        dollars=sum(prices) if prices else None,
        seconds=sum(usage.seconds or 0.0 for usage in usages),
    )


async def _in_parallel(tasks: Sequence[Task], num_workers: int, work: Callable[[Task], Awaitable[None]]) -> None:
    waiting = iter(tasks)

    async def worker() -> None:
        for task in waiting:
            await work(task)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(num_workers, len(tasks))):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


@contextlib.contextmanager
def open_session(folder: Path, manifest: Manifest, questions: Sequence[Question]) -> Iterator[Session]:
    """Begin a run, or resume the one in a folder; contestants and questions are added to those it has.

    Raises UsageError where another process writes the run, or a question was changed since it was asked.
    """
    with append_only(folder / "answers.jsonl") as answers, append_only(folder / "judgements.jsonl") as judgements:
        if (folder / "run.json").exists():
            manifest, questions = _together(Run.load(folder), manifest, questions)
        write_run(folder, manifest, questions)
        lines = [ContestantAnswer.of(orjson.loads(line)).usage for line in answers.lines]
        lines += [Judgement.of(orjson.loads(line)).usage for line in judgements.lines]
        yield Session(Run.load(folder), sum(usage.dollars or 0.0 for usage in lines), answers, judgements)


def _together(run: Run, manifest: Manifest, questions: Sequence[Question]) -> tuple[Manifest, list[Question]]:
    all_questions = dict(run.questions)
    for question in questions:
        if all_questions.setdefault(question.id, question) != question:
            raise UsageError(
                f"question {question.id} is not what {run.folder} asked", fix="name another folder with -o"
            )
    contestants = {contestant.name: contestant for contestant in (*run.manifest.contestants, *manifest.contestants)}
    for contestant in run.manifest.contestants:
        if contestants[contestant.name] != contestant:
            raise UsageError(
                f"the contestant {contestant.name} had other settings in {run.folder}",
                fix="give it another name, or name another folder with -o",
            )
    merged = manifest.model_copy(update={"contestants": tuple(contestants.values()), "created": run.manifest.created})
    return merged, list(all_questions.values())
