"""Chats that other programs exported, as lines of `messages` JSONL: ShareGPT, ChatGPT, Claude, Open WebUI and more.

chaku.data's readers recognise the format. A record that can't be read costs only itself.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from chaku.chat.messages import Conversation, Role
from chaku.data.inputs import shapes, sources
from chaku.data.inputs.fields import BadMessage, UnknownShape
from chaku.errors import InvalidRequest
from chaku.protocol.json_scan import loads
from chaku.store.conversations import check_title, title_from
from chaku.store.transcripts import Skipped
from chaku.web.shapes import dump

_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")  # gzip, zstd, zip
_CONTAINERS = frozenset({"jsonl", "json array", "json values"})
_LINES_SEEN = 20


@dataclass
class Converted:
    """The lines, the record of the file that each came from (counted from 1), and what was left out."""

    lines: list[bytes] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def is_messages_jsonl(content: bytes) -> bool:
    """Whether one of the first lines is a conversation as chaku exports it, so that no line needs another reader."""
    for line in content.split(b"\n", _LINES_SEEN)[:_LINES_SEEN]:
        if not line.lstrip().startswith(b"{"):
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(record.get("messages"), list):
            return True
    return False


def convert(content: bytes) -> Converted:
    """Read a file in whatever format chaku.data knows. Raises InvalidRequest for a file that is not JSON."""
    if content.startswith(_PACKED):
        raise InvalidRequest("the file is compressed", fix="unpack it and import the JSON file in it")
    converted = Converted()
    with tempfile.TemporaryDirectory(prefix="chaku-import-") as folder:
        path = Path(folder, "chats")
        path.write_bytes(content)
        if (container := sources.detect(path)) not in _CONTAINERS:
            raise InvalidRequest(
                f"the file holds no JSON ({container.removeprefix('unknown: ')})",
                fix="import JSON or JSONL: chats of chaku, ShareGPT, ChatGPT, Claude or Open WebUI",
            )
        for position, record in enumerate(sources.records(path), start=1):
            number = record.number or position
            if record.error is not None:
                converted.skipped.append(Skipped(number, record.error))
                continue
            _read(record.data, number, converted)
    return converted


def _read(data: bytes, number: int, converted: Converted) -> None:
    try:
        found = shapes.read(loads(data), "best")
    except orjson.JSONDecodeError as error:
        converted.skipped.append(Skipped(number, f"not JSON: {error}"))
    except UnknownShape as error:
        converted.skipped.append(Skipped(number, f"no conversation: {error}"))
    except BadMessage as error:
        converted.skipped.append(Skipped(number, str(error)))
    else:
        if found.num_branches_left:
            converted.notes["a branch that was not open was left out"] += found.num_branches_left
        for conversation in found.conversations:
            converted.lines.append(dump(_line_of(conversation)))
            converted.records.append(number)


def _line_of(conversation: Conversation) -> dict[str, Any]:
    messages = [message.to_json() for message in conversation.messages]
    for message in messages:
        message.pop("weight", None)  # of training alone
    asked = next((message.content for message in conversation.messages if message.role is Role.USER), "")
    return {"title": _title(conversation.source.get("title")) or title_from(asked), "messages": messages}


def _title(given: Any) -> str:
    try:
        return check_title(given) if isinstance(given, str) else ""
    except InvalidRequest:  # longer than titles may be
        return ""
