"""What callers may do: limits and prices, guests, moderation. Keys, the page and the gateway share these settings."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from chaku.config import MAX_COUNT, MAX_DAYS, MAX_WAIT_S, Frozen, ModelName

MAX_TOKENS = 10**15
"""A double and every database hold it exactly."""
MAX_DOLLARS = 10**9
RequestLimit = Annotated[int, Field(ge=1, le=MAX_COUNT)]
TokenLimit = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class Limits(Frozen):
    """The limits of one caller: a key, or a guest. None or () is no limit."""

    requests_per_minute: RequestLimit | None = None
    tokens_per_minute: TokenLimit | None = None
    """Tokens of prompts and answers."""
    tokens_per_day: TokenLimit | None = None
    """The same within a day (UTC)."""
    dollars_per_month: float | None = Field(None, gt=0, le=MAX_DOLLARS)
    """At the prices of the served models, within a month (UTC)."""
    max_tokens: TokenLimit | None = None
    """Tokens of one answer."""
    models: tuple[ModelName, ...] = ()
    """The models that it may ask; () is every model."""

    @property
    def are_counted(self) -> bool:
        """Whether there is a limit for requests, tokens or dollars within some time."""
        counted = (self.requests_per_minute, self.tokens_per_minute, self.tokens_per_day, self.dollars_per_month)
        return counted != (None, None, None, None)

    def may_ask(self, model: str) -> bool:
        """Whether the caller may ask the model of that name."""
        return not self.models or model in self.models


NO_LIMITS = Limits()


class Price(Frozen):
    """The price of a model's tokens, in dollars per million."""

    prompt: float = Field(ge=0, le=MAX_DOLLARS)
    completion: float = Field(ge=0, le=MAX_DOLLARS)
    cached: float | None = Field(None, ge=0, le=MAX_DOLLARS)
    """For prompt tokens that the engine had cached. Default: as `prompt`."""

    def dollars(self, prompt_tokens: float, completion_tokens: float, cached_tokens: int = 0) -> float:
        """The price of one request; `cached_tokens` are a part of `prompt_tokens`."""
        cached = self.prompt if self.cached is None else self.cached
        read = (prompt_tokens - cached_tokens) * self.prompt + cached_tokens * cached
        return (read + completion_tokens * self.completion) / 1_000_000


class GuestPolicy(Frozen):
    """What visitors of the page may do who have no key."""

    limits: Limits = Limits(requests_per_minute=6, tokens_per_day=50_000, max_tokens=1024)
    """Limits of one guest."""
    new_per_hour: int = Field(20, ge=1, le=MAX_COUNT)
    """Guests that may begin from one address within an hour."""
    keep_days: int | None = Field(30, ge=1, le=MAX_DAYS)
    """The chats and battles of a guest are deleted after so many days without a visit. None: they are kept."""


class Retention(Frozen):
    """Days after which data of a kind is deleted. None: it is kept."""

    chats: int | None = Field(None, ge=1, le=MAX_DAYS)
    """Chats of the page with their thumbs, since the last message."""
    battles: int | None = Field(None, ge=1, le=MAX_DAYS)
    """Battles with their texts and votes, and votes of the Compare and Evals screens."""
    usage: int | None = Field(None, ge=1, le=MAX_DAYS)
    """Rows of usage: time, key, model, tokens."""
    audit: int | None = Field(None, ge=1, le=MAX_DAYS)
    """Entries of the audit log."""
    files: int | None = Field(None, ge=1, le=MAX_DAYS)
    """Files of /v1/files, and batches that are over."""


class ImageLimits(Frozen):
    """The largest images that a request may carry."""

    megabytes: float = Field(20.0, gt=0, le=MAX_COUNT)
    """Size of one image as a file, in 10^6 bytes."""
    megapixels: float = Field(50.0, gt=0, le=MAX_COUNT)
    """Pixels of one image, all its frames together, as its header gives them."""
    count: int = Field(32, ge=1, le=MAX_COUNT)
    """Images of one request, with those of earlier messages."""


ModerationAction = Literal["off", "warn", "hide", "refuse"]


class ModerationPolicy(Frozen):
    """How prompts and answers are judged, and what is done with those that are flagged."""

    rules: bool = False
    """Judge by the word rules of `chaku data` (minors, sexual, slur, self_harm, weapons)."""
    patterns: dict[str, str] = Field(default_factory=dict)
    """Category to regular expression, beside the rules; case does not matter."""
    url: str | None = None
    """Base URL of an API with /moderations, such as https://api.openai.com/v1."""
    url_model: str = "omni-moderation-latest"
    api_key_env: str | None = None
    """Environment variable that holds the key of `url`."""
    guard: ModelName | None = None
    """Served model that answers "safe", or "unsafe" and a line of categories, as Llama Guard does. Its own requests
    are not judged."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Flag a category whose score at `url` reaches this. Default: those that it names."""
    actions: dict[str, ModerationAction] = Field(default_factory=dict)
    """What is done, by category. warn: a header names it. hide: the flagged text is left out. refuse: a prompt is
    refused, and the part of an answer that was not sent yet is dropped."""
    action: ModerationAction = "refuse"
    """What is done for other categories."""
    input: bool = True
    """Judge prompts."""
    output: bool = True
    """Judge answers."""
    on_failure: Literal["open", "closed"] = "closed"
    """If the judge does not answer: open lets everything pass, closed refuses it."""
    window: int = Field(200, ge=20, le=20_000)
    """Characters of a stream that are held back until they are judged."""
    timeout_s: float = Field(10.0, gt=0, le=MAX_WAIT_S)

    @model_validator(mode="after")
    def _has_a_judge(self) -> ModerationPolicy:
        if not (self.rules or self.patterns or self.url or self.guard):
            raise ValueError("a moderation policy needs rules, patterns, url or guard")
        if not (self.input or self.output):
            raise ValueError("a moderation policy without input and output judges nothing")
        for_url = next((key for key in ("url_model", "api_key_env", "threshold") if key in self.model_fields_set), None)
        if for_url and not self.url:
            raise ValueError(f"{for_url} of a moderation policy has no effect without url")
        return self

    @field_validator("patterns")
    @classmethod
    def _are_expressions(cls, patterns: dict[str, str]) -> dict[str, str]:
        for pattern in patterns.values():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns
