from datetime import timedelta

import pytest

from chaku.store import keys
from chaku.store.sessions import MAX_IDLE, Session, Sessions


@pytest.fixture
def sessions(store) -> Sessions:
    return Sessions(store)


def test_a_session_says_whose_key_opened_it_until_it_is_closed(store, sessions, now):
    bob, eve = (keys.create(store, name, now=now).key for name in ("bob", "eve"))
    tokens = [sessions.open(bob.id, now=now), sessions.open(eve.id, now=now)]
    of_bob, of_eve = (Session(key.id, key.name, is_admin=False) for key in (bob, eve))
    assert [sessions.find(token, now=now) for token in tokens] == [of_bob, of_eve]
    assert sessions.find("guess", now=now) is sessions.find("", now=now) is None
    sessions.close(tokens[0])
    sessions.close(tokens[0])
    assert [sessions.find(token, now=now) for token in tokens] == [None, of_eve]


def test_a_session_ends_with_its_key(store, sessions, now):
    token = sessions.open(keys.create(store, "bob", now=now).key.id, now=now)
    keys.revoke(store, "bob", now=now)
    assert sessions.find(token, now=now) is None


def test_a_session_lives_as_long_as_it_is_used_and_no_longer(store, sessions, now):
    key = keys.create(store, "bob", now=now).key
    used, idle = sessions.open(key.id, now=now), sessions.open(key.id, now=now)
    assert sessions.find(used, now=now + MAX_IDLE) is not None
    late = now + MAX_IDLE + timedelta(seconds=1)
    assert sessions.find(used, now=late) is not None
    assert sessions.find(idle, now=late) is None
    sessions.open(key.id, now=late)
    with store.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar() == 2


def test_the_token_itself_is_not_in_the_database(store, sessions, now):
    token = sessions.open(keys.create(store, "bob", now=now).key.id, now=now)
    with store.read() as connection:
        assert token not in str(connection.exec_driver_sql("SELECT * FROM sessions").all())


def test_a_session_ends_when_its_key_expires_or_may_no_longer_see_the_page(store, now):
    key = keys.create(store, "laptop", now=now, expires_at=now + timedelta(hours=1)).key
    token = Sessions(store).open(key.id, now=now)
    assert Sessions(store).find(token, now=now) is not None
    assert Sessions(store).find(token, now=now + timedelta(hours=1)) is None
    keys.edit(store, "laptop", scopes=["infer"], expires_at=None)
    assert Sessions(store).find(token, now=now) is None
