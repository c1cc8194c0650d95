"""A gateway's answers fail when it is gone, and only then: by the database's clock, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import chaku
from chaku.store.conversations import Conversations
from chaku.store.database import Store, open_store
from chaku.store.leases import Lease, alive
from chaku.store.message_record import MessageState, StoredMessage
from chaku.store.tables import gateways
from chaku.store.tree import Tree
from processes import PATIENCE_S

LEASE_S = 0.4


def answer(store: Store, lease: Lease | None, now: datetime) -> tuple[Tree, StoredMessage]:
    """An answer that this gateway writes, in a new conversation."""
    mine = Conversations(store, None)
    tree = mine.tree(mine.create("x", now=now).id)
    gateway_id = None if lease is None else lease.id
    message = tree.append(None, "assistant", "Half", now=now, state=MessageState.STREAMING, gateway_id=gateway_id)
    return tree, message


def wait_until(claim, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_killed_gateways_answers_fail_and_keep_their_text(store, now):
    killed = Lease(store, lease_s=LEASE_S)
    killed.renew()  # and never again
    tree, message = answer(store, killed, now)
    with Lease(store, lease_s=LEASE_S) as lease:
        mine = answer(store, lease, now)
        wait_until(lambda: tree.get(message.id).state is MessageState.FAILED, "the answer still streams")
        seen = tree.get(message.id)
        assert (seen.content, seen.error["code"]) == ("Half", "gateway_restarted")
        assert mine[0].get(mine[1].id).state is MessageState.STREAMING
        assert alive(store) == [lease.id]
    assert alive(store) == []


class Clock:
    """The database's clock, set by hand."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock(now, monkeypatch) -> Clock:
    clock = Clock(now)
    monkeypatch.setattr(Store, "now", lambda self, connection: clock.now)
    return clock


@pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(seconds=-8), timedelta(seconds=8)])
def test_gateways_whose_clocks_differ_leave_each_others_answers_alone(url, now, skew, clock):
    """What a gateway's own clock says stands in `created_at` and `updated_at`; it has no say in who is alive."""
    with open_store(url) as here, open_store(url) as there:
        first, second = Lease(here), Lease(there)
        first.renew()
        second.renew()
        answers = [answer(here, first, now), answer(there, second, now + skew)]
        for _ in range(20):
            clock.pass_s(1)
            assert (first.renew(), second.renew()) == (0, 0)
        assert [tree.get(message.id).state for tree, message in answers] == [MessageState.STREAMING] * 2
        for _ in range(12):  # the second is killed
            clock.pass_s(1)
            first.renew()
        assert [tree.get(message.id).state for tree, message in answers] == [
            MessageState.STREAMING,
            MessageState.FAILED,
        ]


def test_a_clock_that_jumps_fails_no_living_gateways_answers_and_those_of_the_dead_soon(url, now, clock):
    with open_store(url) as store:
        living, other, killed = Lease(store), Lease(store), Lease(store)
        for lease in (living, other, killed):
            lease.renew()
        mine, theirs, dead = answer(store, living, now), answer(store, other, now), answer(store, killed, now)
        for jump_s in (3600, -7200):  # the killed one has not renewed since the first second
            clock.pass_s(jump_s)
            for _ in range(12):
                clock.pass_s(1)
                living.renew()
                other.renew()
            if jump_s > 0:
                assert dead[0].get(dead[1].id).state is MessageState.FAILED
                late = Lease(store)
                late.renew()  # and is killed, before the clock is set back
                dead = answer(store, late, now)
        states = [tree.get(message.id).state for tree, message in (mine, theirs, dead)]
        assert states == [MessageState.STREAMING, MessageState.STREAMING, MessageState.FAILED]


ANOTHER_GATEWAY = """
import sys, time
from datetime import UTC, datetime, timedelta
real = time.time
time.time = lambda: real() + SKEW_S
import chaku.store.leases as leases
from chaku.store.conversations import Conversations
from chaku.store.database import open_store
from chaku.store.message_record import MessageState
now = datetime.now(UTC) + timedelta(seconds=SKEW_S)
with open_store(sys.argv[1]) as store, leases.Lease(store, lease_s=float(sys.argv[2])) as lease:
    mine = Conversations(store, None)
    tree = mine.tree(mine.create("theirs", now=now).id)
    message = tree.append(
        None, "assistant", "Half", now=now, state=MessageState.STREAMING, gateway_id=lease.id
    )
    print(tree.conversation_id, message.id, flush=True)
    sys.stdin.read()
"""


def test_a_gateway_process_whose_clock_is_an_hour_off_sweeps_nobody_and_is_swept_when_it_is_killed(url):
    with open_store(url) as store, Lease(store, lease_s=1.5) as lease:
        tree, message = answer(store, lease, datetime.now(UTC))
        command = [sys.executable, "-c", ANOTHER_GATEWAY.replace("SKEW_S", "3600"), url, "1.5"]
        environment = {**os.environ, "PYTHONPATH": str(Path(chaku.__file__).parents[1])}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            try:
                chat_id, theirs_id = other.stdout.readline().split()
                theirs = Conversations(store, None).tree(chat_id)
                time.sleep(3.3)  # both have been steady for two leases: now each would sweep the other
                assert tree.get(message.id).state is MessageState.STREAMING
                assert theirs.get(theirs_id).state is MessageState.STREAMING
                assert len(alive(store)) == 2
            finally:
                other.kill()
        wait_until(lambda: theirs.get(theirs_id).state is MessageState.FAILED, "nobody swept the killed gateway")
        assert tree.get(message.id).state is MessageState.STREAMING


@pytest.mark.parametrize("away_s", [5, 60])
def test_a_database_that_was_slow_ends_no_lease(url, now, clock, away_s):
    with open_store(url) as here, open_store(url) as there:
        first, second = Lease(here), Lease(there)
        first.renew()
        second.renew()
        answers = [answer(here, first, now), answer(there, second, now)]
        for _ in range(3):
            for _ in range(7):
                clock.pass_s(1)
                assert (first.renew(), second.renew()) == (0, 0)
            clock.pass_s(away_s)
            assert first.renew() == 0  # the second is as late, and its turn comes
            clock.pass_s(3)
            assert second.renew() == 0
        assert [tree.get(message.id).state for tree, message in answers] == [MessageState.STREAMING] * 2
        assert alive(here) == sorted([first.id, second.id])


def test_a_gateway_that_comes_back_after_its_lease_ended_has_one_again(store, now):
    with Lease(store, lease_s=LEASE_S) as lease:
        with store.write() as connection:
            connection.execute(gateways.delete())
        wait_until(lambda: alive(store) == [lease.id], "the lease was not renewed")


def test_answers_from_before_there_were_leases_fail(store, now):
    tree, message = answer(store, None, now)
    with Lease(store, lease_s=0.1):
        wait_until(lambda: tree.get(message.id).state is MessageState.FAILED, "the answer still streams")


def test_the_lease_outlives_an_unexpected_error(store, now, caplog, monkeypatch):
    renew, failures = Lease.renew, iter([0, RuntimeError("planted")])

    def sometimes(self):
        if error := next(failures, None):
            raise error
        return renew(self)

    monkeypatch.setattr(Lease, "renew", sometimes)
    with Lease(store, lease_s=0.1) as lease:
        wait_until(lambda: "RuntimeError: planted" in caplog.text, "nothing was logged")
        with store.write() as connection:
            connection.execute(gateways.delete())
        wait_until(lambda: alive(store) == [lease.id], "the lease is not renewed")


def test_the_databases_clock_is_in_utc_and_right(store):
    with store.read() as connection:
        now = store.now(connection)
    assert now.utcoffset() == timedelta()
    assert abs(now.timestamp() - time.time()) < 5
