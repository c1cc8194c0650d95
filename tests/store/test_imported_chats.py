"""An import of chats: all of it or nothing, in short transactions, of bounded size, on SQLite and PostgreSQL."""

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from chaku.errors import InvalidRequest
from chaku.store.conversations import KEPT_DELETED, Conversations
from chaku.store.database import open_store
from chaku.store.tables import messages as messages_table
from chaku.store.transcripts import MOST_ROWS, export_jsonl, import_jsonl

MIB = 1 << 20
LONGEST_WAIT_S = 1.0
"""Of another writer during an import of 8 MiB, in seconds. 0.2 s were seen on two busy cores."""


@pytest.fixture
def mine(store) -> Conversations:
    return Conversations(store, None)


def pausing(pause) -> SimpleNamespace:
    """The time module with another `sleep`."""
    return SimpleNamespace(monotonic=time.monotonic, sleep=pause)


def test_a_large_import_lets_others_write_meanwhile_and_shows_nothing_before_it_is_whole(store, mine, now, monkeypatch):
    monkeypatch.setattr("chaku.store.transcripts._ROWS_AT_ONCE", 10)
    chats = [json.dumps({"title": f"t{n}", "messages": [{"role": "user", "content": "x"}] * 7}) for n in range(6)]
    seen: list[int] = []

    def write_too(_pause_s: float) -> None:  # in a pause of the import
        mine.create("meanwhile", now=now)
        seen.append(len(mine.page(limit=100)))

    monkeypatch.setattr("chaku.store.transcripts.time", pausing(write_too))
    imported = import_jsonl(store, None, chats, now=now)
    assert (imported.num_conversations, imported.num_messages) == (6, 42)
    assert seen == list(range(1, len(seen) + 1)) and len(seen) >= 4
    assert len(mine.page(limit=100)) == 6 + len(seen)


def test_an_import_that_breaks_off_leaves_nothing_to_be_seen(store, mine, now, monkeypatch):
    monkeypatch.setattr("chaku.store.transcripts._ROWS_AT_ONCE", 10)
    monkeypatch.setattr("chaku.store.transcripts.time", pausing(lambda pause_s: 1 / 0))
    chats = [json.dumps({"title": f"t{n}", "messages": [{"role": "user", "content": "x"}] * 7}) for n in range(6)]
    with pytest.raises(ZeroDivisionError):
        import_jsonl(store, None, chats, now=now)
    assert mine.page(limit=100) == []
    mine.create("later", now=now + KEPT_DELETED * 2)
    with store.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(messages_table)).scalar_one() == 0


def lines_of(num_bytes: int, message: str, num_messages: int) -> list[str]:
    line = json.dumps({"title": "t", "messages": [{"role": "user", "content": message}] * num_messages})
    return [line] * (num_bytes // len(line))


def longest_wait_s(url, now, lines):
    """Of a writer beside an import."""
    with open_store(url) as importing, open_store(url) as other:
        chats, waits, has_ended = Conversations(other, None), [], threading.Event()

        def write() -> None:
            while not has_ended.wait(0.01):
                began = time.monotonic()
                chats.create("meanwhile", now=now)
                waits.append(time.monotonic() - began)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            imported = import_jsonl(importing, None, lines, now=now)
        finally:
            has_ended.set()
            writer.join()
    assert imported.num_conversations == len(lines) and len(waits) >= 3
    return max(waits)


@pytest.mark.parametrize(
    "lines",
    [lines_of(8 * MIB, "x" * 4000, 10), lines_of(MIB // 32, "x", 1), ['{"messages":[]}'] * 2_000],
    ids=["long", "short", "empty"],
)
def test_another_writer_waits_less_than_a_second_during_an_import(url, now, lines):
    tries = (longest_wait_s(url, now, lines) for _ in range(3))  # a machine may stand still once
    assert any(wait_s < LONGEST_WAIT_S for wait_s in tries)


def test_an_import_shows_its_conversations_and_no_deleted_one(mine, store):
    now = datetime.now(UTC)
    deleted = mine.create("deleted", now=now)
    mine.delete(deleted.id, now=now)  # at the very moment of the import
    import_jsonl(store, None, [json.dumps({"title": "imported", "messages": []})], now=now)
    import_jsonl(store, None, [], now=now)
    assert "imported" in [one.title for one in mine.page(limit=10)]


@pytest.mark.parametrize("lines", [['{"messages":[]}'] * 101, lines_of(MIB, "x", 100)[:1]], ids=["chats", "messages"])
def test_an_import_of_too_many_rows_is_refused_whole_with_the_way_out(mine, store, now, lines, monkeypatch):
    assert MOST_ROWS >= 8 * MIB // 300  # no shorter line comes out of an export
    monkeypatch.setattr("chaku.store.transcripts.MOST_ROWS", 100)
    with pytest.raises(InvalidRequest, match="at most 100 conversations and messages") as caught:
        import_jsonl(store, None, lines, now=now, skips_bad_lines=True)
    assert "split the file" in str(caught.value.fix)
    assert mine.page(limit=10) == []


FACTS = {"id": "m", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
CHAT_FACTS = {"is_pinned": False, "is_shown": True, **{key: FACTS[key] for key in ("created_at", "updated_at")}}


def places_of_text(value, path=()):
    """Every path to a text in a line."""
    if isinstance(value, str):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places_of_text(inner, (*path, key))


WHOLE_LINE = {
    "id": "c",
    "title": "title",
    "messages": [
        {"role": "system", "content": "system"},
        {"role": "user", "content": [{"type": "text", "text": "part"}], "name": "ada"},
        {
            "role": "assistant",
            "content": "answer",
            "reasoning_content": "thought",
            "chaku": {
                **FACTS, "model": "m", "finish_reason": "stop", "sampling": {"stop": "s"}, "usage": {"u": "1"},
                "error": {"message": "e"},
            },
        },
    ],
    "chaku": {**CHAT_FACTS, "model": "m", "settings": {"system": "s"}},
}  # fmt: skip


def test_a_character_that_postgresql_has_not_is_kept_or_refused_with_its_line(store, mine, now):
    outcomes = {}
    for path, character in itertools.product(places_of_text(WHOLE_LINE), ("\x00", "\ud800")):
        line = json.loads(json.dumps(WHOLE_LINE))
        place = functools.reduce(lambda value, key: value[key], path[:-1], line)
        place[path[-1]] += character
        imported = import_jsonl(store, None, [json.dumps(line)], now=now, skips_bad_lines=True)
        is_refused = outcomes[*path, character] = bool(imported.skipped)
        assert imported.num_conversations == (0 if is_refused else 1)
        for chat in mine.page(limit=10):
            (exported,) = export_jsonl(store, None, [chat.id])
            if path[-1] not in ("id", "title"):  # ids are new, and titles are cleaned
                assert functools.reduce(lambda value, key: value[key], path, json.loads(exported)).endswith(character)
            mine.delete(chat.id, now=now)
    assert not outcomes["messages", 2, "content", "\x00"]  # text of a message is kept whatever it is
    assert outcomes["chaku", "model", "\x00"]  # a name is refused
