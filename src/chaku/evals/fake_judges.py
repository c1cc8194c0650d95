"""Judges with one known fault each, to see what a check finds. They answer in text, as models do."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from chaku.errors import Overloaded
from chaku.evals.probes import EMPTY, PADDED, Probe

Quality = Callable[[Probe, int], float]
"""How good the answer at place 0 or 1 is."""


@dataclass
class FakeJudge:
    """A judge by rule. `decide` returns the better place, 0 or 1, or None for a tie."""

    decide: Callable[[Probe, random.Random], int | None]
    seed: int = 0
    malformed: float = 0.0
    """Share of answers without a verdict."""
    delay_s: float = 0.0
    refused: float = 0.0
    """Share of calls that are refused with a 429."""
    _attempts: dict[str, int] = field(default_factory=dict)

    async def __call__(self, probe: Probe) -> str:
        """The judge's text. Raises Overloaded."""
        attempt = self._attempts[probe.task.key] = self._attempts.get(probe.task.key, 0) + 1
        digest = hashlib.sha256(f"{self.seed} {probe.task.key} {attempt}".encode()).digest()
        chance = random.Random(digest)  # noqa: S311 - no secret
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if chance.random() < self.refused:
            raise Overloaded("too many requests", retry_after_s=0.0)
        if chance.random() < self.malformed:
            return "Both answers have their merits, and I like them."
        place = self.decide(probe, chance)
        return f"I compared the answers.\n[[{'tie' if place is None else 'AB'[place]}]]"


def always_first(probe: Probe, chance: random.Random) -> int:
    """Prefers what is shown first."""
    return 0


def always_longer(probe: Probe, chance: random.Random) -> int | None:
    """Prefers the longer answer."""
    first, second = (sum(map(len, turns)) for turns in probe.shown)
    return None if first == second else int(second > first)


def coin(probe: Probe, chance: random.Random) -> int:
    """Prefers either by chance."""
    return chance.randrange(2)


def oracle(quality: Quality, noise: float = 0.0) -> Callable[[Probe, random.Random], int | None]:
    """Prefers the better answer; a share `noise` of its verdicts is turned round."""

    def decide(probe: Probe, chance: random.Random) -> int | None:
        values = [_quality(quality, probe, place) for place in (0, 1)]
        if probe.shown[0] == probe.shown[1] or values[0] == values[1]:
            return None
        return int(values[1] > values[0]) ^ (chance.random() < noise)

    return decide


def own_name(name: str, quality: Quality) -> Callable[[Probe, random.Random], int | None]:
    """An oracle that prefers the answers of one contestant: its own."""
    honest = oracle(quality)

    def decide(probe: Probe, chance: random.Random) -> int | None:
        is_own = [shown == name for shown in probe.names]
        return is_own.index(True) if sum(is_own) == 1 else honest(probe, chance)

    return decide


def _quality(quality: Quality, probe: Probe, place: int) -> float:
    name = probe.names[place]
    if name.endswith(EMPTY):
        return float("-inf")
    return quality(probe, place) - (1e-6 if name.endswith(PADDED) else 0.0)


def fake_judge(name: str, *, labels: dict[tuple[str, str], float], own: str = "", seed: int = 0) -> FakeJudge:
    """A fake by its name. `labels`: how good a contestant's answer to a question is. Raises KeyError."""

    def quality(probe: Probe, place: int) -> float:
        contestant = probe.names[place].removesuffix(PADDED)
        return labels.get((probe.task.question.id, contestant), 0.0)

    makers: dict[str, Callable[[], FakeJudge]] = {
        "always-first": lambda: FakeJudge(always_first, seed),
        "always-longer": lambda: FakeJudge(always_longer, seed),
        "own-name": lambda: FakeJudge(own_name(own, quality), seed),
        "coin": lambda: FakeJudge(coin, seed),
        "oracle": lambda: FakeJudge(oracle(quality), seed),
        "noisy-oracle": lambda: FakeJudge(oracle(quality, 0.3), seed),
        "malformed": lambda: FakeJudge(oracle(quality), seed, malformed=0.4),
        "slow": lambda: FakeJudge(oracle(quality), seed, delay_s=0.05),
        "429": lambda: FakeJudge(oracle(quality), seed, refused=0.3),
    }
    return makers[name]()


FAKES = ("always-first", "always-longer", "own-name", "coin", "oracle", "noisy-oracle", "malformed", "slow", "429")
