"""chaku visitors: what an operator sees of the page's guests, and does about them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chaku.cli.visitors import visitors
from chaku.errors import NotFound, UsageError
from chaku.policies import Limits
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from chaku.store.guests import Guests
from store.test_battles import game, votable


@pytest.fixture
def url(database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CHAKU_DATABASE", f"sqlite:///{database}")
    return f"sqlite:///{database}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(visitors, arguments)


def test_without_guests_the_list_says_how_to_let_them_in(url: str) -> None:
    done = run("list")
    assert done.exit_code == 0 and "chaku serve --guests" in done.stderr and not done.stdout
    assert json.loads(run("list", "--json").stdout) == {"visitors": []}


def test_a_guest_is_listed_limited_and_blocked_and_its_cookie_obeys(url: str) -> None:
    now = datetime.now(UTC)
    with open_store(url) as store:
        guests = Guests(store, Limits(tokens_per_day=5000))
        new = guests.create(now=now)
        name = new.key.name
        assert name in run("list").stdout and "active" in run("list").stdout
        assert run("limit", name, "--tokens-per-day", "77").exit_code == 0
        assert guests.find(new.token, now=now).limits.tokens_per_day == 77  # type: ignore[union-attr]
        (row,) = json.loads(run("list", "--json").stdout)["visitors"]
        assert (row["name"], row["limits"], row["blocked_at"]) == (name, {"tokens_per_day": 77}, None)
        assert run("block", name).stdout == f"{name} is blocked.\n"
        assert guests.find(new.token, now=now) is None and "blocked" in run("list").stdout
        assert run("block", name, "--undo").exit_code == 0
        assert guests.find(new.token, now=now) is not None
        run("limit", name, "--tokens-per-day", "none")
        assert guests.find(new.token, now=now).limits.tokens_per_day == 5000  # type: ignore[union-attr]
    assert isinstance(run("limit", name).exception, UsageError)


def test_a_deleted_guest_takes_its_votes_along_and_the_ratings_that_counted_them_are_named(url: str) -> None:
    now = datetime.now(UTC)
    with open_store(url) as store:
        guest = Guests(store, Limits()).create(now=now).key
        book, battle = votable(store, now, guest.id)
        book.vote(battle.id, "a", battle.token, game(now, voter=guest.id, cluster=guest.id), now=now)
        comparisons = ComparisonBook(store)
        comparisons.note_snapshot("board.html", "BT", "0" * 64, comparisons.games(), now=now)
        done = run("delete", guest.name)
        assert done.exit_code == 0, done.exception
        assert "battles (1) and votes (1)" in done.stdout and "board.html" in done.stdout
        assert comparisons.games() == []
    assert isinstance(run("delete", guest.name).exception, NotFound)
