"""What a judge's texts say, held against the scores that were recorded for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaku.evals.parse import parsed
from chaku.evals.records import Judgement, Question


@dataclass
class Reparsed:
    """Judgements with the values of their texts."""

    judgements: list[Judgement] = field(default_factory=list)
    compared: int = 0
    """Texts whose recorded values are known."""
    equal: int = 0
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Texts that clearly say something else than was recorded."""
    unparsed: list[dict[str, Any]] = field(default_factory=list)
    """Texts that can't be read, though a value was recorded."""

    def as_json(self) -> dict[str, Any]:
        """The counts and the named cases."""
        return {
            "equal": self.equal,
            "compared": self.compared,
            "conflicts": self.conflicts,
            "unparsed": self.unparsed,
        }


def reparse(judgements: Iterable[Judgement], questions: Mapping[str, Question]) -> Reparsed:
    """Parse the text of every judgement again."""
    result = Reparsed()
    for old in judgements:
        question = questions.get(old.question_id)
        new = parsed(old, question="\n".join(question.turns) if question else "")
        result.judgements.append(new)
        if old.state != "ok":
            continue
        result.compared += 1
        case: dict[str, Any] = {"question_id": old.question_id, "models": list(old.models), "recorded": _value(old)}
        if new.state != "ok":
            result.unparsed.append({**case, "reason": new.error})
        elif _value(new) != _value(old):
            result.conflicts.append({**case, "parsed": _value(new)})
        else:
            result.equal += 1
    return result


def _value(judgement: Judgement) -> Any:
    return judgement.winner if judgement.mode == "verdict" else list(judgement.scores)
