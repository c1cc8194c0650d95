"""Log probabilities in OpenAI's shapes: one entry for each token, also where several tokens make one character."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

UNKNOWN_LOGPROB = -9999.0
"""OpenAI's number for a log probability that is not given. llama.cpp gives none for a token that ends in
mid-character."""


class Piece(NamedTuple):
    """A token and its bytes."""

    id: int
    content: bytes


Pieces = Mapping[str, list[Piece]]
"""The tokens of characters that llama.cpp reports as one token although they are several."""


def characters(events: bytes) -> set[str]:
    """Characters with log probabilities in these events that may be several tokens.

    llama.cpp reports a character made of several tokens as one: with the id of the last and the bytes of all.
    """
    found: set[str] = set()
    for line in events.split(b"\n\n"):
        if line.startswith(b"data: {"):
            for choice in orjson.loads(line[6:]).get("choices", ()):
                entries = (choice.get("logprobs") or {}).get("content") or ()
                found |= {entry["token"] for entry in entries if not entry["token"].isascii()}
    return found


def entries(logprobs: dict[str, Any], pieces: Pieces) -> Iterator[dict[str, Any]]:
    """llama.cpp's entries, one for each token, also inside a character."""
    for entry in logprobs["content"]:
        parts = pieces.get(entry["token"], [])
        is_same = parts and parts[-1].id == entry["id"]
        if not is_same or b"".join(piece.content for piece in parts) != bytes(entry["bytes"]):
            yield entry
            continue
        for piece in parts[:-1]:
            yield {**_named(piece), "logprob": UNKNOWN_LOGPROB, "top_logprobs": []}
        yield {**entry, **_named(parts[-1])}


def of_chat(logprobs: dict[str, Any], pieces: Pieces, *, top: int) -> dict[str, Any]:
    """The log probabilities of a chat's chunk, with the `top` likeliest tokens of each place."""
    return {
        "content": [
            _without_id(entry) | {"top_logprobs": [_without_id(other) for other in entry["top_logprobs"][:top]]}
            for entry in entries(logprobs, pieces)
        ],
        "refusal": None,
    }


def of_completion(logprobs: dict[str, Any], pieces: Pieces, *, top: int, offset: int) -> tuple[dict[str, Any], int]:
    """The log probabilities of a completion's chunk, in OpenAI's legacy shape, and the offset of the next chunk.

    `offset` counts the characters of the text before the chunk.
    """
    legacy: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in entries(logprobs, pieces):
        legacy["tokens"].append(entry["token"])
        legacy["token_logprobs"].append(entry["logprob"])
        legacy["top_logprobs"].append({other["token"]: other["logprob"] for other in entry["top_logprobs"][:top]})
        legacy["text_offset"].append(offset)
        # a character counts once, at its last token
        offset += 0 if entry["logprob"] == UNKNOWN_LOGPROB else len(entry["token"])
    return legacy, offset


def _named(piece: Piece) -> dict[str, Any]:
    return {"id": piece.id, "token": piece.content.decode(errors="replace"), "bytes": list(piece.content)}


def _without_id(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]}
