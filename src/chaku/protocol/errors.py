"""The OpenAI error body and our exception tree, in both directions."""

from __future__ import annotations

from typing import Any

import orjson

from chaku.errors import (
    AuthenticationFailed,
    ChakuError,
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

_BY_STATUS: dict[int, type[ChakuError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: PermissionRefused,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
    422: InvalidRequest,
    429: Overloaded,
    503: EngineUnavailable,
    504: DeadlineExceeded,
}


def body_of(error: ChakuError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}


def event_of(error: ChakuError) -> bytes:
    """The same as a server-sent event, for a stream that has already begun."""
    return b"data: " + orjson.dumps(body_of(error)) + b"\n\n"


def error_from(status: int, body: bytes | dict[str, Any], *, retry_after: str | None = None) -> ChakuError:
    """Read an OpenAI-shaped error (or whatever came instead) into our tree. `retry_after` is the header's text."""
    parsed: Any = body
    if isinstance(body, bytes):
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            parsed = {"error": {"message": body[:200].decode("utf-8", "replace").strip() or f"HTTP {status}"}}
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else {"message": str(parsed)}
    if not isinstance(inner, dict):
        inner = {"message": str(inner)}
    message = str(inner.get("message") or inner.get("detail") or f"HTTP {status}")
    code = inner.get("code")
    kind = ContextOverflow if code == "context_length_exceeded" else _BY_STATUS.get(status, EngineError)
    try:
        wait_s = float(retry_after) if retry_after else None
    except ValueError:  # an HTTP date: rare, and a wait without a number is no use to us
        wait_s = None
    param = inner.get("param")
    return kind(
        message,
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
        retry_after_s=wait_s,
    )
