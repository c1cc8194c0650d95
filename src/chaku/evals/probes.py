"""What a judge is tried with: pairs in both orders, repeats, identical, empty and padded answers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from chaku.comparison import Comparison
from chaku.evals.plan import Answers, JudgementTask, Judging
from chaku.evals.records import ContestantAnswer, Question, content_key

ProbeKind = Literal["pair", "repeat", "identical", "empty", "padded"]
PADDED, EMPTY = "+padding", "+nothing"
"""Ends of the names of answers that were generated for a probe."""
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_NEUTRAL_NAMES = ("cedar", "willow", "maple", "rowan", "alder", "hazel", "larch", "aspen")


@dataclass(frozen=True)
class Material:
    """Answers for a judge to compare, and what is known of which is better."""

    questions: Sequence[Question]
    answers: Answers
    """Of sample 0; the samples of others are not used."""
    names: Sequence[str]
    labels: Sequence[Comparison] = field(default=())
    """By people, or by construction."""
    of_people: bool = True
    """False: the labels are known since the worse answers were made worse here."""


@dataclass(frozen=True)
class Probe:
    """Something shown to the judge, and why."""

    kind: ProbeKind
    task: JudgementTask
    shown: tuple[tuple[str, ...], tuple[str, ...]]
    """The two answers, turn by turn, in the order shown."""

    @property
    def names(self) -> tuple[str, str]:
        """Whose answers they are, in the order shown."""
        first, second = self.task.models
        return first, second

    @property
    def case(self) -> tuple[str, str, str]:
        """The same for both orders of a pair."""
        first, second = sorted(self.names)
        return self.task.question.id, first, second


def plan_probes(material: Material, judging: Judging, *, num_cases: int, seed: int = 0) -> list[Probe]:
    """Probes on `num_cases` pairs at most, and on a part of them for the controls, chosen by the seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    cases = list(_cases(material))
    labelled = {(game.prompt_id, *sorted((game.model_a, game.model_b))) for game in material.labels}
    chance.shuffle(cases)
    cases.sort(key=lambda case: (case[0].id, *sorted(case[1:])) not in labelled)  # stable: labelled ones first
    cases = cases[:num_cases]
    probes = []
    for number, (question, first, second) in enumerate(cases):
        names = (first, second) if chance.random() < 0.5 else (second, first)
        texts = [material.answers[question.id, name, 0].turns for name in names]
        probes += _both_orders("pair", question, names, (texts[0], texts[1]), judging)
        if number < max(10, num_cases // 2):
            probes.append(_probe("repeat", question, names, (texts[0], texts[1]), judging, repeat=1))
        if number < max(10, num_cases // 4):
            name, text = names[0], texts[0]
            probes.append(_probe("identical", question, (name, name), (text, text), judging))
            probes += _both_orders("empty", question, (name, name + EMPTY), (text, ("",) * len(text)), judging)
        if number < max(10, num_cases // 2):
            name, text = names[1], texts[1]
            probes += _both_orders("padded", question, (name, name + PADDED), (text, padded(text)), judging)
    return list({probe.task.key: probe for probe in probes}.values())  # two pairs may share an answer


def padded(turns: tuple[str, ...]) -> tuple[str, ...]:
    """The repeated-list attack (Zheng et al. 2023): the answer and, as a list, all it says again."""
    sentences = [match[0].strip() for match in _SENTENCE.finditer(turns[-1]) if match[0].strip()]
    points = "\n".join(f"- {sentence}" for sentence in sentences) or f"- {turns[-1]}"
    return (*turns[:-1], f"{turns[-1]}\n\nThe main points once more:\n\n{points}")


def _cases(material: Material) -> Iterator[tuple[Question, str, str]]:
    for question in material.questions:
        for first, second in combinations(material.names, 2):
            found = [material.answers.get((question.id, name, 0)) for name in (first, second)]
            turns = [answer.turns for answer in found if answer is not None]
            if len(turns) == 2 and turns[0] != turns[1]:
                yield question, first, second


def _both_orders(
    kind: ProbeKind,
    question: Question,
    names: tuple[str, str],
    shown: tuple[tuple[str, ...], tuple[str, ...]],
    judging: Judging,
) -> list[Probe]:
    return [_probe(kind, question, names, shown, judging), _probe(kind, question, names[::-1], shown[::-1], judging)]


def _probe(
    kind: ProbeKind,
    question: Question,
    names: tuple[str, str],
    shown: tuple[tuple[str, ...], tuple[str, ...]],
    judging: Judging,
    repeat: int = 0,
) -> Probe:
    turn = min(len(question.turns), len(shown[0]), len(shown[1]))
    prompt = judging.prompts.suited(question, turn)
    messages = prompt.messages(question, shown, turn)
    key = content_key(
        "probe", kind, judging.judge, judging.mode, messages, judging.sampling, question.id, names, repeat
    )
    return Probe(kind, JudgementTask(key, question, names, turn, 0, repeat, prompt.name, messages), shown)


def material_of_references(questions: Sequence[Question], *, seed: int = 0) -> Material:
    """Pairs whose better answer is known: a question's reference against the reference of another question, or against
    the first words of its own. Neutral names, given at random, say nothing about which is which.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    with_reference = [question for question in questions if question.reference and len(question.turns) == 1]
    names = tuple(chance.sample(_NEUTRAL_NAMES, 2))
    answers, labels = {}, []
    for number, question in enumerate(with_reference):
        good = question.reference
        others = [other for other in with_reference if other.id != question.id and other.category == question.category]
        bad = (" ".join(good[0].split()[:6]),) if number % 2 or not others else chance.choice(others).reference
        better, worse = names if chance.random() < 0.5 else names[::-1]
        for name, turns in ((better, good), (worse, bad)):
            answers[question.id, name, 0] = ContestantAnswer(key="", question_id=question.id, model=name, turns=turns)
        labels.append(
            Comparison(
                source="import", model_a=better, model_b=worse, outcome="a", prompt_id=question.id, cluster=question.id
            )
        )
    # The judge does not see the reference: it would be one of the answers, word for word.
    shown = [question.model_copy(update={"reference": ()}) for question in with_reference]
    return Material(shown, answers, names, labels, of_people=False)
