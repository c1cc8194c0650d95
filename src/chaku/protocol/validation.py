"""Hold a parsed body against a request shape, and say in a person's words what does not fit."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from chaku.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)

KNOWN_BUT_REFUSED = {
    "audio": "no engine here speaks",
    "functions": "functions is deprecated: use tools",
    "function_call": "function_call is deprecated: use tool_choice",
    "prediction": "predicted outputs are not supported",
    "moderation": "chaku moderates no requests",
    "prompt_cache_options": "engines keep their own prompt caches: leave it out",
    "prompt_cache_retention": "engines keep their own prompt caches: leave it out",
    "web_search_options": "chaku searches no web",
    "store": "answers are not stored on request: leave store out",
    "service_tier": "there is one service tier: leave service_tier out",
    "modalities": "only text comes out: leave modalities out",
    "verbosity": "no engine here honours verbosity: ask for it in the prompt",
}


def check(kind: type[Model], body: Any) -> Model:
    """A parsed body as the request model that it fits.

    Raises InvalidRequest with the first field at fault as `param`.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _refusal(error, body) from None


def _refusal(error: ValidationError, body: Any) -> InvalidRequest:
    errors = error.errors(include_url=False, include_context=False)
    first = errors[0]
    if first["type"].endswith("_type"):  # one branch of a union does not fit at all; another may know better
        nearer = (one for one in errors if one["loc"][:1] == first["loc"][:1] and not one["type"].endswith("_type"))
        first = next(nearer, first)
    param = _path(first["loc"], body, missing=first["type"] == "missing")
    field = str(first["loc"][0]) if first["loc"] else ""
    if field in KNOWN_BUT_REFUSED:
        why = KNOWN_BUT_REFUSED[field]
        return InvalidRequest(f"{field} can't be honoured: {why}", param=field, code="unsupported_parameter")
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"unknown parameter {param}", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return InvalidRequest(f"missing parameter {param}", param=param, code="missing_required_parameter")
    if not first["loc"]:
        return InvalidRequest("the body must be a JSON object")
    shown = repr(first["input"])
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InvalidRequest(f"{param} is {shown}: {first['msg']}", param=param, code="invalid_value")


def _path(location: tuple[int | str, ...], body: Any, *, missing: bool) -> str | None:
    """The caller's own keys and indices: pydantic's location also names the branch of a union that it tried."""
    path: list[str] = []
    here = body
    for part in location:
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            here = here[part]  # type: ignore[index]
            path.append(str(part))
    if missing:
        path.append(str(location[-1]))
    return ".".join(path) or None
