"""The one exception tree. Each class knows its HTTP status, its OpenAI error type and its process exit code.

ChakuError
├── UsageError          the command line or configuration is wrong            exit 2
│   └── ConfigError     a configuration file or value is wrong
├── InvalidRequest      the API caller sent something that can't be honoured  400
│   ├── ContextOverflow the prompt is longer than the model takes             400
│   ├── PayloadTooLarge the body is larger than the gateway reads             413
│   └── UnsupportedMedia the body is packed or typed in a way that is not read 415
├── AuthenticationFailed no key, or a wrong one                               401
├── PermissionRefused   a foreign Host or Origin, or a key without the right  403
├── NotFound            no such model, file, key or page                      404
├── MethodNotAllowed    this path knows another method                        405
├── Conflict            something is in a state that does not allow this      409
├── Overloaded          the queue is full                                     429
│   └── RateLimited     a limit of the caller's key is used up                429
├── EngineError         an engine failed                                      502
│   ├── EngineUnavailable the engine is loading, restarting or gone           503
│   └── DeadlineExceeded  no answer within the deadline                       504
├── ModelError          a model can't be found, fetched, read or fitted       exit 3
├── StoreError          the database can't be opened or is of another version exit 4
│   └── StoreUnavailable a request needs the database, which is away          503
└── TrainingError       a run can't go on; its last good checkpoint is intact exit 5
    └── RunInterrupted  asked to stop; saved, and goes on with --resume auto  exit 75
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ChakuError(Exception):
    """Something went wrong that a person can understand: a cause in one line and, where there is one, a way out.

    `param` names the request field or configuration key at fault. `retry_after_s` asks the caller to wait.
    `is_foreign` says that another server chose the code: it may be any word. `quotes_server` says that the message has
    words of another server, which may repeat a prompt.
    """

    http_status = 500
    exit_code = 1
    type = "server_error"
    code = "internal_error"
    is_foreign = False
    quotes_server = False

    def __init__(
        self,
        message: str,
        *,
        fix: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.param = param
        if code is not None:
            self.code = code
        self.retry_after_s = retry_after_s

    @property
    def for_log(self) -> str:
        """The message, or in place of another server's words the kind of error: a log must not hold a prompt."""
        return f"{type(self).code}, in words of the server that are not logged" if self.quotes_server else self.message

    def __str__(self) -> str:
        return f"{self.message}: {self.fix}" if self.fix else self.message


class UsageError(ChakuError):
    """The command line is wrong."""

    http_status = 400
    exit_code = 2
    type = "invalid_request_error"


class ConfigError(UsageError):
    """A configuration file or value is wrong."""


class InvalidRequest(ChakuError):
    """The API caller asked for something that can't be honoured; `param` names it."""

    http_status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ContextOverflow(InvalidRequest):
    """The prompt does not fit the model's context; both numbers are in the message."""

    code = "context_length_exceeded"


class PayloadTooLarge(InvalidRequest):
    """The request body is larger than the gateway reads."""

    http_status = 413
    code = "payload_too_large"


class UnsupportedMedia(InvalidRequest):
    """The body has a Content-Encoding or Content-Type that the gateway does not read."""

    http_status = 415
    code = "unsupported_media_type"


class AuthenticationFailed(ChakuError):
    """No API key, or one the store does not know."""

    http_status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class PermissionRefused(ChakuError):
    """The request comes from a Host or Origin that is not ours, or its key lacks the right."""

    http_status = 403
    type = "invalid_request_error"
    code = "permission_denied"


class NotFound(ChakuError):
    """No such model, file, key or page."""

    http_status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(ChakuError):
    """The path exists, with another method."""

    http_status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(ChakuError):
    """Something is in a state that does not allow this: a name is taken, a battle has its vote."""

    http_status = 409
    type = "invalid_request_error"
    code = "conflict"


class Overloaded(ChakuError):
    """The queue of this model is full; `retry_after_s` says when to come back."""

    http_status = 429
    type = "rate_limit_error"
    code = "queue_full"


class RateLimited(Overloaded):
    """A limit of the caller's key is used up; `headers` say how much of each there is, as OpenAI's API does."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, headers: Mapping[str, str], **rest: Any) -> None:
        super().__init__(message, **rest)
        self.headers = headers


class EngineError(ChakuError):
    """An engine failed to answer."""

    http_status = 502
    code = "engine_error"


class EngineUnavailable(EngineError):
    """The engine is loading, restarting or gone for now."""

    http_status = 503
    code = "engine_unavailable"


class DeadlineExceeded(EngineError):
    """No answer within the request's deadline."""

    http_status = 504
    code = "deadline_exceeded"


class ModelError(ChakuError):
    """A model can't be found, fetched, read or fitted into memory."""

    exit_code = 3


class StoreError(ChakuError):
    """The database can't be opened, is locked, or has another version."""

    exit_code = 4


class StoreUnavailable(StoreError):
    """A request can't be answered without the database, which is away for now."""

    http_status = 503
    code = "store_unavailable"


class TrainingError(ChakuError):
    """A training run can't go on: a loss that is not a number, a full disk, a process that was lost."""

    exit_code = 5


class RunInterrupted(TrainingError):
    """A run was asked to stop (SIGTERM, SIGINT) and has saved: sysexits' EX_TEMPFAIL, "try again later"."""

    exit_code = 75


def error_lines(failure: ChakuError) -> list[tuple[str, str]]:
    """The lines in which every command prints an error: a label and its text; `error_of_child` reads them."""
    return [("error:", failure.message), *([("  fix:", failure.fix)] if failure.fix else [])]


def error_of_child(kind: type[ChakuError], output: str, exit_code: int, command: str) -> ChakuError:
    """The error that ended a child which runs a chaku command, from the end of its output.

    A child that did not print one (it was killed, or Python failed) is quoted with its exit code and its last line.
    """
    message = fix = None
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        label, _, text = line.partition(" ")
        if label == "error:":
            message, fix = text, None
        elif label == "fix:":
            fix = text
    if message is not None:
        return kind(message, fix=fix)
    last = f": {lines[-1]}" if lines else ""
    return kind(f"`{command}` ended with code {exit_code}{last}", fix=f"run it to see: {command}")
