"""What the store says of a battle: both sides' messages, how each side stands, and a turn that nobody ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from chaku.store.battles import SIDES, Battles, Side, StoredBattle
from chaku.store.folding import plain_text
from chaku.store.message_record import MessageState, StoredMessage
from chaku.web import arena_shapes

ABANDONED = timedelta(seconds=10)
"""A battle whose answers nobody writes for so long is nobody's. Before that another gateway may begin to ask."""


def paths_of(book: Battles, battle: StoredBattle) -> dict[Side, list[StoredMessage]]:
    """The messages of both sides."""
    return {side: book.tree(battle, side).path() for side in SIDES}


def texts_of(path: Sequence[StoredMessage], role: str) -> list[str]:
    """What one role said, in order."""
    return [plain_text(message.content) for message in path if message.role == role]


def streaming(book: Battles, battle: StoredBattle) -> list[StoredMessage]:
    """The answers of this battle that a gateway still writes."""
    last = [path[-1] for path in paths_of(book, battle).values() if path]
    return [message for message in last if message.state is MessageState.STREAMING]


def is_streaming(book: Battles, battle: StoredBattle) -> bool:
    """Whether a gateway writes an answer of this battle."""
    return bool(streaming(book, battle))


def settle(book: Battles, battle: StoredBattle) -> StoredBattle:
    """End a turn that no gateway works on any more: the battle is votable, or has failed."""
    now = datetime.now(UTC)
    if is_streaming(book, battle) or abs(now - battle.updated_at) < ABANDONED:
        return battle
    texts = [texts_of(path, "assistant") for path in paths_of(book, battle).values()]
    if battle.turn > 1 or all(answers and answers[-1].strip() for answers in texts):
        book.flag(battle.id, "failed", now=now)
        return book.open_voting(battle.id, now=now)
    return book.flag(battle.id, "failed", now=now, state="failed")


def side_state(battle: StoredBattle, path: Sequence[StoredMessage]) -> arena_shapes.SideState:
    """How a side stands whose turn this gateway does not run."""
    if not path:
        return "waiting"
    if path[-1].role != "assistant" or path[-1].state is MessageState.STREAMING:
        return "answering" if battle.state != "failed" else "failed"
    return "failed" if path[-1].state is MessageState.FAILED else "ended"
