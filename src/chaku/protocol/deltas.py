"""Deltas: the parts of a streamed or whole chat answer, read from OpenAI's JSON. What is not a chunk raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from chaku.complaints import MAX_EXACT_INT
from chaku.errors import EngineError
from chaku.protocol.errors import error_in_stream

THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")
"""Fields of a message that hold thoughts. DeepSeek's name is what most servers took over. OpenRouter and newer vLLM say
`reasoning`. OpenRouter repeats it in parts, some of which may be encrypted."""
_NOT_READ = frozenset({"type", "id", "format", "signature", "data"})
"""Fields of a part whose texts nobody reads: names, ids, ciphertext."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens that did not have to be computed again."""
    reasoning_tokens: int = 0
    """Completion tokens that are thoughts."""


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A piece of the call number `index`: id and name come once, `arguments` grows into a JSON text."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """The additions of one event of a stream. The other fields are empty."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPart, ...] = ()
    refusal: str = ""
    finish_reason: str | None = None
    stop_sequence: str | None = None
    """The stop sequence that ended the answer, where the engine names it."""
    usage: TokenUsage | None = None
    logprobs: tuple[dict[str, Any], ...] = ()
    """OpenAI's entries for the tokens of this delta, when `logprobs=True` was asked for."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One whole answer."""

    text: str
    finish_reason: str
    reasoning: str = ""
    tool_calls: tuple[ToolCallPart, ...] = ()
    usage: TokenUsage | None = None
    logprobs: tuple[dict[str, Any], ...] = ()
    model: str = ""
    """The name the server answered under."""


def deltas_of_event(data: str) -> list[Delta]:
    """One event's JSON as deltas (none for an event that adds nothing). Raises what an error event says."""
    try:
        event = orjson.loads(data)
        if event.get("error"):
            raise error_in_stream(event["error"])
        choices = event.get("choices") or []
        if not choices:
            usage = read_usage(event.get("usage"))
            return [Delta(usage=usage)] if usage else []
        if len(choices) > 1 or choices[0].get("index", 0) != 0:
            raise EngineError("the stream carries several answers where one was asked for")
        return [delta_of_choice(choices[0], choices[0].get("delta") or {}, event.get("usage"))]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise EngineError(f"the stream carries something that is not a chat completion chunk: {data[:80]!r}") from None


def delta_of_choice(choice: Mapping[str, Any], message: Mapping[str, Any], usage: Mapping[str, Any] | None) -> Delta:
    """One choice as a delta; `message` is its `delta` in a stream, its `message` in a whole answer.

    Raises EngineError where a text is none.
    """
    calls = []
    for position, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") or {}
        calls.append(
            ToolCallPart(
                index=int(call.get("index", position)),
                id=call.get("id"),
                name=function.get("name"),
                arguments=text_in(function.get("arguments") or ""),
            )
        )
    return Delta(
        text=text_in(message.get("content")),
        reasoning=words_in(message.get("reasoning_content")) or words_in(message.get("reasoning")),
        tool_calls=tuple(calls),
        refusal=text_in(message.get("refusal")),
        stop_sequence=stop if isinstance(stop := choice.get("stop_reason"), str) else None,  # vLLM's name
        finish_reason=choice.get("finish_reason"),
        usage=read_usage(usage),
        logprobs=tuple((choice.get("logprobs") or {}).get("content") or ()),
    )


def text_in(value: Any) -> str:
    """The text of a field that holds one: null is empty, a list of parts is their texts. Raises EngineError."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        return words_in(value)
    raise EngineError("the engine sent something else where a text belongs")


def words_in(value: Any) -> str:
    """The texts of a JSON value in their order, whatever its shape: a text, a list of parts, or anything else.

    Left out are the names of fields, and texts that nobody reads, such as a part's type, id or ciphertext.
    """
    words, waiting = [], [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            words.append(found)
        elif isinstance(found, list):
            waiting += reversed(found)
        elif isinstance(found, dict):
            waiting += [
                part for name, part in reversed(found.items()) if not (name in _NOT_READ and isinstance(part, str))
            ]
    return "".join(words)


def read_usage(usage: Any) -> TokenUsage | None:
    """OpenAI's usage object, from whatever a server sent in its place.

    None where there is none yet (every chunk but one), or where a count in it is none: then nobody has counted. What
    is absent or null is 0.
    """
    if not usage or not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens") or 0
    thoughts = _count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
    return TokenUsage(prompt, completion, min(cached, prompt), min(thoughts, completion))


def is_count(value: Any) -> bool:
    """Whether a JSON value counts something: a whole number that every reader of JSON tells from its neighbours."""
    return type(value) is int and 0 <= value <= MAX_EXACT_INT


def _count(holder: Any, name: str) -> int | None:
    number = holder.get(name) if isinstance(holder, dict) else None
    if number is None:
        return 0
    return number if is_count(number) else None
