"""Hold a parsed body against a request shape, and say in plain words what does not fit."""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from chaku.complaints import MAX_SHOWN_CHARS, in_words, shown
from chaku.errors import InvalidRequest
from chaku.protocol.requests import Request

Model = TypeVar("Model", bound=BaseModel)
Asked = TypeVar("Asked", bound=Request)

_ASK_FOR_NOTHING: dict[str, Any] = {"functions": [], "function_call": "none", "tools": [], "top_logprobs": 0}
"""Values that ask for what happens without the field as well."""
_OF_TOOLS = {"tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False)}
"""Values that ask for nothing where there are no tools."""
_MAY_ASK_FOR_NOTHING = frozenset({*_ASK_FOR_NOTHING, *_OF_TOOLS})
MAX_FIELDS = 200
MAX_COMPLAINTS = 64
"""More are counted, but not spelled out: that costs 2 microseconds and 1 KB each."""
MESSAGES_PER_STEP = 200


@dataclass(slots=True)
class ReadRequest(Generic[Model]):
    """A request that fits its shape."""

    typed: Model
    body: dict[str, Any]
    """The same as JSON, without nulls and without what asks for nothing."""
    notes: tuple[str, ...]
    """Notes for the caller on parts that were left out: short ASCII phrases."""


def check(kind: type[Model], body: Any) -> Model:
    """A parsed body as the request model that it fits.

    Raises InvalidRequest with the first field at fault as `param`.
    """
    if isinstance(body, dict) and len(body) > MAX_FIELDS:
        raise InvalidRequest(f"the body has {len(body):,} fields, at most {MAX_FIELDS} are read", code="invalid_value")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _refusal(error, kind, body) from None


def read_request(kind: type[Asked], body: Any) -> ReadRequest[Asked]:
    """Clean and check a parsed body. `body` is changed: pass one that nobody else holds.

    Raises InvalidRequest as `check` does.
    """
    notes = _clean(body)
    messages = body.get("messages")
    dropped = kind.tidy(messages) if isinstance(messages, list) else None
    return _result(check(kind, body), body, notes, dropped)


def read_request_in_steps(kind: type[Asked], body: Any) -> Generator[None, None, ReadRequest[Asked]]:
    """The same for a long conversation, some messages at a time; the generator's value is the request.

    Each step takes a few milliseconds at most.
    """
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or len(messages) <= MESSAGES_PER_STEP:
        return read_request(kind, body)
    notes = _clean(body)
    dropped = kind.tidy(messages[:MESSAGES_PER_STEP])
    typed = check(kind, {**body, "messages": messages[:MESSAGES_PER_STEP]})
    for first in range(MESSAGES_PER_STEP, len(messages), MESSAGES_PER_STEP):
        yield
        some = messages[first : first + MESSAGES_PER_STEP]
        dropped |= kind.tidy(some, first)
        try:
            typed.messages += _messages_of(kind).validate_python(some, strict=True)  # type: ignore[attr-defined]
        except ValidationError as error:
            raise _refusal(error, kind, body, ("messages",), first) from None
    return _result(typed, body, notes, dropped)


@functools.cache
def _messages_of(kind: type[Request]) -> TypeAdapter[list[Any]]:
    shape: Any = kind.model_fields["messages"].annotation
    return TypeAdapter(shape)


def _result(typed: Asked, body: dict[str, Any], notes: list[str], dropped: set[str] | None) -> ReadRequest[Asked]:
    if dropped:
        notes.append(f"dropped from past messages: {', '.join(sorted(dropped))}")
    return ReadRequest(typed, body, tuple(notes))


def _clean(body: Any) -> list[str]:
    """Drop nulls and what asks for nothing; returns notes."""
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    if None in body.values():
        for field in [field for field, value in body.items() if value is None]:
            del body[field]
    if not _MAY_ASK_FOR_NOTHING.isdisjoint(body):
        _drop_what_asks_for_nothing(body)
    return _tidy_stream_options(body) if "stream_options" in body else []


def _drop_what_asks_for_nothing(body: dict[str, Any]) -> None:
    for field, nothing in _ASK_FOR_NOTHING.items():
        if field in body and body[field] == nothing and body[field] is not False:
            del body[field]
    if "tools" not in body:
        for field, nothings in _OF_TOOLS.items():
            if field in body and isinstance(body[field], str | bool) and body[field] in nothings:
                del body[field]


def _tidy_stream_options(body: dict[str, Any]) -> list[str]:
    options = body["stream_options"]
    if not isinstance(options, dict):
        return []
    if all(value is None or value is False for value in options.values()):
        del body["stream_options"]
    elif options.get("continuous_usage_stats") is True:  # vLLM's: a usage in every chunk
        return ["continuous_usage_stats: the usage comes once, at the end"]
    return []


def _refusal(
    error: ValidationError, kind: type[BaseModel], body: Any, start: tuple[str, ...] = (), first_index: int = 0
) -> InvalidRequest:
    if error.error_count() > MAX_COMPLAINTS:
        return InvalidRequest(f"the body has {error.error_count():,} faults, too many to name", code="invalid_value")
    errors = error.errors(include_url=False)
    first = errors[0]
    if first["type"].endswith("_type"):  # one branch of a union does not fit at all; another may know better
        nearer = (one for one in errors if one["loc"][:1] == first["loc"][:1] and not one["type"].endswith("_type"))
        first = next(nearer, first)
    location = first["loc"]
    if start:
        location = (*start, int(location[0]) + first_index, *location[1:])
    if not location:
        return InvalidRequest("the body must be a JSON object", code="invalid_json")
    is_missing = first["type"] == "missing"
    param = ".".join(_shortened(part) for part in _path(location, body, is_missing=is_missing)) or None
    field = str(location[0])
    if issubclass(kind, Request) and (why := kind.refused.get(field)):
        return InvalidRequest(f"{field} can't be honoured: {why}", param=field, code="unsupported_parameter")
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"unknown parameter {param}", param=param, code="unknown_parameter")
    if is_missing:
        return InvalidRequest(f"missing parameter {param}", param=param, code="missing_required_parameter")
    return InvalidRequest(f"{param} is {shown(first['input'])}: {in_words(first)}", param=param, code="invalid_value")


def _shortened(part: str) -> str:
    return part if len(part) <= MAX_SHOWN_CHARS else part[: MAX_SHOWN_CHARS - 3] + "..."


def _path(location: tuple[int | str, ...], body: Any, *, is_missing: bool) -> tuple[str, ...]:
    """The caller's own keys and indices. Pydantic's location also names the branches of unions, which are not keys.

    A branch may have the name of a key (`text`): then the reading that reaches the end of the location is right.
    """
    wanted = location[:-1] if is_missing else location
    best: tuple[str, ...] = ()
    for reading in _readings(wanted, body, ()):
        best = max(best, reading, key=len)
        if reading and reading[-1] == str(wanted[-1]):
            best = reading
            break
    return (*best, str(location[-1])) if is_missing else best


def _readings(rest: tuple[int | str, ...], here: Any, path: tuple[str, ...]) -> Generator[tuple[str, ...]]:
    if not rest:
        yield path
        return
    part = rest[0]
    if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
        yield from _readings(rest[1:], here[part], (*path, str(part)))  # type: ignore[index]
    if isinstance(part, str):  # perhaps a branch
        yield from _readings(rest[1:], here, path)
