"""Limits of callers: reserved before a request is sent to an engine, settled when it is over.

A request is admitted on an estimate. What it really used is known at its end; where it never is, because the caller
hung up, the estimate stays as a debt. Every wire passes here, and so do the page, batches and the arena.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chaku import tasks
from chaku.engines.base import Route
from chaku.errors import (
    ChakuError,
    InvalidRequest,
    RateLimited,
    StoreError,
    StoreUnavailable,
)
from chaku.policies import Limits, Price
from chaku.protocol.openai import LENGTH_LIMITS
from chaku.serve.access import Caller
from chaku.serve.exchange import Exchange
from chaku.serve.relay import Headers
from chaku.store.counters import Charge, Level, Standing

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1000
ANSWER_TOKENS = 512
"""Reserved for an answer whose length the request does not limit."""
FREE = Price(prompt=0, completion=0)
_WORDS = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "tokens_per_day": "tokens per day",
    "dollars_per_month": "dollars per month",
}


class LimitCounters(Protocol):
    """Counts for all gateways of a database; `chaku.store.counters.Counters` is the real one."""

    def reserve(self, subject: str, charges: Mapping[str, Charge]) -> Standing:
        """Count all charges, or none where one exceeds its limit."""

    def settle(self, subject: str, corrections: Mapping[str, Charge], reserved_at: Any) -> None:
        """Correct what was reserved."""


@dataclass
class Reservation:
    """What one request reserved of its caller's limits."""

    caller: Caller
    prompt_tokens: int
    completion_tokens: int
    dollars: float
    standing: Standing
    is_settled: bool = False

    @property
    def headers(self) -> Headers:
        """OpenAI's headers with the state of the limits."""
        return [(name.encode(), text.encode()) for name, text in headers_of(self.standing.levels).items()]


class RateLimits:
    """Holds requests against the limits of their callers."""

    def __init__(
        self,
        counters: LimitCounters | None,
        prices: Mapping[str, Price],
        *,
        turns: int | None = None,
        input_characters: int | None = None,
    ) -> None:
        """Without `counters` no caller may have a limit. `turns` and `input_characters` hold for everybody."""
        self._counters = counters
        self._prices = prices
        self._turns = turns
        self._input_characters = input_characters
        self._returning: set[asyncio.Task[None]] = set()

    def price_of(self, model: str) -> Price:
        """The price of a model's tokens; without one it is free."""
        return self._prices.get(model, FREE)

    def check_body(self, caller: Caller, body: dict[str, Any]) -> None:
        """Raise InvalidRequest for a conversation or an answer that is too long; cap an answer without a length."""
        limits = caller.limits
        self._check_conversation(body.get("messages", ()))
        if limits.max_tokens is None or "input" in body:
            return
        name = next((name for name in LENGTH_LIMITS if body.get(name) is not None), None)
        if name is None:
            body["max_tokens"] = limits.max_tokens
        elif body[name] > limits.max_tokens:
            raise InvalidRequest(
                f"{name} is {body[name]}, this API key takes {limits.max_tokens}", fix=f"lower {name}", param=name
            )

    def _check_conversation(self, messages: Sequence[Mapping[str, Any]]) -> None:
        asked = [message for message in messages if message["role"] == "user"]
        if self._turns is not None and len(asked) > self._turns:
            raise InvalidRequest(
                f"the conversation has {len(asked)} user messages, this server takes {self._turns}",
                fix="begin a new conversation",
                param="messages",
                code="conversation_too_long",
            )
        if self._input_characters is None or not asked:
            return
        content = asked[-1].get("content")
        texts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content or ()]
        if (length := sum(map(len, texts))) > self._input_characters:
            raise InvalidRequest(
                f"the message has {length:,} characters, this server takes {self._input_characters:,}",
                fix="shorten it",
                param="messages",
                code="message_too_long",
            )

    async def reserve(
        self, caller: Caller, route: Route, model: str, body: dict[str, Any], num_answers: int
    ) -> Reservation | None:
        """Reserve what a request may use; None for a caller without limits.

        Raises RateLimited, InvalidRequest for a request that no waiting makes possible, StoreUnavailable where the
        database is away.
        """
        if not caller.limits.are_counted:
            return None
        prompt, completion = estimate(route, body, num_answers)
        dollars = self.price_of(model).dollars(prompt, completion)
        charges = _charges(caller.limits, prompt + completion, dollars, num_requests=1)
        assert caller.key_id is not None and self._counters is not None, "limits without somebody to count for"
        for kind, charge in charges.items():
            if charge.amount > charge.limit:
                raise InvalidRequest(
                    f"the request may need {charge.amount:,.6g} {_WORDS[kind].split()[0]}, "
                    f"this API key takes {charge.limit:,g} {_WORDS[kind]}",
                    fix="shorten the prompt, or lower max_tokens",
                    code="rate_limit_exceeded",
                )
        counting = asyncio.create_task(asyncio.to_thread(self._counters.reserve, caller.key_id, charges))
        try:
            standing = await asyncio.shield(counting)
        except asyncio.CancelledError:  # its thread counts on
            returning = tasks.start(self._give_back(caller, counting, prompt + completion, dollars), "limits-return")
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            raise
        except StoreError as error:
            log.error("limits can't be checked: %s", error)
            raise StoreUnavailable("the limits of this API key can't be read now", retry_after_s=5) from None
        if standing.refused_by is not None:
            raise RateLimited(
                f"this API key takes {charges[standing.refused_by].limit:,g} {_WORDS[standing.refused_by]}",
                fix=f"try again in {_duration(standing.retry_after_s)}",
                retry_after_s=standing.retry_after_s,
                headers=headers_of(standing.levels),
            )
        return Reservation(caller, prompt, completion, dollars, standing)

    async def settle(self, reservation: Reservation, exchange: Exchange, *, has_failed: bool) -> None:
        """Correct a reservation by what the request used, unless that was done before."""
        if reservation.is_settled:
            return
        reservation.is_settled = True
        prompt, completion = _used(reservation, exchange, has_failed=has_failed)
        dollars = self.price_of(exchange.model).dollars(prompt, completion, min(exchange.cached_tokens, prompt))
        more_tokens = prompt + completion - reservation.prompt_tokens - reservation.completion_tokens
        await self._correct(reservation.caller, more_tokens, dollars - reservation.dollars, reservation.standing)

    async def _give_back(self, caller: Caller, counting: asyncio.Task[Standing], tokens: int, dollars: float) -> None:
        """Give back what is reserved for a caller who left before it was; the request itself stays counted."""
        with contextlib.suppress(StoreError):  # nothing was reserved
            standing = await counting
            if standing.refused_by is None:
                await self._correct(caller, -tokens, -dollars, standing)

    async def _correct(self, caller: Caller, more_tokens: int, more_dollars: float, standing: Standing) -> None:
        corrections = _charges(caller.limits, more_tokens, more_dollars, num_requests=0)
        corrections = {kind: charge for kind, charge in corrections.items() if charge.amount}
        if not corrections:
            return
        assert caller.key_id is not None and self._counters is not None
        settling = asyncio.to_thread(self._counters.settle, caller.key_id, corrections, standing.reserved_at)
        try:
            await asyncio.shield(settling)
        except StoreError as error:
            log.error("limits can't be settled, the reservation stays: %s", error)


def estimate(route: Route, body: Mapping[str, Any], num_answers: int) -> tuple[int, int]:
    """Tokens that a request may use, of the prompt and of its answers. The gateway has no tokenizer."""
    prompt = _tokens_in(body.get("messages")) + _tokens_in(body.get("tools"))
    prompt += _tokens_in(body.get("prompt")) + _tokens_in(body.get("input"))
    if route == "embeddings":
        return prompt, 0
    length = next((body[name] for name in LENGTH_LIMITS if body.get(name) is not None), ANSWER_TOKENS)
    return prompt, int(length) * num_answers


def _tokens_in(value: Any) -> int:
    """Of all texts in a JSON value; an image counts as IMAGE_TOKENS."""
    num_bytes = num_tokens = 0
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            num_bytes += len(found.encode("utf-8", "surrogatepass"))
        elif isinstance(found, dict):
            if "image_url" in found:
                num_tokens += IMAGE_TOKENS
            else:
                waiting += found.values()
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, int):  # a token's id
            num_tokens += 1
    return num_tokens + -(-num_bytes // BYTES_PER_TOKEN)


def _used(reservation: Reservation, exchange: Exchange, *, has_failed: bool) -> tuple[int, int]:
    """Tokens of prompt and answer. Where nobody counted them, all that was reserved, unless no engine began."""
    if exchange.has_usage:
        return exchange.prompt_tokens, exchange.completion_tokens
    if not exchange.is_asked or (has_failed and not exchange.completion_tokens):
        return 0, 0
    return reservation.prompt_tokens, max(reservation.completion_tokens, exchange.completion_tokens)


def _charges(limits: Limits, tokens: float, dollars: float, *, num_requests: int) -> dict[str, Charge]:
    amounts = {
        "requests_per_minute": num_requests,
        "tokens_per_minute": tokens,
        "tokens_per_day": tokens,
        "dollars_per_month": dollars,
    }
    given = {kind: (amount, getattr(limits, kind)) for kind, amount in amounts.items()}
    return {kind: Charge(amount, limit) for kind, (amount, limit) in given.items() if limit is not None}


def headers_of(levels: Mapping[str, Level]) -> dict[str, str]:
    """`x-ratelimit-*` as OpenAI's API sends them. Tokens are those per minute, or else those per day."""
    shown = {
        "requests": levels.get("requests_per_minute"),
        "tokens": levels.get("tokens_per_minute") or levels.get("tokens_per_day"),
    }
    headers: dict[str, str] = {}
    for what, level in shown.items():
        if level is not None:
            headers[f"x-ratelimit-limit-{what}"] = str(int(level.limit))
            headers[f"x-ratelimit-remaining-{what}"] = str(int(level.left))
            headers[f"x-ratelimit-reset-{what}"] = _duration(level.resets_in_s)
    return headers


def _duration(seconds: float) -> str:
    """Such as 450ms, 12s, 6m5s or 3h20m."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(-int(-seconds // 1), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def headers_in(error: ChakuError) -> Headers:
    """The headers of an error that say how a limit stands; none for other errors."""
    if not isinstance(error, RateLimited):
        return []
    return [(name.encode(), text.encode()) for name, text in error.headers.items()]
