"""Did you mean ...? The nearest known word to a mistyped one, for every error that names one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known word most like `word`; a beginning counts as much as a slip. None where nothing is like it.

    `likeness` runs from 0 (anything) to 1 (the same).
    """
    words = list(known)
    if close := difflib.get_close_matches(word, words, n=1, cutoff=likeness):
        return close[0]
    return next((name for name in words if len(word) > 1 and name.startswith(word)), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str, *, likeness: float = 0.6) -> str:
    """The way out of a mistyped word: the nearest known one, or `otherwise`."""
    near = nearest(word, known, likeness=likeness)
    return f"did you mean {near}?" if near else otherwise
