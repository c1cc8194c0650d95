"""The policies, and the router that applies one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from chaku.serve.routing.load import DECODE_TOKENS, UNKNOWN_SLOTS, CallLoad, Load, Work
from chaku.serve.routing.prefix import PrefixIndex
from chaku.settings import RoutingPolicy

LOOKS_AT_ALL = 8
"""Up to so many replicas, a policy compares all. Of more it takes two by chance, and the best holder of the prefix."""
GUARD = 1.5
GUARD_CALLS = 2
"""A holder of the prefix gets no preference if its work is above GUARD times the mean, and by more than so many calls
and this prompt."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The replica that a request goes to, by its index, and the prompt tokens that are expected in its cache."""

    index: int
    hit_tokens: int = 0


class Router:
    """Chooses among replicas, and remembers which prompts they have read."""

    def __init__(self, policy: RoutingPolicy, random: Random, *, max_entries: int | None = None) -> None:
        """`max_entries` bounds the prefix index."""
        self.policy = policy
        self._random = random
        self._choose = _POLICIES[policy]
        self._num_routed = 0
        self.index = PrefixIndex() if max_entries is None else PrefixIndex(max_entries)

    def choose(self, loads: Sequence[Load], work: Work) -> Routed:
        """The replica for a request. Its prompt counts as read there from now on."""
        self._num_routed += 1
        routed = Routed(0) if len(loads) == 1 else self._choose(self, loads, work)
        if self.policy == "prefix":
            self.index.add(loads[routed.index], work.blocks)
        return routed

    def send(self, loads: Sequence[Load], work: Work) -> tuple[int, CallLoad]:
        """Choose a replica and enter the call in its books."""
        routed = self.choose(loads, work)
        return routed.index, loads[routed.index].begin(work, routed.hit_tokens)

    def _cheapest(self, loads: Sequence[Load], indices: Sequence[int], work: Work, hits: Sequence[int]) -> Routed:
        """The replica with the least work per slot; one with a free slot wins over any without. Ties: by chance."""

        def rank(index: int) -> tuple[bool, float]:
            load = loads[index]
            return not load.has_room(work.num_slots), load.cost(saved_tokens=hits[index])

        ranks = [(rank(index), index) for index in indices]
        least = min(rank for rank, _ in ranks)
        index = self._random.choice([index for rank, index in ranks if rank == least])
        return Routed(index, hits[index])

    def _sample(self, loads: Sequence[Load]) -> Sequence[int]:
        everyone = range(len(loads))
        return everyone if len(loads) <= LOOKS_AT_ALL else self._random.sample(everyone, 2)

    def _prefix(self, loads: Sequence[Load], work: Work) -> Routed:
        hits = self.index.hits(loads, work.blocks)
        mean = sum(load.cost() for load in loads) / len(loads)
        excess = work.prompt_tokens + GUARD_CALLS * DECODE_TOKENS
        hits = [
            hit if hit and load.cost(saved_tokens=excess) <= GUARD * mean else 0
            for hit, load in zip(hits, loads, strict=True)
        ]
        indices = set(self._sample(loads))
        if any(hits):
            indices.add(max(range(len(loads)), key=hits.__getitem__))
        return self._cheapest(loads, sorted(indices), work, hits)

    def _least_loaded(self, loads: Sequence[Load], work: Work) -> Routed:
        return self._cheapest(loads, self._sample(loads), work, [0] * len(loads))

    def _round_robin(self, loads: Sequence[Load], work: Work) -> Routed:
        return Routed(self._num_routed % len(loads))

    def _lottery(self, loads: Sequence[Load], work: Work) -> Routed:
        weights = [load.slots or UNKNOWN_SLOTS for load in loads]
        return Routed(self._random.choices(range(len(loads)), weights)[0])


_POLICIES: dict[RoutingPolicy, Callable[[Router, Sequence[Load], Work], Routed]] = {
    "prefix": Router._prefix,
    "least_loaded": Router._least_loaded,
    "round_robin": Router._round_robin,
    "lottery": Router._lottery,
}
