"""The OpenAI error body and our exception tree, in both directions: by HTTP status, or by code inside a stream."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import orjson

from chaku.errors import (
    AuthenticationFailed,
    ChakuError,
    Conflict,
    ContextOverflow,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionRefused,
)

MAX_MESSAGE_CHARS = 500

_BY_STATUS: dict[int, type[ChakuError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: PermissionRefused,
    404: NotFound,
    405: MethodNotAllowed,
    408: DeadlineExceeded,
    409: Conflict,
    413: PayloadTooLarge,
    422: InvalidRequest,
    429: Overloaded,
    503: EngineUnavailable,
    504: DeadlineExceeded,
}
# An error event inside a stream has no HTTP status; its code or type has to say which one it would have had.
_STATUS_BY_WORD = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_denied": 403,
    "permission_error": 403,
    "not_found": 404,
    "model_not_found": 404,
    "not_found_error": 404,
    "queue_full": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "engine_unavailable": 503,
    "unavailable_error": 503,
    "overloaded_error": 503,
    "deadline_exceeded": 504,
}
# OpenAI, llama.cpp; vLLM and others send no code and only say it in words.
_OVERFLOW_WORDS = ("context_length_exceeded", "exceed_context_size_error", "maximum context length")


def body_of(error: ChakuError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}


def event_of(error: ChakuError) -> bytes:
    """The same as a server-sent event, for a stream that has already begun."""
    return b"data: " + orjson.dumps(body_of(error)) + b"\n\n"


def error_in_stream(payload: Any) -> ChakuError:
    """The error that an event of a stream (whose own status was 200) carries."""
    if isinstance(payload, dict) and isinstance(payload.get("error"), dict | str):
        payload = payload["error"]
    code, kind = (payload.get("code"), payload.get("type")) if isinstance(payload, dict) else (None, None)
    if isinstance(code, int) and code >= 400:
        return error_from(code, payload)
    return error_from(_STATUS_BY_WORD.get(str(code)) or _STATUS_BY_WORD.get(str(kind)) or 502, payload)


def error_from(status: int, payload: Any) -> ChakuError:
    """An error in OpenAI's shape (the whole body, or its inner object, or plain text) as one of ours."""
    if isinstance(payload, dict) and isinstance(payload.get("error"), dict | str):
        payload = payload["error"]
    if not isinstance(payload, dict):
        payload = {"message": str(payload)}
    words = str(payload.get("message") or payload.get("detail") or f"status {status}")
    message = " ".join(words.split())[:MAX_MESSAGE_CHARS]
    code = payload.get("code") if isinstance(payload.get("code"), str) else None
    param = payload.get("param") if isinstance(payload.get("param"), str) else None
    kind = _BY_STATUS.get(status, InvalidRequest if 400 <= status < 500 else EngineError)
    if kind is InvalidRequest and any(word in f"{code} {payload.get('type')} {message}" for word in _OVERFLOW_WORDS):
        error: ChakuError = ContextOverflow(message, param=param)
    else:
        error = kind(message, param=param, code=code)
        error.is_foreign = code is not None
    error.quotes_server = True
    return error


def retry_after_s(header: str | None) -> float | None:
    """A Retry-After header, which is a number of seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
