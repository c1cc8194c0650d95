"""Batches of the API: what they are, which gateway runs them, and what they have answered.

A gateway claims a batch for some seconds, by the database's clock, and renews its claim while it runs it. Nothing is
recorded under a claim that another one followed, so that no batch is run twice at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from chaku.errors import ChakuError, Conflict, NotFound
from chaku.store.database import Store
from chaku.store.files import ENDED, owned
from chaku.store.ids import new_id
from chaku.store.tables import batches, file_parts, files

WINDOW = timedelta(hours=24)
"""A batch that is not done by then expires."""


@dataclass(frozen=True)
class Batch:
    """A batch as it stands."""

    id: str
    owner_id: str | None
    state: str
    endpoint: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    metadata: dict[str, str] | None
    errors: list[dict[str, Any]] | None
    moments: dict[str, int]
    """State to the Unix second at which it was reached."""
    num_requests: int
    num_completed: int
    num_failed: int
    created_at: datetime
    expires_at: datetime

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Claimed:
    """A batch that this process may run, until it loses the claim."""

    batch: Batch
    claim: str


class ClaimLost(ChakuError):
    """Another gateway may run the batch now."""


_COLUMNS = sa.select(*(batches.c[name] for name in Batch.__annotations__))


class Batches:
    """The batches of a database. Every method may raise StoreError."""

    def __init__(self, store: Store, *, lease_s: float) -> None:
        """A claim holds for `lease_s` unless it is renewed."""
        self._store = store
        self._lease = timedelta(seconds=lease_s)

    def create(
        self, owner: str | None, endpoint: str, input_file_id: str, metadata: dict[str, str] | None, *, now: datetime
    ) -> Batch:
        """A new batch, to be validated. Raises NotFound for a file that is not the owner's, or not for batches."""
        mine = owned(files, owner) & (files.c.id == input_file_id) & (files.c.purpose == "batch")
        batch_id = new_id(now)
        batch = Batch(
            f"batch_{batch_id}", owner, "validating", endpoint, input_file_id, f"file-{new_id(now)}",
            f"file-{new_id(now)}", metadata, None, {}, 0, 0, 0, now, now + WINDOW,
        )  # fmt: skip
        with self._store.write() as connection:
            if connection.execute(sa.select(files.c.id).where(mine)).one_or_none() is None:
                fix = "upload it with purpose batch: POST /v1/files"
                raise NotFound(f"there is no file {input_file_id[:80]!r} for batches", fix=fix, param="input_file_id")
            connection.execute(batches.insert().values(vars(batch)))
        return batch

    def get(self, owner: str | None, batch_id: str) -> Batch:
        """A batch. Raises NotFound, for another's too."""
        with self._store.read() as connection:
            return _pick(connection, owned(batches, owner) & (batches.c.id == batch_id), batch_id)

    def list(self, owner: str | None, *, after: str | None, limit: int) -> Sequence[Batch]:
        """Batches older than `after`, the newest first."""
        query = _COLUMNS.where(owned(batches, owner)).order_by(batches.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(batches.c.id < after)
        with self._store.read() as connection:
            return [Batch(*row) for row in connection.execute(query)]

    def cancel(self, owner: str | None, batch_id: str, *, now: datetime) -> Batch:
        """Ask a batch to end. Raises NotFound, or Conflict for one that is over."""
        mine = owned(batches, owner) & (batches.c.id == batch_id)
        with self._store.write() as connection:
            batch = _pick(connection, mine, batch_id)
            if batch.is_over:
                raise Conflict(f"the batch is {batch.state}: it can't be cancelled")
            if batch.state != "cancelling":
                connection.execute(batches.update().where(mine).values(_reaching(batch, "cancelling", now)))
            return _pick(connection, mine, batch_id)

    def claim(self, *, but: Iterable[str], resting: Iterable[str] = ()) -> Claimed | None:
        """Claim the oldest batch that is not over and that nobody runs; None without one.

        Those in `but` are left out, and those in `resting` unless they are to be cancelled.
        """
        is_wanted = batches.c.id.not_in(list(resting)) | (batches.c.state == "cancelling")
        open_ = batches.c.state.not_in(ENDED) & batches.c.id.not_in(list(but)) & is_wanted
        with self._store.read() as connection:
            if connection.execute(sa.select(batches.c.id).where(open_).limit(1)).one_or_none() is None:
                return None
        with self._store.write() as connection:
            now = self._store.now(connection)
            # A claim longer than any is from before the clock was set back.
            holds = batches.c.claimed_until.between(now, now + 2 * self._lease)
            is_free = batches.c.claimed_until.is_(None) | ~holds
            oldest = sa.select(batches.c.id).where(open_, is_free).order_by(batches.c.id).limit(1)
            batch_id = connection.execute(oldest.with_for_update(skip_locked=True)).scalar()
            if batch_id is None:
                return None
            claim = secrets.token_hex(8)
            mine = batches.c.id == batch_id
            connection.execute(batches.update().where(mine).values(claim=claim, claimed_until=now + self._lease))
            return Claimed(_pick(connection, mine, batch_id), claim)

    def renew(self, claimed: Claimed) -> Batch:
        """Keep a claim, and see how its batch stands. Raises ClaimLost."""
        with self._store.write() as connection:
            self._hold(connection, claimed)
            return _pick(connection, batches.c.id == claimed.batch.id, claimed.batch.id)

    def release(self, claimed: Claimed) -> None:
        """Let another gateway run the batch at once."""
        mine = (batches.c.id == claimed.batch.id) & (batches.c.claim == claimed.claim)
        with self._store.write() as connection:
            connection.execute(batches.update().where(mine).values(claim=None, claimed_until=None))

    def begin(self, claimed: Claimed, num_requests: int, *, now: datetime) -> Batch:
        """Note that the input is valid, and open the files for the answers. Raises ClaimLost."""
        batch = claimed.batch
        with self._store.write() as connection:
            self._hold(connection, claimed)
            for file_id, what in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
                values = {"id": file_id, "owner_id": batch.owner_id, "purpose": "batch_output", "created_at": now}
                connection.execute(files.insert().values(values | {"name": f"{batch.id}_{what}.jsonl"}))
            return self._reach(connection, claimed, "in_progress", now, num_requests=num_requests)

    def answered(self, batch: Batch) -> set[int]:
        """The numbers of the input's lines whose answers are recorded."""
        written = file_parts.c.file_id.in_([batch.output_file_id, batch.error_file_id])
        with self._store.read() as connection:
            return set(connection.execute(sa.select(file_parts.c.position).where(written)).scalars())

    def record(self, claimed: Claimed, position: int, line: bytes, *, has_failed: bool) -> None:
        """Record the answer to a line: when this returns, no death of a process can lose it. Raises ClaimLost."""
        batch = claimed.batch
        file_id = batch.error_file_id if has_failed else batch.output_file_id
        count = batches.c.num_failed if has_failed else batches.c.num_completed
        with self._store.write(durable=True) as connection:
            self._hold(connection, claimed)
            connection.execute(file_parts.insert().values(file_id=file_id, position=position, content=line))
            connection.execute(batches.update().where(batches.c.id == batch.id).values({count: count + 1}))

    def move(self, claimed: Claimed, state: str, *, now: datetime, **values: Any) -> Batch:
        """Note that the batch has another state. Where that is the last one, its files are whole. Raises ClaimLost."""
        batch = claimed.batch
        with self._store.write(durable=True) as connection:
            self._hold(connection, claimed)
            if state in ENDED:
                for file_id in (batch.output_file_id, batch.error_file_id):
                    size = sa.select(sa.func.sum(sa.func.length(file_parts.c.content)))
                    num_bytes = connection.execute(size.where(file_parts.c.file_id == file_id)).scalar()
                    mine = files.c.id == file_id
                    whole = files.update().values(num_bytes=num_bytes) if num_bytes else files.delete()
                    connection.execute(whole.where(mine))
            return self._reach(connection, claimed, state, now, **values)

    def _hold(self, connection: sa.Connection, claimed: Claimed) -> None:
        mine = (batches.c.id == claimed.batch.id) & (batches.c.claim == claimed.claim)
        until = self._store.now(connection) + self._lease
        if not connection.execute(batches.update().where(mine).values(claimed_until=until)).rowcount:
            raise ClaimLost(f"another gateway runs {claimed.batch.id}")

    def _reach(self, connection: sa.Connection, claimed: Claimed, state: str, now: datetime, **values: Any) -> Batch:
        mine = batches.c.id == claimed.batch.id
        batch = _pick(connection, mine, claimed.batch.id)
        if batch.state != "cancelling" or state in ENDED:
            values |= _reaching(batch, state, now)
        if values:
            connection.execute(batches.update().where(mine).values(values))
        return _pick(connection, mine, batch.id)


def _reaching(batch: Batch, state: str, now: datetime) -> dict[str, Any]:
    return {"state": state, "moments": {**batch.moments, state: int(now.timestamp())}}


def _pick(connection: sa.Connection, which: sa.ColumnElement[bool], batch_id: str) -> Batch:
    row = connection.execute(_COLUMNS.where(which)).one_or_none()
    if row is None:
        raise NotFound(f"there is no batch {batch_id[:80]!r}", param="batch_id", code="batch_not_found")
    return Batch(*row)
