"""Evaluation questions that must not be trained on: word n-gram overlap of each user turn with question files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from chaku.chat.messages import Conversation, Role
from chaku.data.inputs import shapes, sources
from chaku.data.inputs.fields import BadMessage, UnknownShape
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.table import Action
from chaku.data.rules.words import words
from chaku.errors import UsageError

_LONGEST = 8
_SHORTEST = 4
"""A question under so many words counts only when a turn is that question and nothing else: "who are you"."""


@dataclass(frozen=True)
class Hit:
    """The question that a text holds most of, and the share of its n-grams."""

    question: str
    share: float


class Questions:
    """An index of question texts. Holds one dictionary for each n from 4 to 8."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: list[str] = []
        self._num_grams: list[int] = []
        self._whole: dict[tuple[str, ...], int] = {}
        self._grams: dict[int, dict[tuple[str, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
        for text in dict.fromkeys(texts):
            tokens = words(text)
            if not tokens:
                continue
            number = len(self._texts)
            self._texts.append(text)
            self._whole.setdefault(tuple(tokens), number)
            n = min(_LONGEST, len(tokens))
            grams = _grams(tokens, n) if n >= _SHORTEST else set()
            self._num_grams.append(len(grams))
            for gram in grams:
                self._grams[n][gram].append(number)

    def __len__(self) -> int:
        return len(self._texts)

    def search(self, text: str) -> Hit | None:
        """The best hit in a text, whatever its share; None where no n-gram is shared."""
        tokens = words(text)
        if (number := self._whole.get(tuple(tokens))) is not None:
            return Hit(self._texts[number], 1.0)
        shared: Counter[int] = Counter()
        for n, known in self._grams.items():
            for gram in _grams(tokens, n) & known.keys():
                shared.update(known[gram])
        if not shared:
            return None
        best = max(shared, key=lambda number: (shared[number] / self._num_grams[number], -number))
        return Hit(self._texts[best], shared[best] / self._num_grams[best])


def _grams(tokens: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return set(zip(*(tokens[offset:] for offset in range(n)), strict=False))


def read_questions(paths: Iterable[Path]) -> Questions:
    """Index every user turn of some question files. Raises UsageError for a file without a question."""
    texts: list[str] = []
    for path in paths:
        before = len(texts)
        for record in sources.records(path):
            if record.error is None:
                texts += _user_turns(record.data)
        if len(texts) == before:
            raise UsageError(
                f"{path} holds no question", fix="give FastChat's question.jsonl or a file of prompts or conversations"
            )
    return Questions(texts)


def _user_turns(data: bytes) -> list[str]:
    try:
        imported = shapes.read(orjson.loads(data), "all")
    except (orjson.JSONDecodeError, UnknownShape, BadMessage):
        return []
    return [
        message.content
        for conversation in imported.conversations
        for message in conversation.messages
        if message.role is Role.USER
    ]


def judge_contamination(
    conversation: Conversation, questions: Questions, least_share: float, action: Action
) -> Decision:
    """Drop or flag a conversation of which a user turn holds a question."""
    best: Hit | None = None
    for message in conversation.messages:
        if message.role is Role.USER and (hit := questions.search(message.content)) is not None:
            best = hit if best is None or hit.share > best.share else best
    if best is None or best.share < least_share:
        return Decision(conversation.id, conversation)
    if action == "drop":
        return Decision(conversation.id, None, "contaminated", best.share, best.question[:120])
    return Decision(conversation.id, conversation, flags=(Flag("contaminated", best.share, best.question[:120]),))
