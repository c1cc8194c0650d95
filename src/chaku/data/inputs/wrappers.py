"""A file that is one JSON object around its records: {"data": [...]}, or records by their id."""

from __future__ import annotations

from typing import Any

from chaku.data.inputs.turns import is_turn, is_turn_list

_LIST_KEYS = (
    "data", "rows", "train", "test", "examples", "instances", "samples", "records", "dataset", "conversations", "chats",
    "items",
)  # fmt: skip
_RECORD_KEYS = frozenset(
    """conversations conversation messages instruction prompt question turns mapping chat_messages chat chosen text
    query""".split()  # noqa: SIM905
)


def unwrapped(value: Any) -> list[Any] | None:
    """The records inside an object; None where it is a record itself."""
    if not isinstance(value, dict):
        return None
    for key in _LIST_KEYS:
        items = value.get(key)
        if (
            isinstance(items, list)
            and items
            and all(isinstance(item, dict) for item in items)
            and not is_turn(items[0])
        ):
            return [item["row"] if isinstance(item.get("row"), dict) else item for item in items]
    if value and all(isinstance(item, dict) and _RECORD_KEYS & item.keys() for item in value.values()):
        if "chat" in value or "prompt" in value:
            return None
        return [{"id": key, **item} for key, item in value.items()]
    if value and all(is_turn_list(item) for item in value.values()) and not _RECORD_KEYS & value.keys():
        return [{"id": key, "conversations": item} for key, item in value.items()]
    return None
