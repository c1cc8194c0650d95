"""The audit log: each change by an admin is there with who, when and what, and never with a token or a text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from chaku.cli.audit import audit_log
from chaku.errors import InvalidRequest, NotFound
from chaku.policies import Limits
from chaku.store import audit, guests, keys
from chaku.store.audit import Actor
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import Store, open_store
from gateways import page_gateway
from tabs import Refused, tab


def told(store: Store) -> list[tuple[str, str, str, str]]:
    """Via, actor, action and subject, the oldest first."""
    found = sorted(audit.entries(store), key=lambda entry: entry.time)
    return [(entry.via, entry.actor, entry.action, entry.subject) for entry in found]


def test_each_change_is_written_once_with_who_made_it(store: Store, now: datetime, monkeypatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    boss = keys.create(store, "boss", now=now, scopes={"admin"})
    made = keys.create(
        store, "bob", now=now + timedelta(1), limits=Limits(tokens_per_day=5), by=Actor("page", boss.key.id)
    )
    keys.edit(store, "bob", limits={"tokens_per_day": 7})
    keys.revoke(store, "bob", now=datetime.now(UTC), by=Actor("page"))
    guest = guests.Guests(store, Limits()).create(now=now).key
    guests.set_limits(store, guest.id, {"max_tokens": 3})
    guests.block(store, guest.id, now=datetime.now(UTC))
    guests.block(store, guest.id, now=None)
    book, later = ComparisonBook(store), datetime.now(UTC)
    book.exclude("contestant", "vicuna", "broken", by="boss", now=later, actor=Actor("page", boss.key.id))
    book.lift("contestant", "vicuna", now=datetime.now(UTC))
    guests.delete(store, guest.id)
    audit.record(store, "workers.drain", "w1", by=Actor("api", boss.key.id))
    assert told(store) == [
        ("shell", "ann", "keys.create", "boss"),
        ("page", "boss", "keys.create", "bob"),
        ("shell", "ann", "keys.edit", "bob"),
        ("page", "local", "keys.revoke", "bob"),
        ("shell", "ann", "visitors.limit", guest.name),
        ("shell", "ann", "visitors.block", guest.name),
        ("shell", "ann", "visitors.unblock", guest.name),
        ("page", "boss", "arena.exclude", "vicuna"),
        ("shell", "ann", "arena.lift", "vicuna"),
        ("shell", "ann", "visitors.delete", guest.name),
        ("api", "boss", "workers.drain", "w1"),
    ]
    details = {entry.action: entry.details for entry in audit.entries(store)}
    assert details["keys.edit"]["limits"] == {"tokens_per_day": 7}
    with store.read() as connection:
        rows = str(connection.execute(sa.text("SELECT * FROM audit")).all())
    assert made.token not in rows and boss.token not in rows


def test_a_change_that_fails_leaves_no_entry(store: Store, now: datetime) -> None:
    keys.create(store, "bob", now=now)
    before = told(store)
    with pytest.raises(InvalidRequest):
        keys.create(store, "bob", now=now)
    for fails in (
        lambda: keys.revoke(store, "nobody", now=now),
        lambda: guests.block(store, "nobody", now=now),
        lambda: ComparisonBook(store).lift("voter", "nobody", now=now),
    ):
        with pytest.raises(NotFound):
            fails()
    assert told(store) == before


def test_rules_of_a_gateway_are_written_when_they_differ_from_the_last_ones(store: Store) -> None:
    for rules in ({"guests": None}, {"guests": None}, {"guests": {"new_per_hour": 5}}, {"guests": None}):
        audit.record_settings(store, rules)
    assert [entry.details["guests"] for entry in audit.entries(store)] == [None, {"new_per_hour": 5}, None]


def test_the_command_lists_changes_as_lines_json_and_csv(store: Store, now: datetime, url: str) -> None:
    keys.create(store, "old", now=now - timedelta(days=60))
    keys.create(store, "new", now=datetime.now(UTC))
    lines = CliRunner().invoke(audit_log, ["--database", url]).stdout.splitlines()
    assert [line.split("\t")[4] for line in lines] == ["subject", "new", "old"]
    listed = json.loads(CliRunner().invoke(audit_log, ["--database", url, "--json", "--since", "7d"]).stdout)
    assert [(row["action"], row["subject"]) for row in listed["changes"]] == [("keys.create", "new")]
    table = CliRunner().invoke(audit_log, ["--database", url, "--csv"]).stdout.splitlines()
    assert table[0] == "time,actor,via,action,subject,details" and len(table) == 3


async def test_what_an_admin_does_on_the_page_is_written_down_under_the_name_of_the_key(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        boss = keys.create(store, "boss", now=datetime.now(UTC), scopes={"admin"}, by=Actor("page"))
    async with page_gateway(database) as g, tab(g) as me:
        await me.call("POST", "/login", {"key": boss.token})
        other = await me.call("POST", "/keys", {"name": "bob", "scopes": ["infer"]})
        await me.call("DELETE", f"/keys/{other['key']['id']}")
        await me.call("POST", "/arena/operator/exclusions", {"kind": "contestant", "id": "x", "reason": "broken"})
        with pytest.raises(Refused):
            await me.call("POST", "/fleet/nobody/drain")
    with open_store(f"sqlite:///{database}") as store:
        assert told(store) == [
            ("page", "local", "keys.create", "boss"),
            ("page", "boss", "keys.create", "bob"),
            ("page", "boss", "keys.revoke", "bob"),
            ("page", "boss", "arena.exclude", "x"),
        ]
