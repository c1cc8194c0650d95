import sqlite3
import time
from datetime import timedelta

import pytest

from chaku.errors import InvalidRequest, NotFound
from chaku.policies import Limits
from chaku.store import keys
from chaku.store.database import Store, open_store
from chaku.store.keyring import KeyRing
from processes import PATIENCE_S, run_python


def eventually(claim, timeout_s: float = PATIENCE_S) -> float:
    """Seconds until the claim held."""
    began = time.monotonic()
    while not claim():
        assert time.monotonic() - began < timeout_s, "it never held"
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_token_has_256_random_bits_and_opens_the_door(store, now):
    new = keys.create(store, "laptop", now=now)
    other = keys.create(store, "phone", now=now)
    assert new.token.startswith("ck-") and len(new.token) == 3 + 43
    assert new.token != other.token
    ring = KeyRing(store)
    assert ring.find(new.token) == ring.find(new.token.encode()) == new.key
    assert ring.find(other.token) == other.key
    assert ring.num_active == 2


@pytest.mark.parametrize("wrong", ["", "ck-", "sk-123", b"\xff\xfe", "\ud800", "ck-" + "A" * 43])
def test_a_wrong_token_opens_nothing(store, now, wrong):
    keys.create(store, "laptop", now=now)
    assert KeyRing(store).find(wrong) is None


def test_the_token_is_nowhere_in_the_database_nor_in_a_repr(tmp_path, now):
    with open_store(f"sqlite:///{tmp_path / 'chaku.db'}") as store:
        new = keys.create(store, "laptop", now=now)
        secret = new.token.removeprefix(new.key.prefix)
        assert secret not in repr(new)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert new.key.prefix.encode() in stored
    assert secret.encode() not in stored


def test_keys_are_listed_oldest_first_with_the_revoked_ones(store, now):
    first = keys.create(store, "first", now=now).key
    second = keys.create(store, "second", now=now + timedelta(seconds=1)).key
    revoked = keys.revoke(store, "first", now=now + timedelta(seconds=2))
    assert revoked.revoked_at == now + timedelta(seconds=2)
    assert keys.list_keys(store) == [revoked, second]
    assert revoked.id == first.id


@pytest.mark.parametrize("by", ["name", "id", "prefix", "token"])
def test_a_key_is_revoked_by_name_id_prefix_or_the_token_itself(store, now, by):
    new = keys.create(store, "laptop", now=now)
    kept = keys.create(store, "phone", now=now)
    which = {"name": "laptop", "id": new.key.id, "prefix": new.key.prefix[:-1], "token": new.token}[by]
    assert keys.revoke(store, which, now=now).id == new.key.id
    ring = KeyRing(store)
    assert ring.find(new.token) is None
    assert ring.find(kept.token) == kept.key
    assert ring.num_active == 1


def test_revoking_what_is_not_there_suggests_the_nearest_name_and_never_repeats_a_token(store, now):
    new = keys.create(store, "laptop", now=now)
    with pytest.raises(NotFound, match="no active key 'labtop': did you mean laptop"):
        keys.revoke(store, "labtop", now=now)
    keys.revoke(store, "laptop", now=now)
    with pytest.raises(NotFound) as caught:
        keys.revoke(store, new.token, now=now)
    assert new.token not in str(caught.value)


def test_a_prefix_that_fits_two_keys_revokes_neither(store, now, monkeypatch):
    tokens = iter(["abcdefgh", "abcdxyz1"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: next(tokens))
    keys.create(store, "one", now=now)
    keys.create(store, "two", now=now)
    with pytest.raises(InvalidRequest, match="fits 2 keys: one, two"):
        keys.revoke(store, "ck-abcd", now=now)
    assert KeyRing(store).num_active == 2


def test_two_active_keys_never_share_a_name_but_a_revoked_name_is_free_again(store, now):
    keys.create(store, "laptop", now=now)
    with pytest.raises(InvalidRequest, match="active key named 'laptop'"):
        keys.create(store, "laptop", now=now)
    keys.revoke(store, "laptop", now=now)
    keys.create(store, "laptop", now=now)
    assert [key.revoked_at is None for key in keys.list_keys(store)].count(True) == 1


@pytest.mark.parametrize("name", ["", " ", " x", "a\nb", "x" * 65, "ck-" + "A" * 43, "nul\0"])
def test_a_name_that_can_not_be_shown_or_may_be_a_token_is_refused(store, now, name):
    with pytest.raises(InvalidRequest) as caught:
        keys.create(store, name, now=now)
    assert caught.value.param == "name"
    assert keys.list_keys(store) == []


def test_keys_made_and_revoked_by_another_process_are_felt_within_a_second(url, now):
    code = """
import sys
from datetime import UTC, datetime
from chaku.store import keys
from chaku.store.database import open_store
with open_store(sys.argv[1]) as store:
    print(keys.create(store, "other", now=datetime.now(UTC)).token, flush=True)
    sys.stdin.readline()
    keys.revoke(store, "other", now=datetime.now(UTC))
    print("revoked", flush=True)
"""
    with open_store(url) as store, KeyRing(store) as ring:
        assert ring.num_active == 0
        other = run_python(code, url)
        token = other.stdout.readline().strip()
        assert eventually(lambda: ring.find(token)) < 1
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "revoked\n"
        assert eventually(lambda: ring.find(token) is None) < 1
        assert ring.num_active == 0
        _, errors = other.communicate(timeout=PATIENCE_S)
        assert other.returncode == 0, errors


def test_a_refresh_finds_a_new_key_at_once(store, now):
    ring = KeyRing(store)
    new = keys.create(store, "laptop", now=now)
    assert ring.find(new.token) is None
    ring.refresh()
    assert ring.find(new.token) == new.key


def test_known_keys_go_on_working_while_the_database_is_away(sqlite_url, now, caplog):
    with open_store(sqlite_url) as store:
        new = keys.create(store, "laptop", now=now)
        with KeyRing(store, interval_s=0.01) as ring:
            with sqlite3.connect(store.engine.url.database) as broken:
                broken.execute("ALTER TABLE visitors RENAME TO elsewhere")
            eventually(lambda: ring.is_stale)
            time.sleep(0.05)  # several more failures
            assert ring.find(new.token) == new.key
            assert len([record for record in caplog.records if "can't be read" in record.message]) == 1
            with sqlite3.connect(store.engine.url.database) as repaired:
                repaired.execute("ALTER TABLE elsewhere RENAME TO visitors")
            repaired.close()
            eventually(lambda: not ring.is_stale)
        broken.close()


def test_the_store_closes_while_a_ring_still_holds_keys(store: Store, now):
    new = keys.create(store, "laptop", now=now)
    with KeyRing(store) as ring:
        pass
    store.close()
    assert ring.find(new.token) == new.key


def test_the_ring_outlives_an_unexpected_error_and_logs_it(store: Store, now, caplog, monkeypatch):
    failures = iter([RuntimeError("planted")])
    refresh = KeyRing.refresh

    def sometimes(self):
        if error := next(failures, None):
            raise error
        refresh(self)

    ring = KeyRing(store, interval_s=0.01)
    monkeypatch.setattr(KeyRing, "refresh", sometimes)
    with ring:
        eventually(lambda: "RuntimeError: planted" in caplog.text)
        new = keys.create(store, "laptop", now=now)
        eventually(lambda: ring.find(new.token) is not None)
    assert "thread=keyring" in caplog.text and not ring.is_stale


def test_a_key_ring_hears_of_edited_limits_scopes_and_expiry(store, now):
    new = keys.create(store, "laptop", now=now, limits=Limits(tokens_per_day=5, models=("a", "b")))
    ring = KeyRing(store)
    assert ring.find(new.token) == new.key == ring.with_id(new.key.id)
    later = now + timedelta(days=1)
    edited = keys.edit(store, "laptop", limits={"tokens_per_day": None, "max_tokens": 7}, expires_at=later)
    ring.refresh()
    found = ring.find(new.token)
    assert found == edited
    assert found.limits == Limits(max_tokens=7, models=("a", "b"))
    assert (found.has_expired(now), found.has_expired(later)) == (False, True)
    keys.edit(store, "laptop", scopes=["join"], expires_at=None)
    ring.refresh()
    assert (ring.find(new.token).scopes, ring.find(new.token).expires_at) == ({"join"}, None)
    assert ring.num_of_callers == 0


def test_an_expired_key_still_closes_the_door(store, now):
    keys.create(store, "laptop", now=now, expires_at=now - timedelta(days=1))
    assert KeyRing(store).num_of_callers == 1
