"""Files of the API: what callers upload for batches, and what batches write. Each owner sees the owner's alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from chaku.errors import Conflict, NotFound, PayloadTooLarge
from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.tables import batches, file_parts, files

PART_BYTES = 1 << 20
MAX_STORED_BYTES = 1 << 30
"""Of all files of one owner."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
"""The states of batches that are over."""


@dataclass(frozen=True)
class File:
    """A file that is whole."""

    id: str
    name: str
    purpose: str
    num_bytes: int
    created_at: datetime


_COLUMNS = sa.select(files.c.id, files.c.name, files.c.purpose, files.c.num_bytes, files.c.created_at)
_WHOLE = files.c.num_bytes.is_not(None)


class Files:
    """The files of a database. Every method may raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, owner: str | None, name: str, purpose: str, parts: Iterator[bytes], *, now: datetime) -> File:
        """Store a file. Raises PayloadTooLarge where the owner's files would take more than MAX_STORED_BYTES."""
        file_id = f"file-{new_id(now)}"
        num_bytes = 0
        with self._store.write() as connection:
            query = sa.select(sa.func.coalesce(sa.func.sum(files.c.num_bytes), 0)).where(owned(files, owner))
            stored = connection.execute(query).scalar_one()
            values = {"id": file_id, "owner_id": owner, "name": name, "purpose": purpose, "created_at": now}
            connection.execute(files.insert().values(values))
            for position, part in enumerate(parts):
                num_bytes += len(part)
                if stored + num_bytes > MAX_STORED_BYTES:
                    limit = f"the files of one key take {MAX_STORED_BYTES >> 20:,} MiB at most"
                    raise PayloadTooLarge(limit, fix="delete some: DELETE /v1/files/{id}")
                connection.execute(file_parts.insert().values(file_id=file_id, position=position, content=part))
            connection.execute(files.update().where(files.c.id == file_id).values(num_bytes=num_bytes))
        return File(file_id, name, purpose, num_bytes, now)

    def get(self, owner: str | None, file_id: str) -> File:
        """A file. Raises NotFound, for another's too."""
        with self._store.read() as connection:
            row = connection.execute(_COLUMNS.where(_WHOLE, owned(files, owner), files.c.id == file_id)).one_or_none()
        if row is None:
            raise _no_file(file_id)
        return File(*row)

    def list(
        self, owner: str | None, *, purpose: str | None, after: str | None, limit: int, newest_first: bool
    ) -> Sequence[File]:
        """Files that follow `after`, in the order of their making."""
        query = _COLUMNS.where(_WHOLE, owned(files, owner))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            query = query.where(files.c.id < after if newest_first else files.c.id > after)
        query = query.order_by(files.c.id.desc() if newest_first else files.c.id).limit(limit)
        with self._store.read() as connection:
            return [File(*row) for row in connection.execute(query)]

    def parts(self, file_id: str) -> Iterator[bytes]:
        """The content, piece by piece; `get` says whose it is."""
        position = -1
        query = sa.select(file_parts.c.position, file_parts.c.content)
        while True:
            following = query.where(file_parts.c.file_id == file_id, file_parts.c.position > position)
            with self._store.read() as connection:
                rows = connection.execute(following.order_by(file_parts.c.position).limit(16)).all()
            if not rows:
                return
            yield b"".join(content for _, content in rows)
            position = rows[-1][0]

    def delete(self, owner: str | None, file_id: str) -> None:
        """Delete a file. Raises NotFound, or Conflict while a batch reads it."""
        mine = owned(files, owner) & (files.c.id == file_id) & _WHOLE
        with self._store.write() as connection:
            if connection.execute(sa.select(files.c.id).where(mine)).one_or_none() is None:
                raise _no_file(file_id)
            reader = sa.select(batches.c.id).where(batches.c.input_file_id == file_id, batches.c.state.not_in(ENDED))
            if (batch_id := connection.execute(reader.limit(1)).scalar()) is not None:
                raise Conflict(f"the batch {batch_id} reads this file", fix="wait for its end, or cancel it")
            connection.execute(files.delete().where(mine))


def owned(table: sa.Table, owner: str | None) -> sa.ColumnElement[bool]:
    """Whether a row belongs to an owner; None is the local user."""
    return table.c.owner_id.is_(None) if owner is None else table.c.owner_id == owner


def _no_file(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:80]!r}", param="file_id", code="file_not_found")
