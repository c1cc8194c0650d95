"""An evaluation run by hand: two contestants, two orders, a judge who changes its mind, texts that can't be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chaku.evals.records import CallUsage, ContestantAnswer, Judgement, Manifest, Question, write_records, write_run
from chaku.settings import Contestant

HOSTILE = "</script><script>alert(1)</script><img src=http://x.invalid/a.png onerror=alert(2)> \u2028 ]]> é"
LONG = "A sentence that goes on. " * 60


def verdict(question: int, models: tuple[str, str], winner: str | None, text: str = "", **values: Any) -> Judgement:
    return Judgement(
        key=f"{question} {models} {values}", question_id=str(question), mode="verdict", judge="judge-1", models=models,
        winner=winner, state="ok" if winner else "unparsed", error=None if winner else "there is no verdict in it",
        text=text or f"Both are fine. However, one is slightly better than the other. [[{winner}]]",
        usage=CallUsage(prompt_tokens=100, completion_tokens=20, dollars=0.001), **values,
    )  # type: ignore[arg-type]  # fmt: skip


def said(name: str, at: int) -> str:
    return HOSTILE if at == 2 else f"{name} says {at}. {LONG}"


def make_verdict_run(folder: Path, *, num: int = 12, planned: int | None = None, turned: bool = False) -> Path:
    """`num` questions of three categories in both orders; the first is a change of mind, the second is unread."""
    folder.mkdir(parents=True)
    contestants = tuple(Contestant(name=name, model=name) for name in ("base", "tuned"))
    manifest = Manifest(
        suite="chaku-80", created="2026-11-28T10:00:00+00:00", contestants=contestants, judge="judge-1", mode="verdict",
        num_answers=2 * num, num_judgements=planned or 2 * num,
    )  # fmt: skip
    questions = [
        Question(id=str(at), turns=(f"Question {at}? {HOSTILE if at == 2 else ''}",), category=f"kind {at % 3}")
        for at in range(num)
    ]
    write_run(folder, manifest, questions)
    answers = [
        ContestantAnswer(
            key=f"{name} {at}", question_id=str(at), model=name, turns=(said(name, at),),
            usage=CallUsage(prompt_tokens=10, completion_tokens=50),
        )
        for at in range(num)
        for name in ("base", "tuned")
    ]  # fmt: skip
    write_records(folder / "answers.jsonl", answers)
    judgements = []
    for at in range(num):
        best = "tuned" if (at % 4 != 3) != turned else "base"
        for models in (("base", "tuned"), ("tuned", "base")):
            winner = "ab"[models.index(best)]
            if at == 0:
                winner = "a"  # whatever is shown first
            judgements.append(verdict(at, models, None if at == 1 else winner, HOSTILE if at == 2 else ""))
    write_records(folder / "judgements.jsonl", judgements)
    return folder
