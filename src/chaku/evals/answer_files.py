"""Answers that were made elsewhere: a run's folder or file, FastChat's files, logs of inspect and lm-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaku.errors import UsageError
from chaku.evals.fastchat import kind_of, questions_beside, read_old_files
from chaku.evals.foreign_logs import is_foreign_log, read_foreign_log
from chaku.evals.records import ContestantAnswer, Question, Run, newest, read_records
from chaku.evals.suites import read_questions
from chaku.settings import Contestant


@dataclass
class GivenAnswers:
    """Answers with their questions, and who gave them."""

    suite: str
    questions: list[Question] = field(default_factory=list)
    answers: list[ContestantAnswer] = field(default_factory=list)
    contestants: list[Contestant] = field(default_factory=list)


def read_answers(sources: Sequence[Path], questions: Sequence[Question] | None) -> GivenAnswers:
    """Read answers, in the order of the sources, which is the order in which pairs are shown.

    `questions` wins over what the sources bring; FastChat's question.jsonl beside a file is found. Answers to other
    questions are left out. Raises UsageError.
    """
    given = GivenAnswers(str(sources[0]))
    brought: dict[str, Question] = {}
    known: dict[str, Contestant] = {}
    for path in sources:
        if path.is_dir():
            run = Run.load(path)
            given.suite = run.manifest.suite
            brought |= run.questions
            known |= {contestant.name: contestant for contestant in run.manifest.contestants}
            given.answers += run.answers
        elif is_foreign_log(path):
            log = read_foreign_log(path)
            brought |= log.questions
            given.answers += log.answers
        elif kind_of(path) == "answer":
            given.answers += read_old_files([path]).answers
            if questions is None and (beside := questions_beside([path])):
                brought |= {question.id: question for question in read_questions(beside)}
        else:
            given.answers += newest(read_records(path, ContestantAnswer))
            of_run = path.with_name("questions.jsonl")
            if questions is None and of_run.is_file():
                brought |= {question.id: question for question in read_records(of_run, Question)}
    given.questions = list(questions if questions is not None else brought.values())
    if not given.questions:
        raise UsageError(f"{sources[0]} holds no questions, only answers", fix="name their suite with --questions")
    ids = {question.id for question in given.questions}
    given.answers = [answer for answer in given.answers if answer.question_id in ids and not answer.error]
    if not given.answers:
        raise UsageError("none of the answers belongs to one of the questions", fix="name their suite with --questions")
    names = dict.fromkeys(answer.model for answer in given.answers)
    given.contestants = [known.get(name) or Contestant(name=name, model=name) for name in names]
    return given
