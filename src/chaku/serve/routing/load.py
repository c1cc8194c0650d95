"""The load of one replica, kept call by call.

The books count the gateway's own calls, from dispatch to end. Only the end of a call takes it out of them: no health
check, beat or expiry does. So they can't leak, and can't become negative. Calls of other gateways are known from beats
alone, and stand beside the books.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DECODE_TOKENS = 64
"""One running answer weighs as much as so many prompt tokens that are still to be read."""
UNKNOWN_SLOTS = 64
"""Assumed for a replica that does not say how many requests it runs at once."""
BEAT_COUNTS_S = 10.0
"""A beat says nothing of other gateways' calls once it is older."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a request asks of a replica."""

    num_slots: int = 1
    prompt_tokens: int = 0
    """Estimated: the gateway has no tokenizer."""
    blocks: tuple[int, ...] = ()
    """The hash chain over the beginning of its prompt."""


class Load:
    """Calls in flight at one replica, and what it holds in its prompt cache."""

    __slots__ = ("_clock", "_foreign", "_heard_at", "cache", "num_running", "slots", "unread_tokens")

    def __init__(self, clock: Callable[[], float], slots: int | None = None) -> None:
        """`clock` counts seconds. `slots` may be set later; None: unknown."""
        self._clock = clock
        self._foreign = 0
        self._heard_at = 0.0
        self.slots = slots
        self.num_running = 0
        """Slots that this gateway's calls hold."""
        self.unread_tokens = 0
        """Prompt tokens of calls that have no first token yet."""
        self.cache = object()
        """Names the content of its prompt cache in a prefix index."""

    def begin(self, work: Work, hit_tokens: int = 0) -> CallLoad:
        """Enter a call that is sent there; `hit_tokens` of its prompt are expected in the cache."""
        return CallLoad(self, work.num_slots, max(0, work.prompt_tokens - hit_tokens))

    def hear(self, num_running: int) -> None:
        """Take a beat: it runs so many requests, of all gateways, those in its queue included."""
        self._foreign = max(0, num_running - self.num_running)
        self._heard_at = self._clock()

    def lose_cache(self) -> None:
        """Its engine was restarted: it holds no prompt any more. The calls stay in the books until they end."""
        self.cache = object()

    @property
    def num_foreign(self) -> int:
        """Requests of other gateways, as of the last beat."""
        return self._foreign if self._foreign and self._clock() - self._heard_at < BEAT_COUNTS_S else 0

    def has_room(self, num_slots: int) -> bool:
        """Whether a request for `num_slots` slots would run at once."""
        return self.slots is None or self.num_running + self.num_foreign + num_slots <= self.slots

    def cost(self, saved_tokens: int = 0) -> float:
        """Tokens of work per slot, less the `saved_tokens` of a prompt that need not be read there."""
        running = self.num_running + self.num_foreign
        return (self.unread_tokens + DECODE_TOKENS * running - saved_tokens) / (self.slots or UNKNOWN_SLOTS)


class CallLoad:
    """The entry of one call in a replica's books."""

    __slots__ = ("_is_open", "_load", "_num_slots", "_unread_tokens")

    def __init__(self, load: Load, num_slots: int, unread_tokens: int) -> None:
        self._load = load
        self._num_slots = num_slots
        self._unread_tokens = unread_tokens
        self._is_open = True
        load.num_running += num_slots
        load.unread_tokens += unread_tokens

    def read(self) -> None:
        """Note the first token: the prompt has been read. Safe to call again, and after the end."""
        self._load.unread_tokens -= self._unread_tokens
        self._unread_tokens = 0

    def end(self) -> None:
        """Take the call out of the books. Safe to call again."""
        self.read()
        if self._is_open:
            self._is_open = False
            self._load.num_running -= self._num_slots
