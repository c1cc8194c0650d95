"""What a conversation is: roles, messages and their parts, in OpenAI's `messages` shape on disk and on the wire."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from chaku.errors import InvalidRequest


class Role(enum.StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant calls; `arguments` is a JSON text."""

    id: str
    name: str
    arguments: str

    @classmethod
    def from_json(cls, given: Any) -> ToolCall:
        """Read OpenAI's shape; arguments may also be an object. Raises InvalidRequest for anything else."""
        function = given.get("function") if isinstance(given, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequest("a tool call names no function", param="tool_calls")
        arguments = function.get("arguments") or "{}"
        text = arguments if isinstance(arguments, str) else dumps(arguments, ensure_ascii=False)
        return cls(str(given.get("id") or ""), function["name"], text)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of one speaker. `content` is text; parts that are not text stay as they came, in `parts`."""

    role: Role
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    parts: tuple[Mapping[str, Any], ...] = ()
    weight: int = 1
    """0: an assistant's turn that is read and not trained on."""

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Message:
        """Read OpenAI's shape. Raises InvalidRequest naming what can't be read."""
        given = json.get("role")
        try:
            role = Role.SYSTEM if given == "developer" else Role(str(given))
        except ValueError:
            raise InvalidRequest(f"role is {given!r}, not one of {', '.join(Role)}", param="role") from None
        content, parts = _text_and_parts(json.get("content"))
        given = json.get("tool_calls") or ()
        if not isinstance(given, list | tuple):
            raise InvalidRequest("tool_calls is not a list", param="tool_calls")
        calls = tuple(ToolCall.from_json(call) for call in given)
        reasoning = _text_or_none(json, "reasoning_content") or _text_or_none(json, "reasoning") or None
        weight = json.get("weight", 1)
        if weight not in (0, 1):
            raise InvalidRequest(f"weight is {weight!r}, not 0 or 1", param="weight")
        tool_call_id, name = _text_or_none(json, "tool_call_id"), _text_or_none(json, "name")
        return cls(role, content, reasoning, calls, tool_call_id, name, parts, int(weight))

    def to_json(self) -> dict[str, Any]:
        """OpenAI's shape; fields without a value are left out."""
        json: dict[str, Any] = {"role": str(self.role), "content": list(self.parts) or self.content}
        if self.reasoning:
            json["reasoning_content"] = self.reasoning
        if self.tool_calls:
            json["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            json["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            json["name"] = self.name
        if self.weight != 1:
            json["weight"] = self.weight
        return json


def _text_and_parts(content: Any) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """The text of a content, and its parts where one of them is not text. Raises InvalidRequest."""
    if isinstance(content, str | None):
        return content or "", ()
    if not isinstance(content, list):
        raise InvalidRequest(f"content is a {type(content).__name__}, not text or parts", param="content")
    if not all(isinstance(part, Mapping) for part in content):
        raise InvalidRequest("content holds a part that is not an object", param="content")
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    is_text = len(texts) == len(content) and all(isinstance(text, str) for text in texts)
    return "".join(text for text in texts if isinstance(text, str)), () if is_text else tuple(content)


def _text_or_none(json: Mapping[str, Any], key: str) -> str | None:
    value = json.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{key} is a {type(value).__name__}, not text", param=key)
    return value


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, an id, and where they came from. `tools` are the function specs that were offered."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    """Origin: file, line, original id, language and other facts that stages add."""

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Conversation:
        """Read one line of `messages` JSONL. Raises InvalidRequest for what is none."""
        given = json.get("messages")
        if not isinstance(given, list) or not all(isinstance(message, Mapping) for message in given):
            raise InvalidRequest("messages is not a list of objects", param="messages")
        messages = tuple(Message.from_json(message) for message in given)
        tools, source = json.get("tools") or (), json.get("source") or {}
        if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
            raise InvalidRequest("tools is not a list of objects", param="tools")
        if not isinstance(source, Mapping):
            raise InvalidRequest("source is not an object", param="source")
        return cls(str(json.get("id", "")), messages, tuple(tools), source)

    def to_json(self) -> dict[str, Any]:
        """One line of `messages` JSONL."""
        json: dict[str, Any] = {"id": self.id, "messages": [message.to_json() for message in self.messages]}
        if self.tools:
            json["tools"] = list(self.tools)
        if self.source:
            json["source"] = dict(self.source)
        return json
