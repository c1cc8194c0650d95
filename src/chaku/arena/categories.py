"""What a battle was about, by rules that anybody can check: code, maths, long, multi_turn, other; and its language."""

from __future__ import annotations

import re
from collections.abc import Sequence

CATEGORIES = ("code", "maths", "multi_turn", "long", "other")
LONG_WORDS = 200
"""A prompt of so many words is long."""
_CODE = re.compile(
    r"```|\b(?:python|javascript|typescript|rust|sql|bash|regex|html|css|c\+\+|java|golang|kubernetes|dockerfile)\b"
    r"|\b(?:def|class|import|function|const|return)\b[^.\n]{0,60}[({;:=]"
    r"|\b(?:stack ?trace|compile[rs]?|unit tests?|refactor)\b",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\$[^$\n]+\$|\\(?:frac|sum|int|sqrt)\b|\d\s*[-+*/^=×÷]\s*\d"
    r"|\b(?:integral|derivative|equation|theorem|prove that|probability|matrix|eigenvalues?|solve for|how many)\b",
    re.IGNORECASE,
)


def category_of(prompts: Sequence[str]) -> str:
    """The first rule that fits, in the order of CATEGORIES."""
    text = "\n".join(prompts)
    if _CODE.search(text):
        return "code"
    if _MATHS.search(text):
        return "maths"
    if len(prompts) > 1:
        return "multi_turn"
    return "long" if len(text.split()) >= LONG_WORDS else "other"


def language_of(prompts: Sequence[str]) -> str | None:
    """ISO 639-1 code. None: too short or doubtful, or the detector is not installed (`chaku[data]`)."""
    try:
        from chaku.data.rules.language import UNKNOWN, identify

        language, _ = identify(" ".join("\n".join(prompts).split())[:1200])
    except ModuleNotFoundError:
        return None
    return None if language == UNKNOWN else language
