"""Which calls an evaluation makes: answers and judgements, each with a key that says whether it was made before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from chaku.errors import UsageError
from chaku.evals.prompts import PromptSet
from chaku.evals.records import ContestantAnswer, Mode, Question, content_key
from chaku.evals.suites import temperature_of
from chaku.settings import Contestant

ANSWER_TOKENS = 1024
JUDGEMENT_TOKENS = 1024
Answers = Mapping[tuple[str, str, int], ContestantAnswer]
"""By question, contestant and sample."""


@dataclass(frozen=True)
class AnswerTask:
    """A question for a contestant."""

    key: str
    contestant: Contestant
    question: Question
    sample: int
    sampling: dict[str, Any]
    """The request's fields, max_tokens among them."""

    def messages(self, answered: Sequence[str] = ()) -> list[dict[str, str]]:
        """The conversation up to the turn after `answered`."""
        system = self.contestant.system
        messages = [{"role": "system", "content": system}] if system else []
        for number, turn in enumerate(self.question.turns[: len(answered) + 1]):
            messages.append({"role": "user", "content": turn})
            if number < len(answered):
                messages.append({"role": "assistant", "content": answered[number]})
        return messages


@dataclass(frozen=True)
class Judging:
    """How answers are judged."""

    judge: str
    """The model."""
    mode: Mode
    prompts: PromptSet
    orders: Literal["both", "given"] = "both"
    baseline: str | None = None
    """Judge only pairs with this contestant, which is shown second in the given order."""
    repeats: int = 1
    """How often each judgement is made."""
    sampling: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0, "max_tokens": JUDGEMENT_TOKENS})


@dataclass(frozen=True)
class JudgementTask:
    """Something to judge."""

    key: str
    question: Question
    models: tuple[str, ...]
    turn: int
    sample: int
    repeat: int
    prompt: str
    messages: list[dict[str, str]]


def plan_answers(
    questions: Sequence[Question],
    contestants: Sequence[Contestant],
    *,
    samples: int = 1,
    max_tokens: int = ANSWER_TOKENS,
) -> list[AnswerTask]:
    """All answers. A contestant's own sampling wins over the question's temperature."""
    tasks = []
    for question in questions:
        for contestant in contestants:
            sampling = {"temperature": temperature_of(question), "max_tokens": max_tokens, **contestant.sampling}
            for sample in range(samples):
                key = content_key("answer", contestant.model_dump(), question.turns, sampling, sample)
                tasks.append(AnswerTask(key, contestant, question, sample, sampling))
    return tasks


def plan_judgements(
    questions: Sequence[Question], models: Sequence[str], answers: Answers, judging: Judging, *, samples: int = 1
) -> list[JudgementTask]:
    """All judgements of answers that are there; what has no answer is not judged. Raises UsageError."""
    tasks: list[JudgementTask] = []
    for question in questions:
        for shown in _shown_together(models, judging):
            for sample in range(samples):
                found = [answers.get((question.id, model, sample)) for model in shown]
                texts = [answer.turns for answer in found if answer is not None and not answer.error]
                if len(texts) == len(shown):
                    tasks += _judgements_of(question, shown, texts, sample, judging)
    return tasks


def _judgements_of(
    question: Question, shown: tuple[str, ...], texts: list[tuple[str, ...]], sample: int, judging: Judging
) -> Iterator[JudgementTask]:
    for turn in range(1, min(len(question.turns), *map(len, texts)) + 1):
        prompt = judging.prompts.suited(question, turn)
        messages = prompt.messages(question, texts, turn)
        for repeat in range(judging.repeats):
            key = content_key(
                "judgement", judging.judge, judging.mode, messages, judging.sampling, question.id, shown, sample, repeat
            )
            yield JudgementTask(key, question, shown, turn, sample, repeat, prompt.name, messages)


def _shown_together(models: Sequence[str], judging: Judging) -> list[tuple[str, ...]]:
    """What a judge sees at a time, in the order shown."""
    if judging.mode == "score":
        return [(model,) for model in models]
    if judging.baseline is not None:
        if judging.baseline not in models:
            raise UsageError(f"the baseline {judging.baseline} is not asked", fix=f"choose among {', '.join(models)}")
        pairs = [(model, judging.baseline) for model in models if model != judging.baseline]
    else:
        pairs = list(combinations(models, 2))
    if not pairs:
        raise UsageError(f"mode {judging.mode} compares two contestants, and there is one", fix="use --mode score")
    return [shown for pair in pairs for shown in ((pair, pair[::-1]) if judging.orders == "both" else (pair,))]
