"""The Keys screen's routes: admins list, create and revoke keys; nobody else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chaku.store import keys
from chaku.store.database import open_store
from chaku.store.keyring import KeyRing
from gateways import page_gateway
from tabs import Refused, tab


async def test_an_admin_lists_creates_and_revokes_keys_and_others_do_not(database: Path) -> None:
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{database}") as store:
        boss = keys.create(store, "boss", now=now - timedelta(days=2), scopes=["admin"])
        ann = keys.create(store, "ann", now=now - timedelta(days=1))
        async with page_gateway(database) as g, tab(g, boss.token) as me, tab(g, ann.token) as other:
            assert (await me.call("GET", "/session"))["sees_keys"] is True
            assert (await other.call("GET", "/session"))["sees_keys"] is False
            asked = {"name": "demo", "scopes": ["infer"], "expires_in_days": 3, "tokens_per_day": 1000}
            made = await me.call("POST", "/keys", asked)
            assert KeyRing(store).find(made["token"]).limits.tokens_per_day == 1000
            rows = (await me.call("GET", "/keys"))["keys"]
            assert [(row["name"], row["state"]) for row in rows] == [
                ("boss", "active"), ("ann", "active"), ("demo", "active"),
            ]  # fmt: skip
            assert made["token"] not in str(rows) and rows[2]["limits"] == {"tokens_per_day": 1000}
            await me.call("DELETE", f"/keys/{made['key']['id']}")
            assert (await me.call("GET", "/keys"))["keys"][2]["state"] == "revoked"
            assert KeyRing(store).find(made["token"]) is None
            calls = (("GET", "/keys", None), ("POST", "/keys", asked), ("DELETE", f"/keys/{boss.key.id}", None))
            for method, path, body in calls:
                with pytest.raises(Refused) as refused:
                    await other.call(method, path, body)
                assert refused.value.status == 403
