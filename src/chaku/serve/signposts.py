"""The way out for a client that misses the API: without /v1, or with /v1 twice."""

from __future__ import annotations

import re

from chaku.errors import NotFound

_MISPLACED = re.compile(
    r"(?:/openai|/v1)*/(chat/completions|completions|embeddings|models|responses|messages(?:/count_tokens)?)"
)


def signpost(path: str, method: str) -> NotFound | None:
    """The path that the client meant; None for a path that may be the page's, or anything else."""
    match = _MISPLACED.fullmatch(re.sub(r"/{2,}", "/", path).rstrip("/"))
    if match is None or (method in ("GET", "HEAD") and match[1] == "chat/completions"):  # the page's /chat/ID
        return None
    endpoint = match[1]
    return NotFound(
        f"there is no {path[:100]}, but /v1/{endpoint}",
        fix="the client's base URL must end in /v1, such as http://127.0.0.1:8000/v1",
    )
