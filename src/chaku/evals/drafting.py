"""Draft questions with a model, and drop those that say what another one says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

MAX_LIKENESS = 0.6
"""Questions that share more than this of their words are taken for the same."""
_ITEM = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*•])\s+(.+)$")
_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do does for from have how i if in is it its me my of on or that the their this "
        "to was what when where which who why will with would you your",
    )
)
SCHEMA = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}}},
    "required": ["questions"],
    "additionalProperties": False,
}
"""For servers that can hold a model to one."""


@dataclass
class Drafts:
    """The questions that were kept, and how many were dropped."""

    kept: list[str] = field(default_factory=list)
    num_repeated: int = 0

    def add(self, questions: Iterable[str], known: Sequence[str] = (), *, limit: int) -> None:
        """Keep those that are like none of the kept and none of `known`, up to a limit."""
        others = [_words(text) for text in (*known, *self.kept)]
        for text in questions:
            words = _words(text)
            if any(_likeness(words, other) > MAX_LIKENESS for other in others):
                self.num_repeated += 1
            elif len(self.kept) < limit:
                self.kept.append(text)
                others.append(words)


def request_for(topic: str, num: int, avoid: Sequence[str]) -> str:
    """What the model is asked."""
    known = "\n".join(f"- {text}" for text in avoid[-20:])
    without = f"\n\nThese questions exist already. Ask other ones:\n{known}" if known else ""
    return (
        f"Write {num} questions about this topic: {topic}\n\n"
        "They test how well an assistant answers. Each can be understood alone, differs from the others, and takes "
        f"more than one sentence to answer. Write one question per line, numbered, and nothing else.{without}"
    )


def read_drafts(text: str) -> list[str]:
    """The questions in a model's text: a JSON object as `SCHEMA` has it, or the items of a list."""
    try:
        content = orjson.loads(text)
        return [str(item).strip() for item in content["questions"] if str(item).strip()]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    items = [match[1].strip(' *"') for line in text.splitlines() if (match := _ITEM.match(line))]
    return [item for item in items if len(_WORD.findall(item)) > 2]


def _words(text: str) -> frozenset[str]:
    words = _WORD.findall(text.lower())
    return frozenset(word for word in words if word not in _STOP_WORDS) or frozenset(words)


def _likeness(first: frozenset[str], second: frozenset[str]) -> float:
    """Jaccard's: the shared words' part of all words."""
    return len(first & second) / max(1, len(first | second))
