"""The sentence of a judge's text that decides: a guess by words that compare, for a reader's eye and nothing else."""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?=[^\s.!?]))+[.!?]*")
_COMPARING = re.compile(
    r"\b(?:better|best|worse|stronger|weaker|superior|inferior|prefer\w*|outperform\w*|slightly|whereas|however|"
    r"therefore|overall|conclusion|verdict|winner|more|less|lacks?|fails?|incorrect\w*|mistakes?|errors?|wrong)\b",
    re.IGNORECASE,
)
_MOST_LETTERS = 20_000


def deciding_sentence(text: str) -> tuple[int, int] | None:
    """Where it stands: of the sentences with the most comparing words, the first one. None where no word compares."""
    best, place = 0, None
    for match in _SENTENCE.finditer(text[:_MOST_LETTERS]):
        score = len(_COMPARING.findall(match[0]))
        if score > best:
            begin = match.start() + len(match[0]) - len(match[0].lstrip())
            best, place = score, (begin, match.start() + len(match[0].rstrip()))
    return place
