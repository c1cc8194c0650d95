"""Limits hold for a key however many gateways its requests go to, the page's requests among them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from chaku.policies import Limits
from chaku.store import keys
from chaku.store.counters import Counters
from chaku.store.database import open_store
from chaku.store.keyring import KeyRing
from gateways import chat, gateway


async def test_two_gateways_and_the_page_share_the_limits_of_a_key(store, url):
    limits = Limits(requests_per_minute=7, tokens_per_day=100_000)
    new = keys.create(store, "laptop", now=datetime.now(UTC), limits=limits)
    with open_store(url) as another:
        async with (
            gateway(keys=KeyRing(store), counters=Counters(store)) as first,
            gateway(keys=KeyRing(another), counters=Counters(another)) as second,
        ):
            answers = await asyncio.gather(
                *(
                    running.post("/v1/chat/completions", chat(), headers={"authorization": f"Bearer {token}"})
                    for running in (first, second)
                    for token in (new.token, running.serving.access.inside_token(new.key.id))
                    for _ in range(4)
                )
            )
    statuses = sorted(status for status, _, _ in answers)
    assert statuses == [200] * 7 + [429] * 9
