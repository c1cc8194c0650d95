"""The job that deletes old data: at the start, then every hour, whatever a round met."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chaku import tasks
from chaku.cli.gateway import retention_job
from chaku.policies import Limits
from chaku.serve.retention import EVERY_S, RetentionJob
from chaku.settings import ServeConfig
from chaku.store.conversations import Conversations
from chaku.store.database import open_store
from chaku.store.guests import Guests, list_guests
from processes import PATIENCE_S


async def test_the_job_runs_at_the_start_and_again_and_says_what_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rounds: list[datetime] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def forget(now: datetime) -> dict[str, int]:
        rounds.append(now)
        if len(rounds) == 3:
            loop.call_soon_threadsafe(done.set)
        return {"chats": len(rounds) - 1, "usage": 0}

    assert EVERY_S == 3600
    job = RetentionJob(forget, every_s=0.01)
    await job.start()
    try:
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    finally:
        await job.stop()
    told = [record.getMessage() for record in caplog.records if "old data" in record.getMessage()]
    assert told[0] == "old data deleted chats=1 usage=0"  # the first round deleted nothing and says nothing
    num_rounds = len(rounds)
    await asyncio.sleep(0.05)
    assert len(rounds) == num_rounds  # it has ended


async def test_a_guest_who_stays_away_goes_in_the_same_round_as_old_chats(database: Path) -> None:
    def given(**settings: Any) -> ServeConfig:
        return ServeConfig(retention_days={"chats": 10}, **settings)

    now = datetime.now(UTC)
    with open_store(f"sqlite:///{database}") as store:
        chats = Conversations(store, None)
        for days in (0, 20, 40):
            Guests(store, Limits()).create(now=now - timedelta(days=days))
        kept_for_ever, kept_30_days = given(guests={"keep_days": None}), given(guests=True)
        for config, num_guests in ((given(), 3), (kept_for_ever, 3), (kept_30_days, 2)):
            chats.create("old", now=now - timedelta(days=20))
            job = retention_job(config, store, store)
            await job.start()
            while chats.page(limit=1):
                await asyncio.sleep(0.01)
            await job.stop()
            assert len(list_guests(store)) == num_guests


async def test_a_round_that_fails_is_logged_and_followed_by_another(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PAUSE_S", 0.01)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    num_rounds = 0

    def forget(now: datetime) -> dict[str, int]:
        nonlocal num_rounds
        num_rounds += 1
        if num_rounds == 1:
            raise RuntimeError("planted")
        loop.call_soon_threadsafe(done.set)
        return {}

    job = RetentionJob(forget)
    await job.start()
    try:
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    finally:
        await job.stop()
    assert "planted" in caplog.text
