"""Counters of limits: exact by transaction, the same for two gateways, never less than what was used."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from chaku.store import counters as module
from chaku.store.counters import Charge, Counters, expired, used_at
from chaku.store.database import open_store
from chaku.store.tables import rate_counters


class Clock:
    """The database's clock, as a test sets it."""

    def __init__(self, store, now: datetime) -> None:
        self.now = now
        store.now = lambda connection: self.now


@pytest.fixture
def clock(store, now) -> Clock:
    return Clock(store, now)


def requests(store, limit: float = 2, amount: float = 1):
    return Counters(store).reserve("k", {"requests_per_minute": Charge(amount, limit)})


def test_a_limit_per_minute_refuses_what_exceeds_it_and_says_when_it_allows_it(store, clock):
    assert [requests(store).refused_by for _ in range(2)] == [None, None]
    refused = requests(store)
    assert (refused.refused_by, refused.levels["requests_per_minute"].left) == ("requests_per_minute", 0)
    clock.now += timedelta(seconds=refused.retry_after_s - 0.5)
    assert requests(store).refused_by
    clock.now += timedelta(seconds=0.6)
    assert requests(store).refused_by is None


def test_a_refused_request_counts_towards_no_limit(store, clock):
    tokens = {"requests_per_minute": Charge(1, 10), "tokens_per_day": Charge(60, 100)}
    assert Counters(store).reserve("k", tokens).refused_by is None
    refused = Counters(store).reserve("k", tokens)
    assert refused.refused_by == "tokens_per_day"
    assert refused.retry_after_s == 12 * 3600  # `now` is at noon
    assert refused.levels["requests_per_minute"].used == 1
    assert Counters(store).reserve("other", tokens).refused_by is None


def test_days_and_months_begin_anew(store, clock):
    spent = {"tokens_per_day": Charge(100, 100), "dollars_per_month": Charge(1, 2)}
    assert Counters(store).reserve("k", spent).refused_by is None
    assert Counters(store).reserve("k", spent).refused_by == "tokens_per_day"
    clock.now = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
    assert Counters(store).reserve("k", spent).refused_by is None
    clock.now += timedelta(days=1)
    assert Counters(store).reserve("k", spent).refused_by == "dollars_per_month"
    clock.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert Counters(store).reserve("k", spent).refused_by is None


def test_a_limit_that_is_used_up_allows_again_when_it_said_although_the_clock_was_set_back(store, clock):
    assert [requests(store).refused_by for _ in range(2)] == [None, None]
    clock.now -= timedelta(hours=1)
    refused = requests(store)
    assert refused.refused_by == "requests_per_minute"
    clock.now += timedelta(seconds=refused.retry_after_s + 0.1)
    assert requests(store).refused_by is None


def test_a_correction_gives_back_or_leaves_a_debt(store, clock):
    counters = Counters(store)
    reserved = counters.reserve("k", {"tokens_per_day": Charge(80, 100)})
    counters.settle("k", {"tokens_per_day": Charge(-70, 100)}, reserved.reserved_at)
    reserved = counters.reserve("k", {"tokens_per_day": Charge(80, 100)})
    assert reserved.levels["tokens_per_day"].used == 90
    counters.settle("k", {"tokens_per_day": Charge(50, 100)}, reserved.reserved_at)
    refused = counters.reserve("k", {"tokens_per_day": Charge(1, 100)})
    assert (refused.levels["tokens_per_day"].used, refused.levels["tokens_per_day"].left) == (140, 0)


def test_nothing_is_given_back_that_another_day_never_took(store, clock):
    counters = Counters(store)
    reserved = counters.reserve("k", {"tokens_per_day": Charge(80, 100)})
    clock.now += timedelta(days=1)
    counters.reserve("k", {"tokens_per_day": Charge(50, 100)})
    counters.settle("k", {"tokens_per_day": Charge(-80, 100)}, reserved.reserved_at)
    assert counters.reserve("k", {"tokens_per_day": Charge(0, 100)}).levels["tokens_per_day"].used == 50


def test_two_gateways_together_admit_no_more_than_the_limit(store, url):
    admitted = []

    def ask(gateway) -> None:
        for _ in range(8):
            standing = Counters(gateway).reserve("k", {"tokens_per_day": Charge(10, 95)})
            admitted.append(standing.refused_by is None)

    with open_store(url) as another:
        threads = [threading.Thread(target=ask, args=(gateway,)) for gateway in (store, another)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (len(admitted), sum(admitted)) == (16, 9)
    with store.read() as connection:
        assert connection.execute(sa.select(rate_counters.c.used)).scalars().all() == [90]


@given(
    limit=st.floats(1, 1000),
    estimate=st.floats(0, 1000),
    used=st.floats(0, 1000),
    others=st.lists(st.tuples(st.floats(0, 120), st.floats(0, 500)), max_size=6),
    until_s=st.floats(0, 120),
)
def test_a_settled_bucket_never_holds_less_than_one_that_knew_the_amount_from_the_start(
    limit, estimate, used, others, until_s
):
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    end = start + timedelta(seconds=until_s)
    levels = []
    for first in (estimate, used):
        level, at = first, start
        for pause_s, amount in others:
            moment = min(end, at + timedelta(seconds=pause_s))
            level, at = used_at("tokens_per_minute", level, at, limit, moment) + amount, moment
        levels.append(used_at("tokens_per_minute", level, at, limit, end))
    correction = used - estimate
    if correction < 0:
        correction = min(0.0, correction + expired("tokens_per_minute", limit, start, end))
    assert max(0.0, levels[0] + correction) >= levels[1] - 1e-6 * (1 + levels[1])


def test_every_kind_of_limit_has_a_window():
    at = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert module._window("tokens_per_day", at)[1] == datetime(2027, 1, 1, tzinfo=UTC)
    assert module._window("dollars_per_month", at) == (
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )
