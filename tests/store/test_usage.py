import shutil
import signal
import sqlite3
import time
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from chaku.store import keys
from chaku.store.database import open_store
from chaku.store.tables import usage as usage_table
from chaku.store.usage import Total, UsageRow, record, totals
from chaku.store.usage_writer import UsageWriter
from processes import PATIENCE_S, run_python


def row(time: datetime, **changes) -> UsageRow:
    values = {"model": "m", "route": "chat", "status": 200, "duration_s": 1.5, "request_id": "r"}
    return UsageRow(time=time, **{**values, **changes})


def num_rows(store) -> int:
    with store.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(usage_table)).scalar_one()


def test_usage_is_summed_by_key_model_and_day(store, now):
    bob = keys.create(store, "bob", now=now).key.id
    late = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    record(
        store,
        [
            row(now, key_id=bob, model="a", prompt_tokens=10, cached_tokens=4, completion_tokens=3),
            row(late, key_id=bob, model="b", prompt_tokens=100, completion_tokens=30),
            row(late + timedelta(microseconds=1), model="a", prompt_tokens=1000, status=429),
        ],
    )
    assert totals(store) == [Total(3, 1, 1110, 4, 33, late + timedelta(microseconds=1))]
    assert totals(store, by=["key"]) == [
        Total(1, 1, 1000, 0, 0, late + timedelta(microseconds=1), key_id=None),
        Total(2, 0, 110, 4, 33, late, key_id=bob),
    ]
    assert [(t.model, t.day, t.prompt_tokens) for t in totals(store, by=["model", "day"])] == [
        ("a", date(2026, 3, 1), 10),
        ("a", date(2026, 3, 2), 1000),
        ("b", date(2026, 3, 1), 100),
    ]
    assert totals(store, since=now + timedelta(seconds=1), until=late) == []
    assert [t.prompt_tokens for t in totals(store, since=now, until=late)] == [10]


def test_no_usage_sums_to_nothing(store):
    assert totals(store) == totals(store, by=["key"]) == []


def test_days_are_utc_days_wherever_the_request_came_from(store):
    tokyo = timezone(timedelta(hours=9))
    record(store, [row(datetime(2026, 3, 2, 8, 30, tzinfo=tokyo))])  # 23:30 the day before in UTC
    (total,) = totals(store, by=["day"])
    assert total.day == date(2026, 3, 1)
    assert total.last_used_at == datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    assert total.last_used_at.tzinfo is UTC


def test_a_key_knows_when_it_was_last_used_whatever_the_order_of_rows(store, now):
    bob = keys.create(store, "bob", now=now).key.id
    record(store, [row(now + timedelta(hours=2), key_id=bob), row(now + timedelta(hours=1), key_id=bob)])
    record(store, [row(now, key_id=bob)])
    (key,) = keys.list_keys(store)
    assert key.last_used_at == now + timedelta(hours=2)


def test_a_refused_row_takes_its_whole_batch_with_it(store, now):
    with pytest.raises(sa.exc.IntegrityError):
        record(store, [row(now), row(now, key_id="nobody")])
    assert num_rows(store) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]), st.integers(0, 72), st.integers(0, 2**31 - 1), st.sampled_from([200, 400, 502])
        ),
        max_size=30,
    )
)
def test_totals_by_any_split_add_up_to_the_rows(empty_database, tmp_path_factory, drawn):
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        row(start + timedelta(hours=hours), model=model, prompt_tokens=tokens, status=status)
        for model, hours, tokens, status in drawn
    ]
    database = shutil.copy(empty_database, tmp_path_factory.mktemp("usage"))
    with open_store(f"sqlite:///{database}") as store:
        record(store, rows)
        for by in ([], ["model"], ["day"], ["key", "model", "day"]):
            sums = totals(store, by=by)
            assert sum(total.num_requests for total in sums) == len(rows)
            assert sum(total.prompt_tokens for total in sums) == sum(r.prompt_tokens for r in rows)
            assert sum(total.num_failed for total in sums) == sum(r.status >= 400 for r in rows)


def test_big_sums_do_not_overflow(store, now):
    record(store, [row(now, prompt_tokens=2**31 - 1)] * 3)
    assert totals(store)[0].prompt_tokens == 3 * (2**31 - 1)


def test_an_orderly_shutdown_writes_every_row(store, now):
    with UsageWriter(store, batch=100) as writer:
        for index in range(1234):
            writer.put(row(now, prompt_tokens=index))
    assert (writer.num_written, writer.num_lost, writer.num_waiting) == (1234, 0, 0)
    assert num_rows(store) == 1234
    assert totals(store)[0].prompt_tokens == sum(range(1234))


def test_closing_writes_what_no_thread_has_taken(store, now):
    writer = UsageWriter(store)
    writer.put(row(now))
    writer.close()
    assert num_rows(store) == writer.num_written == 1


def test_rows_reach_the_database_without_anyone_asking(store, now):
    with UsageWriter(store, interval_s=0.05) as writer:
        writer.put(row(now))
        deadline = time.monotonic() + PATIENCE_S
        while num_rows(store) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (writer.num_waiting, writer.num_written) == (0, 1)


def test_a_row_that_the_database_refuses_does_not_take_the_others_along(store, now, caplog):
    with UsageWriter(store) as writer:
        for key_id in (None, "nobody", None, "nobody"):
            writer.put(row(now, key_id=key_id))
    assert (writer.num_written, writer.num_lost) == (2, 2)
    assert num_rows(store) == 2
    assert len([r for r in caplog.records if "being lost" in r.message]) == 1


def test_rows_wait_while_the_database_is_away_and_what_overflows_is_counted(sqlite_url, now, caplog):
    with open_store(sqlite_url) as store, UsageWriter(store, capacity=5, interval_s=0.01) as writer:
        path = store.engine.url.database
        with sqlite3.connect(path) as broken:
            broken.execute("ALTER TABLE usage RENAME TO elsewhere")
        for _ in range(8):
            writer.put(row(now))
        time.sleep(0.1)
        assert (writer.num_waiting, writer.num_lost, writer.num_written) == (5, 3, 0)
        with sqlite3.connect(path) as repaired:
            repaired.execute("ALTER TABLE elsewhere RENAME TO usage")
        deadline = time.monotonic() + PATIENCE_S
        while writer.num_waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert num_rows(store) == writer.num_written == 5
        broken.close()
        repaired.close()
    assert len([r for r in caplog.records if "can't be written" in r.message]) == 1
    assert len([r for r in caplog.records if "being lost" in r.message]) == 1


def test_what_a_dead_database_does_not_take_at_shutdown_is_counted(sqlite_url, now):
    with open_store(sqlite_url) as store:
        writer = UsageWriter(store, interval_s=60).start()
        with sqlite3.connect(store.engine.url.database) as broken:
            broken.execute("ALTER TABLE usage RENAME TO elsewhere")
        broken.close()
        writer.put(row(now))
        writer.close()
        writer.put(row(now))
        assert (writer.num_written, writer.num_lost, writer.num_waiting) == (0, 2, 0)


ACKNOWLEDGING_WRITER = """
import sys
from datetime import UTC, datetime
from chaku.store.database import open_store
from chaku.store.usage import UsageRow, record
store = open_store(sys.argv[1])
for number in range(int(sys.argv[3])):
    now = datetime.now(UTC)
    row = UsageRow(time=now, model=sys.argv[2], route="chat", status=200, duration_s=0, request_id=str(number))
    record(store, [row])
    print(number, flush=True)
"""


def test_kill_9_while_writing_loses_no_acknowledged_row(url):
    open_store(url).close()
    writer = run_python(ACKNOWLEDGING_WRITER, url, "m", "1000000")
    acknowledged = [writer.stdout.readline() for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate(timeout=PATIENCE_S)
    assert writer.returncode == -signal.SIGKILL
    numbers = {line.strip() for line in acknowledged} | set(rest.split())
    with open_store(url) as store, store.read() as connection:
        stored = set(connection.execute(sa.select(usage_table.c.request_id)).scalars())
    assert len(numbers) >= 200
    assert numbers <= stored


def test_two_processes_write_at_the_same_time_without_losing_a_row(url):
    open_store(url).close()
    writers = [run_python(ACKNOWLEDGING_WRITER, url, model, "300") for model in ("a", "b")]
    for writer in writers:
        _, errors = writer.communicate(timeout=PATIENCE_S)
        assert writer.returncode == 0, errors
    with open_store(url) as store:
        assert [(total.model, total.num_requests) for total in totals(store, by=["model"])] == [("a", 300), ("b", 300)]


def test_an_unexpected_error_costs_its_row_only_and_is_logged(store, now, caplog, monkeypatch):
    def planted(store, rows):
        if any(row.model == "bad" for row in rows):
            raise RuntimeError("planted")
        record(store, rows)

    monkeypatch.setattr("chaku.store.usage_writer.record", planted)
    with UsageWriter(store, interval_s=0.01) as writer:
        for model in ("a", "bad", "b"):
            writer.put(row(now, model=model))
    assert (num_rows(store), writer.num_lost) == (2, 1)
    assert "planted" in caplog.text


def test_the_writers_thread_outlives_an_unexpected_error(store, now, caplog, monkeypatch):
    failures = iter([RuntimeError("planted")])
    write_all = UsageWriter._write_all

    def sometimes(self):
        if error := next(failures, None):
            raise error
        return write_all(self)

    monkeypatch.setattr(UsageWriter, "_write_all", sometimes)
    with UsageWriter(store, interval_s=0.01) as writer:
        writer.put(row(now))
        deadline = time.monotonic() + PATIENCE_S
        while not num_rows(store):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "thread=usage-writer" in caplog.text and "RuntimeError: planted" in caplog.text
