"""Usage: one row per request, and sums by key, model and day (UTC)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from chaku.store.database import Store
from chaku.store.tables import usage, visitors

By = Literal["key", "model", "day"]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One request. Tokens as the engine counted them; `cached_tokens` are part of `prompt_tokens`."""

    time: dt.datetime
    """When it came (aware)."""
    model: str
    route: str
    status: int
    """HTTP status."""
    duration_s: float
    request_id: str
    key_id: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    """At the model's price when it came."""
    time_to_first_token_s: float | None = None


@dataclass(frozen=True)
class Total:
    """A sum of usage; `key_id`, `model` and `day` are None where it is not split by them (or came without a key)."""

    num_requests: int
    num_failed: int
    """Requests answered with a status of 400 or more."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    last_used_at: dt.datetime
    dollars: float = 0.0
    key_id: str | None = None
    model: str | None = None
    day: dt.date | None = None


def record(store: Store, rows: Iterable[UsageRow]) -> None:
    """Write all rows in one transaction, or none; the keys' `last_used_at` with them.

    Raises StoreError when the database is away or locked, sqlalchemy's DBAPIError for a row that it refuses.
    """
    values = [{column: getattr(row, column) for column in _COLUMNS} for row in rows]
    if not values:
        return
    last_used: dict[str, dt.datetime] = {}
    for value in values:
        if (key_id := value["key_id"]) is not None:
            last_used[key_id] = max(value["time"], last_used.get(key_id, value["time"]))
    with store.write() as connection:
        connection.execute(usage.insert(), values)
        for key_id, time in sorted(last_used.items()):  # sorted: two writers lock the rows in the same order
            older = visitors.c.last_used_at.is_(None) | (visitors.c.last_used_at < time)
            connection.execute(visitors.update().where(visitors.c.id == key_id, older).values(last_used_at=time))


def totals(
    store: Store,
    *,
    by: Sequence[By] = (),
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> list[Total]:
    """Sums over `since <= time < until`, split and sorted by what `by` names; empty where there was no request."""
    day = sa.func.date(usage.c.time, type_=sa.Date)  # sessions run in UTC, so this is the UTC day in both databases
    split: dict[By, tuple[str, sa.ColumnElement[Any]]] = {
        "key": ("key_id", usage.c.key_id),
        "model": ("model", usage.c.model),
        "day": ("day", day),
    }
    groups = [split[name] for name in by]
    query = sa.select(
        *(column.label(label) for label, column in groups),
        sa.func.count().label("num_requests"),
        sa.func.sum(sa.case((usage.c.status >= 400, 1), else_=0)).label("num_failed"),
        *(sa.func.sum(usage.c[name]).label(name) for name in SUMMED),
        sa.func.max(usage.c.time).label("last_used_at"),
    ).group_by(*(column for _, column in groups))
    query = query.order_by(*(column.asc().nulls_first() for _, column in groups))
    if since is not None:
        query = query.where(usage.c.time >= since)
    if until is not None:
        query = query.where(usage.c.time < until)
    with store.read() as connection:
        return [Total(**row) for row in connection.execute(query).mappings() if row["num_requests"]]


SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "dollars")
"""Columns whose sum a Total has."""
_COLUMNS = tuple(column.name for column in usage.columns if column.name != "id")
