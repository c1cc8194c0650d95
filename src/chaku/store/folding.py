"""Text as search sees it: letter case, width and compatibility forms folded away, the same in both databases."""

from __future__ import annotations

import unicodedata
from typing import Any


def plain_text(content: Any) -> str:
    """The text of a message's content: itself, or its text parts on lines of their own."""
    if isinstance(content, str):
        return content
    parts = (part.get("text") for part in content or ())
    return "\n".join(text for text in parts if isinstance(text, str))


def fold(text: str) -> str:
    """NFKC and casefold; NUL and lone surrogates, which PostgreSQL's text can't hold, go."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.replace("\0", "").encode("utf-8", "ignore").decode()
