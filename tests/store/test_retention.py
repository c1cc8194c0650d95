"""What is older than the operator wants is deleted, kind by kind, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from chaku.comparison import Comparison
from chaku.policies import Retention
from chaku.settings import Contestant
from chaku.store import audit, usage
from chaku.store.battles import Battles
from chaku.store.comparisons import ComparisonBook
from chaku.store.conversations import Conversations
from chaku.store.database import Store, open_memory_store
from chaku.store.retention import forget
from chaku.store.tables import metadata
from chaku.store.usage import UsageRow

AGES = (0, 40)
"""Days."""


def filled(store: Store, said: Store, now) -> None:
    for days in AGES:
        then = now - timedelta(days=days)
        chat = Conversations(said, None).create(f"chat {days}", now=then)
        Conversations(said, None).tree(chat.id).append(None, "user", f"words {days}", now=then)
        pair = (Contestant(name="a", model="a"), Contestant(name="b", model="b"))
        battles = Battles(said, None)
        battle = battles.create(pair, 1.0, publish=False, per_hour=9, now=then)
        battles.begin_turn(battle.id, most=1, now=then)
        token = battles.open_voting(battle.id, now=then).token
        fields = {"model_a": "a", "model_b": "b", "outcome": "a", "voter": f"v{days}", "created": then.isoformat()}
        battles.vote(battle.id, "a", token, Comparison(source="human", **fields), now=then)
        side = Comparison(source="human", counted=False, reason="side by side", **fields)
        ComparisonBook(said).add([side, Comparison(source="import", **fields)])
        usage.record(store, [UsageRow(then, "m", "chat", 200, 0.1, f"r{days}")])
        with store.write() as connection:
            audit.note(connection, "workers.drain", f"w{days}", now=then)


def counts(store: Store) -> dict[str, int]:
    names = ("conversations", "messages", "battles", "votes", "comparisons", "usage", "audit")
    with store.read() as connection:
        num = {name: sa.select(sa.func.count()).select_from(metadata.tables[name]) for name in names}
        return {name: connection.execute(query).scalar_one() for name, query in num.items()}


ALL = {"conversations": 6, "messages": 2, "battles": 2, "votes": 2, "comparisons": 6, "usage": 2, "audit": 2}


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (Retention(), {}),
        (Retention(chats=41, battles=41, usage=41, audit=41), {}),
        (Retention(chats=30), {"conversations": 5, "messages": 1}),
        (Retention(battles=30), {"conversations": 4, "battles": 1, "votes": 1, "comparisons": 4}),
        (Retention(usage=30), {"usage": 1}),
        (Retention(audit=30), {"audit": 1}),
    ],
)
def test_only_what_is_too_old_of_its_kind_goes(store: Store, now, kept: Retention, left: dict[str, int]) -> None:
    filled(store, store, now)
    assert counts(store) == ALL
    gone = forget(store, store, kept, now)
    assert counts(store) == ALL | left
    assert sum(gone.values()) == len(gone) * bool(left)


def test_what_is_in_memory_goes_after_a_day_and_the_database_has_nothing_of_it(store: Store, now) -> None:
    said = open_memory_store()
    filled(store, said, now)
    forget(store, said, Retention(), now)
    left = counts(said)
    assert (left["conversations"], left["messages"], left["battles"], left["comparisons"]) == (3, 1, 1, 4)
    assert counts(store) == dict.fromkeys(ALL, 0) | {"usage": 2, "audit": 2}
