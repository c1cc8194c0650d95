"""Turns OpenAI-shaped chunks, parsed or as bytes, into the blocks that an engine yields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from chaku.engines.base import Block
from chaku.protocol.answers import DONE, event

# Inside a JSON string the quotes would be escaped, so neither can be text of the model. Some servers write a space.
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|arguments)": ?"[^"]')
_THOUGHTS = re.compile(rb'"reasoning": ?"[^"]')
"""OpenRouter's and newer vLLM's word; some servers send `reasoning_content` beside it."""
_USAGE = re.compile(rb'"usage": ?\{')


def blocks_of_events(events: bytes) -> list[Block]:
    """Whole server-sent events of a conformant server. They are parsed only where one carries token counts."""
    has_usage = b'"usage"' in events and _USAGE.search(events)
    if not has_usage:
        return [_unparsed(events)]
    blocks: list[Block] = []
    before: list[bytes] = []
    for text in events.split(b"\n\n"):
        if not text:
            continue
        data = text + b"\n\n"
        if not (text.startswith(b"data: {") and _USAGE.search(text)):
            before.append(data)
            continue
        chunk = orjson.loads(text[6:])
        if before:
            blocks.append(_unparsed(b"".join(before)))
            before = []
        num_tokens = _count(text)
        blocks.append(Block(data, num_tokens=num_tokens, usage=chunk["usage"], is_usage_only=_is_bare(chunk)))
    if before:
        blocks.append(_unparsed(b"".join(before)))
    return blocks


def blocks_of_chunks(chunks: Iterable[dict[str, Any] | None]) -> Iterator[Block]:
    """Parsed chunks, None for the end of the stream. Chunks that come together share a block."""
    together: list[bytes] = []
    num_tokens = 0
    for chunk in chunks:
        if chunk is None:
            together.append(DONE)
        elif usage := chunk.get("usage"):
            if together:
                yield Block(b"".join(together), num_tokens=num_tokens)
                together, num_tokens = [], 0
            yield Block(event(chunk), num_tokens=_num_tokens(chunk), usage=usage, is_usage_only=_is_bare(chunk))
        else:
            together.append(event(chunk))
            num_tokens += _num_tokens(chunk)
    if together:
        yield Block(b"".join(together), num_tokens=num_tokens, is_last=together[-1] is DONE)


def _unparsed(events: bytes) -> Block:
    return Block(events, num_tokens=_count(events), is_last=events.endswith(DONE))


def _count(events: bytes) -> int:
    return len(_CONTENT.findall(events)) or len(_THOUGHTS.findall(events))


def _is_bare(chunk: dict[str, Any]) -> bool:
    return not chunk.get("choices")


def _num_tokens(chunk: dict[str, Any]) -> int:
    """The number of choices in the chunk that add something to an answer."""
    return sum(map(_adds_something, chunk["choices"]))


def _adds_something(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    calls = delta.get("tool_calls") or ()
    said = choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
    return bool(said or any((call.get("function") or {}).get("arguments") for call in calls))
