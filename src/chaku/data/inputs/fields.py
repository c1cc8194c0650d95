"""A JSON object that remembers which of its keys a reader used, so that no text is ignored in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from chaku.chat.messages import Conversation, Message, Role


class UnknownShape(Exception):
    """JSON of no conversation format that we know; the text names the keys that were found."""


class BadMessage(Exception):
    """The format is known, but a message can't be read; the text says why."""


class Imported:
    """What a record held: its format, its conversations or pairs, and what of it is not used."""

    __slots__ = ("conversations", "format", "num_branches_left", "unused")

    def __init__(
        self, format_name: str, conversations: list[Conversation], num_branches_left: int = 0,
        unused: Counter[str] | None = None,
    ) -> None:  # fmt: skip
        self.format = format_name
        self.conversations = conversations
        self.num_branches_left = num_branches_left
        self.unused: Counter[str] = unused if unused is not None else Counter()


class Fields:
    """An object's values by key. What is asked for counts as used; what is left over is reported."""

    __slots__ = ("used", "value")

    def __init__(self, value: Mapping[str, Any]) -> None:
        if not isinstance(value, Mapping):
            raise BadMessage(f"a {type(value).__name__} where an object belongs")
        self.value = value
        self.used: set[str] = set()

    def get(self, *keys: str) -> Any:
        """The value of the first of these keys that holds something; None without one."""
        for key in keys:
            value = self.value.get(key)
            if value is not None:
                self.used.add(key)
                return value
        return None

    def text(self, *keys: str) -> str:
        """As `get`, for text; "" without one. Raises BadMessage for anything but text."""
        return text_of(self.get(*keys))

    def objects(self, *keys: str) -> list[Fields]:
        """As `get`, for a list of objects; empty without one. Raises BadMessage for anything else."""
        value = self.get(*keys)
        if value is None:
            return []
        if not isinstance(value, list):
            raise BadMessage(f"a {type(value).__name__} where a list of messages belongs")
        return [Fields(item) for item in value]

    def left_over(self) -> list[str]:
        """Keys with text in them that nobody asked for."""
        return [str(key) for key, value in self.value.items() if key not in self.used and has_text(value)]


def text_of(value: Any) -> str:
    """Text as it is, "" for None, the text of OpenAI's parts. Raises BadMessage for anything else."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, list)
        and value
        and all(isinstance(part, dict) and part.get("type") == "text" for part in value)
    ):
        return "".join(text_of(part.get("text")) for part in value)
    raise BadMessage(f"a {type(value).__name__} where text belongs")


def has_text(value: Any) -> bool:
    """Whether there is text anywhere in a JSON value."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return any(map(has_text, value.values()))
    return isinstance(value, list) and any(map(has_text, value))


_ID_KEYS = ("id", "conversation_id", "question_id", "prompt_id", "uuid")
_FACT_KEYS = ("model", "category", "title")
_IMAGE_KEYS = ("image", "images", "video", "videos", "audio", "audios")


def identity_of(record: Fields) -> str:
    """The id that a record came with, or ""."""
    for key in _ID_KEYS:
        value = record.value.get(key)
        if isinstance(value, str | int):
            record.used.update(_ID_KEYS)
            return str(value)
    return ""


def source_of(record: Fields) -> dict[str, Any]:
    """Facts worth keeping that are not messages. Raises BadMessage where messages speak of images and the like."""
    for key in _IMAGE_KEYS:
        if has_text(record.value.get(key)):
            raise BadMessage(f"the record comes with {key}, and only text is trained on")
    kept = {key: value for key in _FACT_KEYS if isinstance(value := record.get(key), str) and value}
    given = record.get("source", "dataset")
    return {**(given if isinstance(given, dict) else {"origin": given} if isinstance(given, str) else {}), **kept}


_SYSTEM_KEYS = ("system", "system_prompt", "system_message", "system_instruction", "systemPrompt")


def system_messages(record: Fields) -> list[Message]:
    """The system prompt that stands beside the messages, as a message of its own."""
    prompts = dict.fromkeys(record.text(key) for key in _SYSTEM_KEYS)
    return [Message(Role.SYSTEM, prompt) for prompt in prompts if prompt.strip()]
