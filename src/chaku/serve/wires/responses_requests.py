"""A request of OpenAI's Responses API as a chat. Pure: a checked body in, a body out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chaku.errors import InvalidRequest

_SAME_NAME = (
    "model", "stream", "temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier",
    "prompt_cache_key", "service_tier",
)  # fmt: skip

_SAID = {"content", "tool_calls"}
"""What makes a message of the assistant more than thoughts."""


def chat_body(body: dict[str, Any]) -> dict[str, Any]:
    """The same request in the words of chat completions, as `ChatRequest` has them.

    Raises InvalidRequest for an input without a message.
    """
    chat = {name: body[name] for name in _SAME_NAME if name in body}
    given = body["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else _messages(given)
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    chat["messages"] = messages
    if "max_output_tokens" in body:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if effort := (body.get("reasoning") or {}).get("effort"):
        chat["reasoning_effort"] = effort
    if form := (body.get("text") or {}).get("format"):
        chat["response_format"] = _response_format(form)
    if body.get("tools"):
        chat["tools"] = [{"type": "function", "function": _without(tool, "type")} for tool in body["tools"]]
    if "tool_choice" in body:
        choice = body["tool_choice"]
        is_named = isinstance(choice, dict)
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}} if is_named else choice
    return chat


def _response_format(form: dict[str, Any]) -> dict[str, Any]:
    if form["type"] != "json_schema":
        return {"type": form["type"]}
    return {"type": "json_schema", "json_schema": _without(form, "type")}


def _without(value: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name != field and inner is not None}


def _messages(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items as messages: thoughts, text and calls that follow each other are one message of the assistant."""
    messages: list[dict[str, Any]] = []
    answer: dict[str, Any] | None = None
    """The assistant's message that is being put together: the last one of the list."""
    for item in items:
        kind = item.get("type") or "message"
        if kind == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
            answer = None
        elif kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _content(item["content"])})
            answer = None
        else:
            if answer is None or (kind != "function_call" and answer.keys() & _SAID):
                answer = {"role": "assistant"}
                messages.append(answer)
            _add(answer, kind, item)
    messages = [message for message in messages if message["role"] != "assistant" or message.keys() & _SAID]
    for message in messages:
        if "reasoning_content" in message:
            message["reasoning_content"] = "".join(message["reasoning_content"])
    if not messages:
        raise InvalidRequest("input holds nothing but thoughts: send a message", param="input")
    return messages


def _add(answer: dict[str, Any], kind: str, item: dict[str, Any]) -> None:
    if kind == "reasoning":
        texts = item.get("content") or item.get("summary") or ()
        if thoughts := [part["text"] for part in texts if part["text"]]:
            answer.setdefault("reasoning_content", []).extend(thoughts)  # joined once they are all there
    elif kind == "message":
        answer["content"] = _content(item["content"])
    else:
        function = {"name": item["name"], "arguments": item["arguments"] or "{}"}
        answer.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})


def _content(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text, or parts. One part of text is its text: some templates read nothing else."""
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content]
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "input_image":
        image = {"url": part["image_url"]} | ({"detail": part["detail"]} if part.get("detail") else {})
        return {"type": "image_url", "image_url": image}
    return {"type": "text", "text": part["refusal"] if part["type"] == "refusal" else part["text"]}
