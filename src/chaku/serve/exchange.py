"""One request and its answer, as they are accounted for: who, what, how long, how many tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from chaku.protocol.deltas import read_usage


@dataclass(slots=True)
class Exchange:
    """Filled while a request is served; read once at its end by metrics, usage and the log. Times are in seconds."""

    request_id: str
    route: str
    started: float = field(default_factory=time.perf_counter)
    arrived_at: float = field(default_factory=time.time)
    """Unix seconds; usage is booked at this time, not at the end."""
    model: str = ""
    is_known_model: bool = False
    key_id: str | None = None
    status: int = 0
    """HTTP status; 499 where the client hung up first."""
    error_code: str | None = None
    """The code that the client saw. It may be an upstream's own word."""
    error_kind: str | None = None
    """The code, or for an upstream's error the code of its class: one of a closed set, for metrics."""
    has_headers_sent: bool = False
    is_asked: bool = False
    """An engine may be working on it, or has worked on what the client got."""
    has_usage: bool = False
    """The token counts are the engine's own."""
    is_complete: bool = False
    """The last byte of the answer was handed over: a client that closes now has not hung up."""
    is_stream: bool = False
    queue_s: float | None = None
    first_token_s: float | None = None
    duration_s: float = 0.0
    num_retries: int = 0
    """How often another replica was tried."""
    num_continued: int = 0
    """How often the answer was continued after it had begun."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    """As the engine counted them; of a stream cut off before that, the pieces that were sent: at least so many."""

    dollars: float = 0.0
    """Its price."""

    def since_start_s(self) -> float:
        """Seconds since the request came in."""
        return time.perf_counter() - self.started

    def begin(self, status: int) -> None:
        """Note that the headers go out with this status: a later failure can't have a status any more."""
        self.status = status
        self.has_headers_sent = True

    def take_usage(self, usage: Any) -> None:
        """Note the token counts that the engine reported, if there are any."""
        counted = read_usage(usage)
        if counted is not None:
            self.has_usage = True
            self.prompt_tokens = counted.prompt_tokens
            self.completion_tokens = counted.completion_tokens
            self.cached_tokens = counted.cached_tokens
