"""A conversation as messages, and its file: `messages` JSONL, one conversation a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError
from chaku.protocol.json_scan import loads
from chaku.records import atomic_write

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_SENT = ("role", "content", "name", "tool_calls", "tool_call_id")


@dataclass
class Transcript:
    """What was said. A message may carry notes (`stopped`, `reasoning_content`) that are kept but never sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def system(self) -> str | None:
        """The system prompt, where there is one."""
        if self.messages and self.messages[0]["role"] == "system":
            return str(self.messages[0]["content"])
        return None

    @system.setter
    def system(self, text: str | None) -> None:
        if self.system is not None:
            del self.messages[0]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    @property
    def num_turns(self) -> int:
        """How many messages the user sent."""
        return sum(message["role"] == "user" for message in self.messages)

    def to_send(self) -> list[dict[str, Any]]:
        """The messages as a model gets them, without our notes."""
        return [{name: message[name] for name in _SENT if name in message} for message in self.messages]

    def say(self, text: str, images: Sequence[str] = ()) -> None:
        """Add what the user said; `images` are URLs."""
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        content = [*([{"type": "text", "text": text}] if text else []), *parts] if images else text
        self.messages.append({"role": "user", "content": content})

    @property
    def last_images(self) -> list[str]:
        """The URLs of the images in the last thing the user said."""
        content = next((message["content"] for message in reversed(self.messages) if message["role"] == "user"), None)
        parts = content if isinstance(content, list) else []
        return [str(part["image_url"]["url"]) for part in parts if part.get("type") == "image_url"]

    def answer(self, text: str, *, reasoning: str = "", stopped: bool = False) -> None:
        """Add what the model said; `stopped` when the user cut it short."""
        notes: dict[str, Any] = {}
        if reasoning:
            notes["reasoning_content"] = reasoning
        if stopped:
            notes["stopped"] = True
        self.messages.append({"role": "assistant", "content": text, **notes})

    def undo(self) -> str | None:
        """Take back the last thing the user said and all that came after it; None when there is nothing."""
        for position in range(len(self.messages) - 1, -1, -1):
            if self.messages[position]["role"] == "user":
                text = _text(self.messages[position]["content"])
                del self.messages[position:]
                return text
        return None

    def save(self, path: Path, *, overwrite: bool = False, **about: Any) -> None:
        """Write one line of JSON with `messages` and what is known `about` them. Raises UsageError."""
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists", fix=f"give another name, or overwrite it: /save -f {path}")
        try:
            with atomic_write(path, mode=0o600) as file:
                file.write(orjson.dumps({"messages": self.messages, **about}) + b"\n")
        except OSError as error:
            raise UsageError(f"can't write {path}: {error.strerror}", fix="give another place") from None


def load(path: Path, number: int | None = None) -> Transcript:
    """Read a conversation from `messages` JSONL (the `number`-th, from 1) or plain JSON. Raises UsageError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", fix="check the name of the file") from None
    conversations = _conversations(raw, path)
    if number is None and len(conversations) > 1:
        fix = f"say which: /load {path} 1 (up to {len(conversations)})"
        raise UsageError(f"{path} holds {len(conversations)} conversations", fix=fix)
    if not 1 <= (number or 1) <= len(conversations):
        raise UsageError(f"{path} holds {len(conversations)} conversations, there is no number {number}")
    return Transcript(_messages(conversations[(number or 1) - 1], path))


def _conversations(raw: bytes, path: Path) -> list[Any]:
    try:
        content = loads(raw)
    except orjson.JSONDecodeError:
        pass
    else:
        return [content]
    conversations = []
    for number, line in enumerate(raw.splitlines(), 1):
        if line.strip():
            try:
                conversations.append(loads(line))
            except orjson.JSONDecodeError:
                fix = "it should hold one JSON object with `messages` a line"
                raise UsageError(f"{path}, line {number}: not JSON", fix=fix) from None
    return conversations


def _messages(conversation: Any, path: Path) -> list[dict[str, Any]]:
    messages = conversation.get("messages") if isinstance(conversation, Mapping) else conversation
    if not isinstance(messages, list):
        raise UsageError(
            f"{path} holds no `messages`", fix='it should look like {"messages": [{"role": …, "content": …}]}'
        )
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES or "content" not in message:
            raise UsageError(f"{path}: message {number} has no known role or no content", fix=f"roles: {sorted(ROLES)}")
    return messages


def _text(content: Any) -> str:
    """The words of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    return str(content or "")
