"""Judges of texts: word rules, an API with /moderations, a guard model. Each names the categories of a text."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from chaku.config import environment
from chaku.data.rules.content import content_hits
from chaku.errors import ChakuError, ConfigError, EngineError
from chaku.http_out import Retries, Transport, refusal
from chaku.policies import ModerationPolicy

FLAGGED, UNSAFE = "flagged", "unsafe"
"""The category of a text that an API, or a guard model, flags without naming one."""
Ask = Callable[[str, str], Awaitable[str]]
"""Ask a served model a question: its name, the text; returns the answer."""


@dataclass(frozen=True)
class Hit:
    """A category that a text falls under, and where the flagged part begins if the judge knows."""

    category: str
    start: int = 0
    score: float = 1.0


class Judge(Protocol):
    """Judges texts. One that can't raises ChakuError, and never guesses."""

    async def judge(self, texts: Sequence[str]) -> list[list[Hit]]:
        """The hits of each text, in order."""

    async def close(self) -> None:
        """Close connections."""


class RuleJudge:
    """The word rules of `chaku data`, and the operator's own patterns."""

    def __init__(self, *, rules: bool, patterns: Mapping[str, str]) -> None:
        self._rules = rules
        self._patterns = {category: re.compile(pattern, re.I) for category, pattern in patterns.items()}

    async def judge(self, texts: Sequence[str]) -> list[list[Hit]]:
        """The rules that match each text."""
        return [self._hits(text) for text in texts]

    def _hits(self, text: str) -> list[Hit]:
        hits = [Hit(rule, found[0].start()) for rule, found in content_hits(text)] if self._rules else []
        matches = ((category, pattern.search(text)) for category, pattern in self._patterns.items())
        return hits + [Hit(category, match.start()) for category, match in matches if match is not None]

    async def close(self) -> None:
        """There is nothing to close."""


class EndpointJudge:
    """An API that speaks OpenAI's POST /moderations."""

    def __init__(self, policy: ModerationPolicy) -> None:
        """Raises ConfigError where the key's variable is not set."""
        assert policy.url is not None
        key = environment(policy.api_key_env) if policy.api_key_env else None
        if policy.api_key_env and key is None:
            raise ConfigError(f"{policy.api_key_env} is not set", fix="export it, or leave api_key_env out")
        self._model = policy.url_model
        self._threshold = policy.threshold
        self._transport = Transport(
            policy.url,
            who="the moderation API",
            headers={"Authorization": f"Bearer {key}"} if key else None,
            retries=Retries(limit=2, budget_s=policy.timeout_s / 2),
            silence_s=policy.timeout_s,
        )

    async def judge(self, texts: Sequence[str]) -> list[list[Hit]]:
        """One request for all texts. Raises ChakuError where it is not answered as OpenAI would."""
        body = {"model": self._model, "input": list(texts)}
        async with self._transport.request("POST", "/moderations", body) as response:
            if response.status != 200:
                raise await refusal(response)
            raw = await response.read()
        try:
            results = orjson.loads(raw)["results"]
            hits = [self._hits(result) for result in results]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
            raise EngineError("the moderation API answered with something else than results") from None
        if len(hits) != len(texts):
            raise EngineError(f"the moderation API judged {len(hits)} of {len(texts)} texts")
        return hits

    def _hits(self, result: dict[str, Any]) -> list[Hit]:
        scores = {str(name): float(score) for name, score in (result.get("category_scores") or {}).items()}
        if self._threshold is not None:
            return [Hit(name, score=score) for name, score in scores.items() if score >= self._threshold]
        named = [str(name) for name, is_hit in (result.get("categories") or {}).items() if is_hit]
        if not named and result["flagged"]:
            named = [FLAGGED]
        return [Hit(name, score=scores.get(name, 1.0)) for name in named]

    async def close(self) -> None:
        """Close its connections."""
        await self._transport.close()


class GuardJudge:
    """A served model that answers "safe", or "unsafe" and a line of categories (Llama Guard's answer)."""

    def __init__(self, model: str, ask: Ask) -> None:
        self._model = model
        self._ask = ask

    async def judge(self, texts: Sequence[str]) -> list[list[Hit]]:
        """One question for each text. Raises EngineError for an answer that is neither safe nor unsafe."""
        return [self._read(await self._ask(self._model, text)) for text in texts]

    def _read(self, answer: str) -> list[Hit]:
        verdict, _, categories = answer.strip().partition("\n")
        if verdict.strip().lower() == "safe":
            return []
        if verdict.strip().lower() != "unsafe":
            raise EngineError(f"{self._model} did not answer safe or unsafe")
        return [Hit(name.strip()) for name in re.split(r"[,\n]", categories) if name.strip()] or [Hit(UNSAFE)]

    async def close(self) -> None:
        """There is nothing to close."""


class JudgeFailed(ChakuError):
    """A judge did not answer, and the policy is closed."""

    http_status = 503
    code = "moderation_unavailable"
