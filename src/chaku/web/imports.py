"""Chats that are imported. Records are held to the API's own models: what does not fit is repaired, with a counted
reason.

The page may then rely on the shape of everything that it is shown. Lines that are not conversations at all pass as they
are: the store refuses them by number.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chaku.errors import InvalidRequest
from chaku.images.data_url import clean_content
from chaku.policies import ImageLimits
from chaku.protocol.deltas import is_count
from chaku.protocol.messages import Content
from chaku.store.database import Store
from chaku.store.transcripts import ImportResult, import_jsonl
from chaku.web.other_exports import Converted, convert, is_messages_jsonl
from chaku.web.shapes import Settings, dump

_CONTENT: TypeAdapter[Any] = TypeAdapter(Content)
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def import_file(
    store: Store, owner_id: str | None, content: bytes, now: datetime, images: ImageLimits
) -> tuple[ImportResult, dict[str, int]]:
    """Take the chats of a file, of chaku or of another program: all that can be read.

    Returns what came in, with the file's records counted from 1, and counted reasons of what was repaired or left out.
    Raises InvalidRequest for a file that holds no JSON.
    """
    found = Converted(content.splitlines()) if is_messages_jsonl(content) else convert(content)
    lines = (repair_line(line, found.notes, images) for line in found.lines)
    imported = import_jsonl(store, owner_id, lines, now=now, skips_bad_lines=True)
    skipped = (replace(one, line=found.records[one.line - 1]) if found.records else one for one in imported.skipped)
    in_order = sorted([*found.skipped, *skipped], key=lambda one: one.line)
    return replace(imported, skipped=tuple(in_order)), dict(sorted(found.notes.items()))


def repair_line(line: bytes, repairs: Counter[str], images: ImageLimits) -> bytes:
    """One line of `messages` JSONL, repaired where it has to be; `repairs` counts the reasons. Images lose metadata."""
    try:
        record = json.loads(line)  # as the store reads it: orjson refuses lone surrogates and rounds large integers
    except (ValueError, RecursionError):
        return line  # the store says what is wrong with it
    if not isinstance(record, dict):
        return line
    num_before = repairs.total()
    if isinstance(record.get("chaku"), dict):
        _repair_settings(record["chaku"], "settings", repairs)
    messages = record.get("messages")
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict):
            _repair_message(message, repairs, images)
    return line if repairs.total() == num_before else dump(record)


def _repair_message(message: dict[str, Any], repairs: Counter[str], images: ImageLimits) -> None:
    if isinstance(message.get("content"), list):
        message["content"] = [_repair_part(part, repairs, images) for part in message["content"]]
    if "tool_calls" in message and not _are_tool_calls(message["tool_calls"]):
        del message["tool_calls"]
        repairs["tool_calls that are none were left out"] += 1
    facts = message.get("chaku")
    if not isinstance(facts, dict):
        return
    _repair_settings(facts, "sampling", repairs)
    if facts.get("usage") is not None and not _is_usage(facts["usage"]):
        del facts["usage"]
        repairs["usage that is none was left out"] += 1
    error = facts.get("error")
    if error is not None and not (isinstance(error, dict) and isinstance(error.get("message"), str)):
        facts["error"] = {"message": "the reason of this failure could not be read"}
        repairs["an error without a message got one"] += 1


def _repair_part(part: Any, repairs: Counter[str], images: ImageLimits) -> Any:
    try:
        _CONTENT.validate_python([part])
        before = copy.deepcopy(part)
        clean_content([part], images)
    except (ValidationError, InvalidRequest):
        kind = part.get("type") if isinstance(part, dict) else None
        name = kind[:40] if isinstance(kind, str) and kind.isprintable() else "unknown"
        repairs[f"a content part of type {name} that can't be read became a note"] += 1
        return {"type": "text", "text": f"[{name}: this part could not be imported]"}
    if part != before:
        repairs["an image was written anew without metadata"] += 1
    return part


def _repair_settings(holder: dict[str, Any], key: str, repairs: Counter[str]) -> None:
    """Keep the request parameters that the API takes; a `stop` that is one text becomes a list."""
    given = holder.get(key)
    if given is None:
        return
    kept: dict[str, Any] = {}
    for name, value in given.items() if isinstance(given, dict) else []:
        try:
            Settings.model_validate({name: value})
        except ValidationError:
            repairs[f"{key}.{name[:40]} that the API does not take was left out"] += 1
        else:
            kept[name] = [value] if name == "stop" and isinstance(value, str) else value
    if not isinstance(given, dict):
        repairs[f"{key} that are none were left out"] += 1
    elif kept.get("stop") != given.get("stop") and "stop" in kept:
        repairs[f"{key}.stop became a list"] += 1
    holder[key] = kept or None


def _is_usage(usage: Any) -> bool:
    if not isinstance(usage, dict):
        return False
    details = usage.get("prompt_tokens_details") or {}
    if not isinstance(details, dict):
        return False
    counts = [*(usage.get(name) for name in _COUNTS), details.get("cached_tokens")]
    return all(count is None or is_count(count) for count in counts)


def _are_tool_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("id"), str)
        and isinstance(call.get("function"), dict)
        and isinstance(call["function"].get("name"), str)
        and isinstance(call["function"].get("arguments"), str)
        for call in calls
    )
