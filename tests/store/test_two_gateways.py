"""Two gateways over one database, of each kind: limits of a key hold for both, and no request of a batch runs twice."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from openai import AsyncOpenAI

from chaku.engines.scripted import Reply
from chaku.policies import Limits
from chaku.serve.batches import runner
from chaku.store import keys
from chaku.store.counters import Counters
from chaku.store.database import open_store
from chaku.store.keyring import KeyRing
from gateways import CHAT, chat, gateway, page_gateway, scripted
from processes import PATIENCE_S


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


async def test_two_gateways_run_each_request_of_a_batch_once(url, monkeypatch):
    monkeypatch.setattr(runner, "MAX_BATCHES", 1)  # so that neither claims all of them
    monkeypatch.setattr(runner, "LOOK_EVERY_S", 0.1)
    slow = Reply(text="You said: {prompt}", delay_s=0.02)
    lines = [{"custom_id": str(n), "method": "POST", "url": CHAT, "body": chat(f"n{n}")} for n in range(15)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    async with (
        page_gateway(url, scripted(slow), lease_s=30) as one,
        page_gateway(url, scripted(slow), lease_s=30) as two,
        AsyncOpenAI(base_url=f"{one.url}/v1", api_key="any", max_retries=0) as first,
        AsyncOpenAI(base_url=f"{two.url}/v1", api_key="any", max_retries=0) as second,
    ):
        begun = []
        for client in (first, second) * 2:
            file = await client.files.create(file=("in.jsonl", content), purpose="batch")
            begun.append(await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"))
        async with asyncio.timeout(PATIENCE_S):
            for batch in begun:
                while (done := await first.batches.retrieve(batch.id)).status != "completed":
                    await asyncio.sleep(0.05)
                written = (await second.files.content(done.output_file_id)).text.splitlines()
                assert [json.loads(line)["custom_id"] for line in written] == [str(n) for n in range(15)]
    assert len(one.exchanges) + len(two.exchanges) == 60
    assert one.exchanges and two.exchanges, "one gateway ran everything"
