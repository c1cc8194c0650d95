"""Claims on batches, and the files that lie in the database: in SQLite and in PostgreSQL."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from chaku.policies import Retention
from chaku.store.batches import Batches, ClaimLost
from chaku.store.database import Store
from chaku.store.files import Files
from chaku.store.retention import forget
from chaku.store.tables import batches, file_parts, files

CHAT = "/v1/chat/completions"


def test_a_claim_that_was_lost_records_nothing(store: Store, now: datetime) -> None:
    file = Files(store).add(None, "in", "batch", iter([b"x"]), now=now)
    slow, fast = Batches(store, lease_s=0), Batches(store, lease_s=60)
    slow.create(None, CHAT, file.id, None, now=now)
    lost = slow.claim(but=())
    assert lost is not None
    time.sleep(0.01)
    held = fast.claim(but=())
    assert held is not None and fast.claim(but=()) is None
    fast.begin(held, 1, now=now)
    for write in (
        lambda: slow.record(lost, 1, b"x", has_failed=False),
        lambda: slow.begin(lost, 1, now=now),
        lambda: slow.move(lost, "completed", now=now),
        lambda: slow.renew(lost),
    ):
        with pytest.raises(ClaimLost):
            write()
    slow.release(lost)
    fast.record(held, 1, b"x\n", has_failed=False)
    assert fast.answered(held.batch) == {1}


def test_a_dead_gateways_claim_ends_although_the_clock_was_set_back(
    store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Files(store).add(None, "in", "batch", iter([b"x"]), now=now)
    claims = Batches(store, lease_s=5)
    claims.create(None, CHAT, file.id, None, now=now)
    clock = [now]
    monkeypatch.setattr(Store, "now", lambda self, connection: clock[0])
    assert claims.claim(but=()) is not None and claims.claim(but=()) is None
    clock[0] -= timedelta(hours=1)
    assert claims.claim(but=()) is not None and claims.claim(but=()) is None


def test_files_are_deleted_after_their_days_but_not_while_a_batch_needs_them(store: Store, now: datetime) -> None:
    old = now - timedelta(days=40)
    stored = Files(store)
    kept = [stored.add(None, "in", "batch", iter([b"x"]), now=then) for then in (old, old, now)]
    owned = Batches(store, lease_s=60)
    owned.create(None, CHAT, kept[1].id, None, now=old)
    assert forget(store, store, Retention(files=30), now)["files"] == 1
    with store.read() as connection:
        left = set(connection.execute(sa.select(files.c.id)).scalars())
        assert connection.execute(sa.select(sa.func.count()).select_from(file_parts)).scalar() == 2
    assert left == {kept[1].id, kept[2].id}
    running = owned.claim(but=())
    assert running is not None
    owned.move(running, "failed", now=now)
    assert forget(store, store, Retention(files=30), now)["files"] == 1
    with store.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(batches)).scalar() == 0
