"""The seam for a moderation model: anything that judges texts; here, any endpoint that speaks OpenAI's moderations."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import Field

from chaku.chat.messages import Conversation
from chaku.config import Frozen, environment
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.table import Action
from chaku.errors import ChakuError, ConfigError

_TRIES = 4


class ModerationConfig(Frozen):
    """A moderation model behind any endpoint that speaks OpenAI's /v1/moderations."""

    url: str
    """Base URL, such as http://127.0.0.1:8000/v1."""
    model: str = "omni-moderation-latest"
    """The model's name there."""
    api_key_env: str | None = None
    """Environment variable that holds the key."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Flag a text if a category's score reaches this. Default: the model's own `flagged`."""
    concurrency: int = Field(8, ge=1, le=64)
    """Requests at the same time, for each process."""
    timeout_s: float = Field(30.0, gt=0)
    """Longest time for one request."""


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one text: flagged or not, for which category, and that category's score in 0..1."""

    flagged: bool
    category: str | None = None
    score: float | None = None


class Classifier(Protocol):
    """Judges texts. Must not guess: what it can't judge is an exception, and the build stops and can be resumed."""

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """One judgement a text, in order."""


class EndpointClassifier:
    """A moderation model behind POST {url}/moderations. Raises ChakuError when it does not answer."""

    def __init__(self, config: ModerationConfig) -> None:
        self.config = config
        self._headers = {"content-type": "application/json"}
        if config.api_key_env is not None:
            key = environment(config.api_key_env)
            if key is None:
                raise ConfigError(f"{config.api_key_env} is not set", fix="export it, or leave api_key_env out")
            self._headers["authorization"] = f"Bearer {key}"
        if not config.url.startswith(("http://", "https://")):
            raise ConfigError(f"moderation.url is {config.url!r}", fix="give an http(s) URL that ends in /v1")

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Ask once for all texts; again, with growing pauses, when the endpoint is busy or away."""
        body = orjson.dumps({"model": self.config.model, "input": list(texts)})
        answer = self._ask(body)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(texts):
            raise ChakuError(
                f"{self.config.url}/moderations answered without one result for each of {len(texts)} texts"
            )
        return [self._classification(result) for result in results]

    def _classification(self, result: dict[str, Any]) -> Classification:
        scores = {str(name): float(score) for name, score in (result.get("category_scores") or {}).items()}
        named = [name for name, is_hit in (result.get("categories") or {}).items() if is_hit and name in scores]
        best = max(named or scores, key=lambda name: scores[name], default=None)
        score = scores[best] if best is not None else None
        if self.config.threshold is None:
            return Classification(bool(result.get("flagged")), best, score)
        if score is None:
            raise ChakuError(f"{self.config.url} gives no category_scores", fix="leave moderation.threshold out")
        top = max(scores, key=lambda name: scores[name])
        return Classification(scores[top] >= self.config.threshold, top, scores[top])

    def _ask(self, body: bytes) -> Any:
        url = f"{self.config.url.rstrip('/')}/moderations"
        for attempt in range(1, _TRIES + 1):
            request = urllib.request.Request(url, body, self._headers)  # noqa: S310 (http(s) checked above)
            try:
                with urllib.request.urlopen(request, timeout=self.config.timeout_s) as answer:  # noqa: S310
                    return orjson.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"{error.code} {error.read(200).decode('utf-8', 'replace')}"
                if error.code not in (408, 409, 429, 500, 502, 503, 504) or attempt == _TRIES:
                    break
            except (OSError, orjson.JSONDecodeError) as error:
                reason = str(error)
            time.sleep(0.25 * 2**attempt)
        raise ChakuError(
            f"the moderation model at {url} does not answer: {reason}",
            fix="start it and run the same command again; the build resumes where it stopped",
        )


def judge_all(
    conversations: Sequence[Conversation], classifier: Classifier, action: Action, concurrency: int
) -> Iterator[Decision]:
    """Judge conversations, several at a time, in order. One flagged turn is enough."""
    with ThreadPoolExecutor(concurrency) as pool:
        judged = pool.map(
            lambda conversation: classifier.classify([message.content for message in conversation.messages]),
            conversations,
        )
        for conversation, judgements in zip(conversations, judged, strict=True):
            hits = [judgement for judgement in judgements if judgement.flagged]
            if not hits:
                yield Decision(conversation.id, conversation)
                continue
            worst = max(hits, key=lambda judgement: judgement.score or 0.0)
            if action == "drop":
                yield Decision(conversation.id, None, "moderation", worst.score, worst.category)
            else:
                flag = Flag("moderation", worst.score, worst.category)
                yield Decision(conversation.id, conversation, flags=(flag,))
