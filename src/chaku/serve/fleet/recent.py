"""The last requests of a gateway: when, which model, which workers, how long, how many tokens. No contents."""

from __future__ import annotations

from collections import OrderedDict, deque

from typing_extensions import TypedDict

from chaku.serve.exchange import Exchange
from chaku.serve.gateway import UsageSink

MAX_REQUESTS = 200
_MAX_UNDER_WAY = 10_000


class RequestRow(TypedDict):
    """One finished request. Times are in seconds, `time` is Unix time."""

    id: str
    time: float
    model: str
    route: str
    workers: list[str]
    status: int
    error: str | None
    queue_s: float | None
    first_token_s: float | None
    duration_s: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class RecentRequests:
    """Keeps the last 200."""

    def __init__(self) -> None:
        self._rows: deque[RequestRow] = deque(maxlen=MAX_REQUESTS)
        self._workers: OrderedDict[str, list[str]] = OrderedDict()

    def sent(self, request_id: str, worker: str) -> None:
        """Note that a request under way was sent to a worker; several, where it was sent again."""
        self._workers.setdefault(request_id, []).append(worker)
        if len(self._workers) > _MAX_UNDER_WAY:
            self._workers.popitem(last=False)

    def take(self, exchange: Exchange) -> None:
        """Keep a finished request."""
        self._rows.append(
            {
                "id": exchange.request_id,
                "time": exchange.arrived_at,
                "model": exchange.model,
                "route": exchange.route,
                "workers": self._workers.pop(exchange.request_id, []),
                "status": exchange.status,
                "error": exchange.error_code,
                "queue_s": exchange.queue_s,
                "first_token_s": exchange.first_token_s,
                "duration_s": exchange.duration_s,
                "prompt_tokens": exchange.prompt_tokens,
                "cached_tokens": exchange.cached_tokens,
                "completion_tokens": exchange.completion_tokens,
            }
        )

    def before(self, record: UsageSink) -> UsageSink:
        """A sink that keeps a request and passes it on to `record`."""

        def keep_and_record(exchange: Exchange) -> None:
            self.take(exchange)
            record(exchange)

        return keep_and_record

    def rows(self) -> list[RequestRow]:
        """The newest first."""
        return list(reversed(self._rows))
