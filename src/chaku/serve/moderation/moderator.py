"""The policy over the judges: which hits count, what is done, and what is counted and logged. Never logs a text."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import Counter

from chaku.errors import ChakuError, InvalidRequest
from chaku.policies import ModerationAction, ModerationPolicy
from chaku.serve.moderation.judges import Ask, EndpointJudge, GuardJudge, Hit, Judge, JudgeFailed, RuleJudge

log = logging.getLogger(__name__)

Where = Literal["input", "output"]
PIECE, OVERLAP = 16_384, 256
"""Characters of a long text that are judged at once, and that two neighbouring pieces share."""
MAX_KNOWN = 10_000
HIDDEN = "[hidden by moderation]"
_ORDER: tuple[ModerationAction, ...] = ("off", "warn", "hide", "refuse")


@dataclass(frozen=True)
class Decision:
    """What is done with a text."""

    action: ModerationAction = "off"
    categories: tuple[str, ...] = ()
    start: int = 0
    """Where the flagged part begins."""


PASS = Decision()


class Moderator:
    """Judges texts by a policy. Decisions are remembered by hash, so that a chat's history costs nothing."""

    def __init__(self, policy: ModerationPolicy, counter: Counter | None = None, ask: Ask | None = None) -> None:
        """`counter` has the labels where, category and action. `ask` is needed for a guard model."""
        self.policy = policy
        self._counter = counter
        self._judges: list[Judge] = []
        if policy.rules or policy.patterns:
            self._judges.append(RuleJudge(rules=policy.rules, patterns=policy.patterns))
        if policy.url is not None:
            self._judges.append(EndpointJudge(policy))
        if policy.guard is not None:
            assert ask is not None, "a guard model and nobody who asks it"
            self._judges.append(GuardJudge(policy.guard, ask))
        self._known: OrderedDict[bytes, Decision] = OrderedDict()

    async def close(self) -> None:
        """Close the judges' connections."""
        for judge in self._judges:
            await judge.close()

    async def hits(self, texts: Sequence[str]) -> list[list[Hit]]:
        """What the judges say of each text, whatever the policy does with it. Raises ChakuError."""
        found: list[list[Hit]] = [[] for _ in texts]
        pieces = [(index, start) for index, text in enumerate(texts) for start in _starts(text)]
        for first in range(0, len(pieces), 8):
            some = pieces[first : first + 8]
            for judge in self._judges:
                judged = await judge.judge([texts[index][start : start + PIECE] for index, start in some])
                for (index, start), hits in zip(some, judged, strict=True):
                    found[index] += [Hit(hit.category, start + hit.start, hit.score) for hit in hits]
            await asyncio.sleep(0)  # word rules over a long text must not stop other people's streams
        return found

    async def decide(self, text: str, where: Where, *, must_count: bool = True) -> Decision:
        """What the policy does with a text.

        Where a judge does not answer, an open policy lets it pass; a closed one raises JudgeFailed.
        """
        if not text.strip():
            return PASS
        key = hashlib.sha256(where.encode() + text.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(key)
        if known is None:
            try:
                async with asyncio.timeout(self.policy.timeout_s):
                    (hits,) = await self.hits([text])
            except (ChakuError, TimeoutError) as error:
                return self._failed(where, error)
            known = self._known[key] = self._decision(hits)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        if must_count:
            self.count(where, known)
        return known

    def count(self, where: Where, decision: Decision) -> None:
        """Note a decision in metrics and log; no text is."""
        if decision.action == "off":
            return
        log.info("moderation where=%s action=%s categories=%s", where, decision.action, ",".join(decision.categories))
        if self._counter is not None:
            for category in decision.categories:
                self._counter.labels(where, category[:64], decision.action).inc()

    async def check_prompt(self, text: str) -> None:
        """Refuse a text that the policy does not let in as it is. Raises InvalidRequest or JudgeFailed."""
        if self.policy.input:
            decision = await self.decide(text, "input")
            if decision.action in ("refuse", "hide"):
                raise refused(decision)

    async def read_request(self, body: dict[str, Any]) -> Decision:
        """Judge the texts of a request; flagged ones that are to be hidden are replaced in it.

        The strongest decision. Raises InvalidRequest for a prompt that is refused, JudgeFailed.
        """
        strongest = PASS
        if not self.policy.input:
            return strongest
        if _has_token_ids(body):
            raise InvalidRequest("token ids can't be judged by this server's moderation", fix="send texts")
        for container, key in _places(body):
            decision = await self.decide(container[key], "input")
            if decision.action == "refuse":
                raise refused(decision)
            if decision.action == "hide":
                container[key] = HIDDEN
            strongest = max(strongest, decision, key=lambda one: _ORDER.index(one.action))
        return strongest

    def _decision(self, hits: Sequence[Hit]) -> Decision:
        actions = {hit: self.policy.actions.get(hit.category, self.policy.action) for hit in hits}
        strongest: ModerationAction = max(actions.values(), key=_ORDER.index, default=_ORDER[0])
        if strongest == "off":
            return PASS
        counted = [hit for hit, action in actions.items() if action == strongest]
        categories = tuple(dict.fromkeys(hit.category for hit in counted))
        return Decision(strongest, categories, min(hit.start for hit in counted))

    def _failed(self, where: Where, error: Exception) -> Decision:
        why = error.for_log if isinstance(error, ChakuError) else str(error) or "too late"
        log.error("moderation failed where=%s policy=%s: %s", where, self.policy.on_failure, why)
        if self._counter is not None:
            self._counter.labels(where, "judge_failed", self.policy.on_failure).inc()
        if self.policy.on_failure == "open":
            return PASS
        raise JudgeFailed("the text can't be judged now", fix="try again later", retry_after_s=5) from None


def refused(decision: Decision) -> InvalidRequest:
    """The error for a prompt that is not let in. It names the categories, and repeats nothing of the text."""
    return InvalidRequest(
        f"the prompt is refused by this server's moderation ({', '.join(decision.categories)})",
        fix="write it in another way",
        code="content_filter",
    )


def header_of(where: Where, decision: Decision) -> tuple[bytes, bytes]:
    """The header that tells a client of a decision."""
    text = f"{where}; action={decision.action}; categories={' '.join(decision.categories)}"
    return b"x-chaku-moderation", text.encode("ascii", "replace")


def _starts(text: str) -> Sequence[int]:
    return range(0, max(1, len(text) - OVERLAP), PIECE - OVERLAP)


def _places(body: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Where the texts of a request are: a container and a key. Token ids have no text."""
    places: list[tuple[Any, Any]] = []
    for message in body.get("messages", ()):
        content = message.get("content")
        if isinstance(content, str):
            places.append((message, "content"))
        places += [(part, "text") for part in content or () if isinstance(part, dict) and "text" in part]
    for name in ("prompt", "input"):
        value = body.get(name)
        if isinstance(value, str):
            places.append((body, name))
        elif isinstance(value, list):
            places += [(value, index) for index, text in enumerate(value) if isinstance(text, str)]
    return places


def _has_token_ids(body: dict[str, Any]) -> bool:
    values = [value for name in ("prompt", "input") if isinstance(value := body.get(name), list)]
    return any(isinstance(item, int | list) for value in values for item in value)
