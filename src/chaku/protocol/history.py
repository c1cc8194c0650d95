"""Past messages as clients send them back: what only a server says is dropped, and null is absent.

A request is strict in what it asks for. Its messages repeat what was once answered, by this server or another one, with
fields that no request has; an official SDK adds some of its own when it parses an answer. Known ones are dropped and
named in a note. Unknown ones stay, and are refused with the rest of the shape.
"""

from __future__ import annotations

from typing import Any

import orjson

from chaku.errors import InvalidRequest

_OF_ANSWERS = frozenset({
    # the official SDKs, of an answer that they parsed
    "parsed",
    # OpenAI
    "annotations", "audio", "function_call", "id", "object", "created", "created_at", "status", "index",
    "finish_reason", "logprobs", "usage", "phase",
    # vLLM, SGLang, DeepSeek, OpenRouter, LiteLLM, LangChain
    "stop_reason", "reasoning_details", "thinking", "thinking_blocks", "provider_specific_fields", "images",
    "citations", "additional_kwargs", "response_metadata", "usage_metadata",
})  # fmt: skip
_OF_ANYONE = frozenset({"id", "cache_control", "timestamp", "created_at", "metadata", "provider_options"})
_REPLAYED: dict[Any, frozenset[str]] = {
    "assistant": _OF_ANSWERS | _OF_ANYONE,
    "tool": _OF_ANYONE | {"status", "is_error", "artifact", "annotations"},
    "user": _OF_ANYONE,
    "system": _OF_ANYONE,
    "developer": _OF_ANYONE,
}
"""Fields that a message of each role may bring back, and that say nothing to a model."""
_REPLAYED_IN_PART = frozenset({"id", "index", "cache_control", "annotations", "logprobs", "prompt_cache_breakpoint"})
_REPLAYED_IN_CALL = frozenset({"index", "extra_content", "provider_specific_fields", "cache_control", "caller"})
_REPLAYED_IN_FUNCTION = frozenset({"parsed_arguments", "strict", "description"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
"""Types of parts that hold what a model thought before an old answer; templates leave that out as well."""
_MAX_FIELDS = 64


def tidy(messages: list[Any], first: int = 0) -> set[str]:
    """Clean `messages` in place; returns the names of what was dropped, such as `tool_calls.index`.

    What is not a message is left for the check of its shape. `first` is the index of the first one, for errors.
    Raises InvalidRequest for a message with too many fields.
    """
    dropped: set[str] = set()
    for index, message in enumerate(messages, first):
        if type(message) is dict and not (len(message) == 2 and type(message.get("content")) is str):
            _tidy_message(message, f"messages.{index}", dropped)
    return dropped


def _tidy_message(message: dict[str, Any], place: str, dropped: set[str]) -> None:
    role = message.get("role")
    drop(message, _REPLAYED.get(role) if isinstance(role, str) else None, place, "", dropped)
    if role == "assistant":
        _tidy_answer(message, place, dropped)
    elif role == "tool":
        message.setdefault("content", "")  # a function that returned nothing
    content = message.get("content")
    if isinstance(content, list):
        if role == "assistant" and any(_is_thought(part) for part in content):
            dropped.add("content.thinking")
            content[:] = [part for part in content if not _is_thought(part)]
            if not content:
                del message["content"]
        for index, part in enumerate(content):
            if type(part) is dict:
                drop(part, _REPLAYED_IN_PART, f"{place}.content.{index}", "content.", dropped)
                if type(image := part.get("image_url")) is dict:
                    drop(image, None, f"{place}.content.{index}.image_url", "", dropped)


def _tidy_answer(message: dict[str, Any], place: str, dropped: set[str]) -> None:
    if message.get("refusal") == "":
        del message["refusal"]
    if isinstance(message.get("reasoning"), str):  # OpenRouter's and newer vLLM's word
        reasoning = message.pop("reasoning")
        message.setdefault("reasoning_content", reasoning)
    calls = message.get("tool_calls")
    if calls == []:
        del message["tool_calls"]
    if not isinstance(calls, list):
        return
    for index, call in enumerate(calls):
        if type(call) is not dict:
            continue
        drop(call, _REPLAYED_IN_CALL, f"{place}.tool_calls.{index}", "tool_calls.", dropped)
        call.setdefault("type", "function")
        function = call.get("function")
        if type(function) is dict:
            here = f"{place}.tool_calls.{index}.function"
            drop(function, _REPLAYED_IN_FUNCTION, here, "tool_calls.function.", dropped)
            arguments = function.get("arguments")
            if arguments is None or arguments == "":
                function["arguments"] = "{}"  # what a call without arguments looks like in a stream
            elif type(arguments) is dict:  # Ollama's form
                function["arguments"] = orjson.dumps(arguments).decode()


def _is_thought(part: Any) -> bool:
    return type(part) is dict and isinstance(kind := part.get("type"), str) and kind in _THOUGHTS


def drop(value: dict[str, Any], replayed: frozenset[str] | None, place: str, prefix: str, dropped: set[str]) -> None:
    """Remove nulls and replayed fields from `value`; those that said something are added to `dropped`.

    `place` names the value in errors, `prefix` the fields. Raises InvalidRequest for too many fields.
    """
    if len(value) > _MAX_FIELDS:
        raise InvalidRequest(
            f"{place} has {len(value):,} fields, at most {_MAX_FIELDS} are read", param=place, code="invalid_value"
        )
    for field in [field for field, said in value.items() if said is None or (replayed and field in replayed)]:
        if value.pop(field) is not None:
            dropped.add(prefix + field)
