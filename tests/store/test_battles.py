"""Votes in the store, of both kinds of database: on the disk, one a battle, superseded, forgotten with a visitor."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from chaku.comparison import Comparison
from chaku.errors import Conflict, NotFound, Overloaded
from chaku.settings import Contestant
from chaku.store import keys
from chaku.store.battle_list import BattleList
from chaku.store.battles import Battles, StoredBattle, undo_left_s
from chaku.store.comparisons import ComparisonBook
from chaku.store.conversations import Conversations
from chaku.store.database import Store
from chaku.store.tables import conversations, messages, votes

PAIR = (
    Contestant(name="ant", model="m", sampling={"temperature": 0.1}),
    Contestant(name="bee", model="m", system="Buzz"),
)


def game(now: datetime, **fields: Any) -> Comparison:
    values: dict[str, Any] = {
        "source": "human", "model_a": "ant", "model_b": "bee", "outcome": "a", "voter": "local", "cluster": "local",
        "created": now.isoformat(),
    }  # fmt: skip
    return Comparison(**{**values, **fields})


def votable(
    store: Store, now: datetime, owner: str | None = None, publish: bool = True
) -> tuple[Battles, StoredBattle]:
    book = Battles(store, owner)
    battle = book.create(PAIR, 0.5, publish=publish, per_hour=99, now=now)
    book.begin_turn(battle.id, most=9, now=now)
    tree = book.tree(battle, "a")
    user = tree.append(None, "user", "Hi", now=now)
    tree.append(user.id, "assistant", "Ant", now=now)
    return book, book.open_voting(battle.id, now=now)


def test_a_vote_is_written_through_to_the_disk_and_other_writes_are_not(store: Store, now: datetime) -> None:
    setting = "PRAGMA synchronous" if store.engine.dialect.name == "sqlite" else "SHOW synchronous_commit"
    full, normal = (2, 1) if store.engine.dialect.name == "sqlite" else ("on", "on")
    for durable, wanted in ((False, normal), (True, full), (False, normal)):
        with store.write(durable=durable) as connection:
            assert connection.exec_driver_sql(setting).scalar_one() == wanted
    seen = []

    def look(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO votes"):
            cursor = connection.connection.cursor()
            seen.append(cursor.execute(setting).fetchone()[0])

    book, battle = votable(store, now)
    sa.event.listen(store.engine, "before_cursor_execute", look)
    book.vote(battle.id, "a", battle.token, game(now), now=now)
    assert seen == [full]


def test_of_many_votes_at_once_one_holds(store: Store, now: datetime) -> None:
    book, battle = votable(store, now)
    results: list[Any] = []

    def vote(number: int) -> None:
        moment = now + timedelta(microseconds=number)
        try:
            results.append(book.vote(battle.id, "a", battle.token, game(moment), now=moment))
        except Conflict as error:
            results.append(error.code)

    threads = [threading.Thread(target=vote, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and results.count("already_voted") == 7
    assert len(ComparisonBook(store).games()) == 1


def test_undoing_supersedes_and_deletes_nothing(store: Store, now: datetime) -> None:
    book, battle = votable(store, now)
    given = book.vote(battle.id, "a", battle.token, game(now), now=now)
    with pytest.raises(Conflict, match="10 s"):
        book.undo(battle.id, now=now + timedelta(seconds=11))
    assert [undo_left_s(given, now + timedelta(seconds=late)) for late in (-3600, 1, 11)] == [10, 9, 0]
    again = book.undo(battle.id, now=now + timedelta(seconds=9))
    assert (again.state, again.flags) == ("votable", ["shown"]) and again.token != battle.token
    with pytest.raises(Conflict):
        book.undo(battle.id, now=now)
    later = now + timedelta(seconds=9)
    book.vote(battle.id, "b", again.token, game(later, outcome="b"), now=later)
    with store.read() as connection:
        rows = connection.execute(sa.select(votes.c.choice, votes.c.superseded_at).order_by(votes.c.id)).all()
    assert [(row.choice, row.superseded_at is None) for row in rows] == [("a", False), ("b", True)]
    assert {one.outcome: one.counted for one in ComparisonBook(store).games()} == {"a": False, "b": True}


def test_battles_are_no_chats_and_anothers_battle_is_not_there(store: Store, now: datetime) -> None:
    _, battle = votable(store, now)
    mine = Conversations(store, None)
    assert mine.page(limit=9) == [] and mine.search("Ant", limit=9) == []
    with pytest.raises(NotFound):
        mine.get(battle.conversation_a)
    with pytest.raises(NotFound):
        Battles(store, "someone").get(battle.id)


def test_only_so_many_battles_within_an_hour(store: Store, now: datetime) -> None:
    book = Battles(store, None)
    for minute in range(3):
        book.create(PAIR, 1.0, publish=True, per_hour=3, now=now + timedelta(minutes=minute))
    with pytest.raises(Overloaded) as refused:
        book.create(PAIR, 1.0, publish=True, per_hour=3, now=now + timedelta(minutes=10))
    assert refused.value.retry_after_s == 50 * 60
    book.create(PAIR, 1.0, publish=True, per_hour=3, now=now + timedelta(minutes=61))
    book.create(PAIR, 1.0, publish=True, per_hour=3, now=now - timedelta(hours=2))  # the clock was set back


def test_what_is_excluded_is_kept_with_its_reason_and_can_come_back(store: Store, now: datetime) -> None:
    book, battle = votable(store, now)
    book.vote(battle.id, "a", battle.token, game(now), now=now)
    comparisons = ComparisonBook(store)
    comparisons.add([game(now, source="judge", judge="j", voter=None)])
    subjects = {"voter": "local", "battle": battle.id, "contestant": "bee"}
    for kind, subject in subjects.items():
        comparisons.exclude(kind, subject, "a test", by="local", now=now)  # type: ignore[arg-type]
        left_out = {one.source: one.reason for one in comparisons.games() if not one.counted}
        assert left_out["human"] == f"{kind} excluded: a test" and ("judge" in left_out) == (kind == "contestant")
        comparisons.lift(kind, subject, now=now)  # type: ignore[arg-type]
        assert all(one.counted for one in comparisons.games())
    with pytest.raises(NotFound):
        comparisons.lift("voter", "local", now=now)
    assert len(comparisons.exclusions()) == 3


def test_a_forgotten_visitor_leaves_no_text_and_the_snapshots_are_named(store: Store, now: datetime) -> None:
    ana = keys.create(store, "ana", now=now).key.id
    comparisons = ComparisonBook(store)
    for owner, voter in ((ana, ana), (None, "local")):
        book, battle = votable(store, now, owner)
        book.vote(battle.id, "a", battle.token, game(now, voter=voter), now=now)
    comparisons.note_snapshot("board.html", "BT", "0" * 64, comparisons.games(), now=now)
    later = now + timedelta(days=1)
    comparisons.note_snapshot("empty.html", "BT", "0" * 64, [], now=later)
    gone = comparisons.forget(ana)
    assert (gone.num_battles, gone.num_votes, gone.snapshots) == (1, 1, ("board.html",))
    with store.read() as connection:
        assert connection.execute(sa.select(votes.c.visitor)).scalars().all() == ["local"]
        for table in (conversations, messages):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 2
    assert [one.voter for one in comparisons.games()] == ["local"]
    assert comparisons.forget(ana).num_battles == 0


def test_texts_are_listed_by_consent_only_and_counts_hide_open_battles(store: Store, now: datetime) -> None:
    for publish, moment in ((True, now), (False, now + timedelta(seconds=1))):
        book, battle = votable(store, moment, publish=publish)
        book.vote(battle.id, "b", battle.token, game(moment, outcome="b"), now=moment)
    votable(store, now)
    total, (hidden, open_one) = BattleList(store).of_pair("bee", "ant", limit=9)
    assert total == 2 and hidden.texts is None
    assert open_one.texts == {"user": ["Hi"], "a": ["Ant"], "b": []}
    comparisons = ComparisonBook(store)
    assert comparisons.pair_counts(now=now) == {("ant", "bee"): (2, 2)}
    assert comparisons.pair_counts(now=now + timedelta(hours=2)) == {("ant", "bee"): (3, 2)}
    assert comparisons.outcome_counts() == {("ant", "bee"): (0.0, 2)}


def test_imports_come_in_once_and_through_windows(store: Store, now: datetime) -> None:
    comparisons = ComparisonBook(store)
    games = [game(now + timedelta(days=day), source="import", voter=None) for day in range(3)]
    assert comparisons.add(games) == 3 and comparisons.add(games) == 0
    assert comparisons.add([game(now, outcome=0.25, source="judge", voter=None)], is_example=True) == 1
    assert sorted(one.id for one in comparisons.games()) == sorted(one.id for one in games)
    day = (now + timedelta(days=1)).date().isoformat()
    assert len(comparisons.games(since=day)) == 2 and len(comparisons.games(until=day)) == 1
    assert (
        len(comparisons.games(examples=True)) == 4
        and comparisons.games(sources=["judge"], examples=True)[0].outcome == 0.25
    )
