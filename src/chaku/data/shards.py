"""Conversations as JSONL in a shard's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from chaku.chat.messages import Conversation
from chaku.data.inputs.pairs import Pair


def write_jsonl(path: Path, conversations: Iterable[Conversation]) -> int:
    """One conversation a line; returns how many."""
    number = 0
    with path.open("wb") as file:
        for number, conversation in enumerate(conversations, start=1):  # noqa: B007
            file.write(orjson.dumps(conversation.to_json(), option=orjson.OPT_APPEND_NEWLINE))
    return number


def read_jsonl(path: Path) -> Iterator[Conversation]:
    """Conversations (and, in the build's own files, pairs) in order, one in memory at a time."""
    with path.open("rb") as file:
        for line in file:
            json = orjson.loads(line)
            yield Pair.from_json(json) if "rejected" in json else Conversation.from_json(json)
