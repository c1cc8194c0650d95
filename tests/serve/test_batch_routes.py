"""Files and batches: OpenAI's own client sends them, and each request is answered once, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import AsyncOpenAI

from chaku.batch import BadLine, request_of
from chaku.engines.scripted import Reply
from chaku.policies import Limits
from chaku.serve.batches import input as batch_input
from chaku.serve.batches import runner
from chaku.serve.batches.input import faults_of
from chaku.store import keys
from chaku.store.batches import Batches
from chaku.store.database import open_store
from chaku.store.tables import batches
from chaku_server import serving
from gateways import chat, page_gateway, scripted
from processes import PATIENCE_S

CHAT = "/v1/chat/completions"


def line(custom_id: str, text: str = "hello", url: str = CHAT, **fields: Any) -> dict[str, Any]:
    """A line for a chat."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": chat(text, **fields)}


def jsonl(*rows: Any) -> bytes:
    """Rows as a file; text as it is."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


@contextlib.asynccontextmanager
async def as_openai(url: str, key: str = "any") -> AsyncIterator[AsyncOpenAI]:
    """The official client."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60) as client:
        yield client


async def begin(client: AsyncOpenAI, content: bytes, endpoint: Any = CHAT, **fields: Any) -> Any:
    """Upload a file and make a batch of it."""
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields)


async def until(client: AsyncOpenAI, batch_id: str, *states: str) -> Any:
    """The batch once it has one of these states."""
    deadline = time.monotonic() + PATIENCE_S
    while (batch := await client.batches.retrieve(batch_id)).status not in states:
        assert time.monotonic() < deadline, batch
        await asyncio.sleep(0.02)
    return batch


async def rows_of(client: AsyncOpenAI, file_id: str) -> list[dict[str, Any]]:
    """The lines of a file."""
    content = await client.files.content(file_id)
    return [json.loads(row) for row in content.text.splitlines()]


async def test_the_official_client_uploads_runs_reads_and_deletes(database: Path) -> None:
    async with page_gateway(database) as g, as_openai(g.url) as client:
        begun = await begin(
            client,
            jsonl(line("a", "one"), line("b", "two", temprature=1), line("c", "three"), line("d", model="nobody")),
            metadata={"who": "me"},
        )
        done = await until(client, begun.id, "completed")
        written = await rows_of(client, done.output_file_id)
        refused = await rows_of(client, done.error_file_id)
        listed = [file.id async for file in client.files.list(order="asc", limit=1)]
        uploaded = await client.files.retrieve(done.input_file_id)
        assert [batch.id async for batch in client.batches.list(limit=1)] == [begun.id]
        assert (await client.files.delete(done.input_file_id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(done.input_file_id)
        assert {exchange.model for exchange in g.exchanges if exchange.status == 200} == {"scripted"}
    assert begun.status == "validating" and begun.metadata == {"who": "me"}
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (4, 2, 2)
    assert begun.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at < done.expires_at
    assert (done.failed_at, done.cancelled_at, done.errors) == (None, None, None)
    assert set(listed) == {done.input_file_id, done.output_file_id, done.error_file_id}
    assert (uploaded.filename, uploaded.purpose, uploaded.status) == ("in.jsonl", "batch", "processed")
    assert [row["custom_id"] for row in written] == ["a", "c"]
    assert [row["response"]["body"]["choices"][0]["message"]["content"] for row in written] == [
        "You said: one", "You said: three",
    ]  # fmt: skip
    assert {tuple(row) for row in written + refused} == {("id", "custom_id", "response", "error")}
    assert all(row["response"]["request_id"] and row["error"] is None for row in written + refused)
    assert [(row["custom_id"], row["response"]["status_code"]) for row in refused] == [("b", 400), ("d", 404)]
    assert refused[0]["response"]["body"]["error"]["param"] == "temprature"


async def test_completions_and_responses_are_answered_too(database: Path) -> None:
    async with page_gateway(database) as g, as_openai(g.url) as client:
        for url, body, found in (
            ("/v1/completions", {"prompt": "one"}, "choices"),
            ("/v1/responses", {"input": "one", "store": False}, "output"),
        ):
            row = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "scripted", **body}}
            done = await until(client, (await begin(client, jsonl(row), url)).id, "completed")
            (answer,) = await rows_of(client, done.output_file_id)
            assert answer["response"]["body"][found]


async def test_an_input_with_bad_lines_fails_and_every_one_is_named(database: Path) -> None:
    content = jsonl(
        line("a"), "{no json", "[1]", line("a"), line("b", url="/v1/completions"), {"prompt": "short"},
        line("c", stream=True), {**line("d"), "extra": 1}, {**line("e"), "body": {"messages": []}},
    )  # fmt: skip
    async with page_gateway(database) as g, as_openai(g.url) as client:
        failed = await until(client, (await begin(client, content)).id, "failed")
        empty = await until(client, (await begin(client, b"\n")).id, "failed")
        assert not g.exchanges
    assert [(fault.line, fault.code) for fault in failed.errors.data] == [
        (2, "invalid_json_line"), (3, "invalid_json_line"), (4, "duplicate_custom_id"), (5, "mismatched_url"),
        (6, "missing_required_parameter"), (7, "invalid_request_line"), (8, "invalid_request_line"),
        (9, "missing_required_parameter"),
    ]  # fmt: skip
    assert failed.failed_at and failed.output_file_id is None
    assert [fault.code for fault in empty.errors.data] == ["empty_file"]


def test_no_bad_line_is_lost_and_no_list_of_them_grows_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    faults, num_requests = faults_of(b"x\n" * 5000, CHAT)
    assert (len(faults), num_requests) == (1001, 5000)
    assert "4,000 more" in faults[-1]["message"]
    monkeypatch.setattr(batch_input, "MAX_REQUESTS", 2)
    faults, _ = faults_of(jsonl(line("a"), line("b"), "a line that is only counted"), CHAT)
    assert [fault["code"] for fault in faults] == ["too_many_requests"]


@pytest.mark.parametrize(
    ("inside", "why"),
    [(b"[]," * 30_000, "arrays and objects"), (b"1," * 400_000, "values"), (b" " * (33 << 20), "over 32 MiB")],
)
def test_a_line_that_would_cost_much_is_never_parsed(inside: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_input, "request_of", None)
    ((fault,), _) = faults_of(b'{"body":{"messages":[' + inside + b"1]}}", CHAT)
    assert fault["code"] == "invalid_json_line"
    assert why in fault["message"]


async def test_each_owner_sees_only_what_is_the_owners(database: Path) -> None:
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{database}") as store:
        tokens = [keys.create(store, name, now=now, scopes=["infer"]).token for name in ("ann", "bob")]
    async with page_gateway(database) as g, as_openai(g.url, tokens[0]) as ann, as_openai(g.url, tokens[1]) as bob:
        done = await until(ann, (await begin(ann, jsonl(line("a")))).id, "completed")
        assert [exchange.key_id is not None for exchange in g.exchanges] == [True]
        for file_id in (done.input_file_id, done.output_file_id):
            for call in (bob.files.retrieve, bob.files.content, bob.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await call(file_id)
        for call in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await call(done.id)
        with pytest.raises(openai.NotFoundError):
            await bob.batches.create(input_file_id=done.input_file_id, endpoint=CHAT, completion_window="24h")
        assert (await bob.files.list()).data == [] and (await bob.batches.list()).data == []
        assert len((await ann.files.list()).data) == 2


async def test_a_batch_counts_towards_the_limits_of_its_key_and_waits_for_them(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        limits = Limits(requests_per_minute=600)
        token = keys.create(store, "ann", now=datetime.now(UTC), scopes=["infer"], limits=limits).token
        tight = keys.create(
            store, "bob", now=datetime.now(UTC), scopes=["infer"], limits=Limits(requests_per_minute=1)
        ).token
    async with page_gateway(database) as g, as_openai(g.url, token) as ann, as_openai(g.url, tight) as bob:
        waiting = await begin(bob, jsonl(line("a"), line("b"), line("c")))
        done = await until(ann, (await begin(ann, jsonl(line("a"), line("b")))).id, "completed")
        assert done.request_counts.completed == 2  # bob's wait did not hold ann's up
        stopped = await bob.batches.cancel(waiting.id)
        assert stopped.status == "cancelling"
        cancelled = await until(bob, waiting.id, "cancelled")
        answered = await rows_of(bob, cancelled.output_file_id)
    assert (cancelled.request_counts.completed, cancelled.request_counts.failed) == (1, 0)
    assert len(answered) == 1 and cancelled.cancelling_at <= cancelled.cancelled_at


async def test_batches_of_a_key_at_its_limit_leave_their_places_to_others(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_BATCHES", 1)
    monkeypatch.setattr(runner, "LOOK_EVERY_S", 0.05)
    with open_store(f"sqlite:///{database}") as store:
        now, tight = datetime.now(UTC), Limits(requests_per_minute=1)
        bobs = keys.create(store, "bob", now=now, scopes=["infer"], limits=tight).token
        anns = keys.create(store, "ann", now=now, scopes=["infer"]).token
    async with page_gateway(database) as g, as_openai(g.url, bobs) as bob, as_openai(g.url, anns) as ann:
        waiting = [await begin(bob, jsonl(line("a"), line("b"))) for _ in range(2)]
        await until(bob, waiting[0].id, "in_progress")
        await until(ann, (await begin(ann, jsonl(line("a")))).id, "completed")
        for batch in waiting:  # at once, and not when its rest is over
            await bob.batches.cancel(batch.id)
            cancelled = await until(bob, batch.id, "cancelled")
            assert cancelled.request_counts.completed + cancelled.request_counts.failed <= 1


async def test_a_revoked_key_ends_its_batch(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        limits = Limits(requests_per_minute=1)
        token = keys.create(store, "ann", now=datetime.now(UTC), scopes=["infer"], limits=limits).token
        other = keys.create(store, "bob", now=datetime.now(UTC), scopes=["infer"]).token
    async with page_gateway(database) as g, as_openai(g.url, token) as ann:
        begun = await begin(ann, jsonl(line("a"), line("b"), line("c")))
        await until(ann, begun.id, "in_progress")
        with open_store(f"sqlite:///{database}") as store:
            keys.revoke(store, "ann", now=datetime.now(UTC))
            owned = Batches(store, lease_s=5)
            deadline = time.monotonic() + PATIENCE_S
            with store.read() as connection:
                owner = connection.execute(sa.select(batches.c.owner_id)).scalar_one()
            while not (batch := owned.get(owner, begun.id)).is_over:
                assert time.monotonic() < deadline, batch
                await asyncio.sleep(0.05)
        async with as_openai(g.url, other) as bob:
            assert (await bob.batches.list()).data == []
    assert (batch.state, batch.errors[0]["code"]) == ("failed", "invalid_api_key")
    assert batch.num_failed == 0  # no line got a 401 as its answer


async def test_batches_take_only_slots_that_nobody_wants(database: Path) -> None:
    gate = scripted(Reply(text="slow", delay_s=0.2), slots=2)
    async with page_gateway(database, gate, batch_parallel=8) as g, as_openai(g.url) as client:
        served = next(iter(g.serving.table))
        begun = await begin(client, jsonl(*(line(str(n)) for n in range(12))))
        most = 0
        while (await client.batches.retrieve(begun.id)).status != "completed":
            most = max(most, served.admission.num_waiting)
            await asyncio.sleep(0.01)
    assert most <= 1  # eight that ran at once would have left six in the queue


async def test_a_gateway_without_turns_leaves_batches_alone_and_one_that_keeps_nothing_refuses_files(
    database: Path,
) -> None:
    async with page_gateway(database, batch_parallel=0) as g, as_openai(g.url) as client:
        begun = await begin(client, jsonl(line("a")))
        assert (await client.batches.retrieve(begun.id)).status == "validating"
        with pytest.raises(openai.ConflictError, match=begun.id):
            await client.files.delete(begun.input_file_id)
    async with page_gateway(database, keep=False) as g, as_openai(g.url) as client:
        for call in (begin(client, b"{}"), client.batches.retrieve(begun.id), client.files.list()):
            with pytest.raises(openai.PermissionDeniedError, match="--no-keep"):
                await call
        assert (await client.chat.completions.create(**chat())).choices


async def test_a_form_that_is_not_a_batch_file_is_refused_by_name(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chaku.serve.batches import routes
    from chaku.store import files as stored

    async with page_gateway(database) as g, as_openai(g.url) as client:
        with pytest.raises(openai.BadRequestError, match="purpose must be batch"):
            await client.files.create(file=b"{}", purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match="expires_after"):
            await client.files.create(
                file=b"{}", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
            )
        async with g.http.post(f"{g.url}/v1/files", json={}) as response:
            assert response.status == 415
        for torn in (b"--x\r\n", b"--x\r\nContent-Disposition: form-data; name=", b"\0" * 99):
            headers = {"content-type": "multipart/form-data; boundary=x"}
            async with g.http.post(f"{g.url}/v1/files", data=torn, headers=headers) as response:
                assert response.status == 400, await response.text()
        monkeypatch.setattr(routes, "MAX_FILE_BYTES", 1 << 20)
        with pytest.raises(openai.APIStatusError) as refused:
            await client.files.create(file=b"x" * (3 << 20), purpose="batch")
        assert refused.value.status_code == 413
        monkeypatch.setattr(stored, "MAX_STORED_BYTES", 1000)
        await client.files.create(file=b"x" * 900, purpose="batch")
        with pytest.raises(openai.APIStatusError, match="take 0 MiB at most"):
            await client.files.create(file=b"x" * 900, purpose="batch")
        for hostile in ("../../etc/passwd", 'a"\r\nx-evil: 1', "ы" * 400):
            file = await client.files.create(file=(hostile, b"x"), purpose="batch")
            content = await client.files.content(file.id)
            assert "x-evil" not in content.response.headers and "/" not in file.filename


async def test_what_is_not_done_in_time_expires_with_an_error_for_each_request(database: Path) -> None:
    async with page_gateway(database, batch_parallel=0) as g, as_openai(g.url) as client:
        begun = await begin(client, jsonl(line("a"), line("b")))
    with open_store(f"sqlite:///{database}") as store, store.write() as connection:
        connection.execute(batches.update().values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    async with page_gateway(database) as g, as_openai(g.url) as client:
        expired = await until(client, begun.id, "expired")
        rows = await rows_of(client, expired.error_file_id)
        assert not g.exchanges
    assert [(row["custom_id"], row["response"], row["error"]["code"]) for row in rows] == [
        ("a", None, "batch_expired"), ("b", None, "batch_expired"),
    ]  # fmt: skip
    assert expired.request_counts.failed == 2 and expired.output_file_id is None


def test_after_kill_9_the_next_gateway_sends_only_what_has_no_recorded_answer(tmp_path: Path) -> None:
    script = tmp_path / "slow.yaml"
    script.write_text('replies: [{text: "You said: {prompt}", delay_s: 0.05}]\n')
    from openai import OpenAI

    def call(url: str) -> OpenAI:
        return OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60)

    database = f"sqlite:///{tmp_path / 'chaku.db'}"
    with serving(tmp_path, f"scripted:{script}", "--no-ui") as first, call(first.url) as client:
        file = client.files.create(
            file=jsonl(*(line(str(n), f"n{n}", model="slow") for n in range(40))), purpose="batch"
        )
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        deadline = time.monotonic() + PATIENCE_S
        while client.batches.retrieve(batch.id).request_counts.completed < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.process.kill()
        first.process.wait(PATIENCE_S)
        with open_store(database) as store:
            recorded = len(Batches(store, lease_s=5).answered(Batches(store, lease_s=5).get(None, batch.id)))
    assert 5 <= recorded < 40
    with serving(tmp_path, f"scripted:{script}", "--no-ui") as second, call(second.url) as client:
        while (done := client.batches.retrieve(batch.id)).status != "completed":
            assert time.monotonic() < deadline + PATIENCE_S
            time.sleep(0.05)
        rows = [json.loads(row) for row in client.files.content(done.output_file_id).text.splitlines()]
        num_sent = second.log.count("answered route=chat")
    assert num_sent == 40 - recorded
    assert [row["custom_id"] for row in rows] == [str(n) for n in range(40)]
    assert done.request_counts.completed == 40


async def test_two_gateways_over_one_database_never_run_one_batch_twice(database: Path, tmp_path: Path) -> None:
    slow = Reply(text="You said: {prompt}", delay_s=0.02)
    async with (
        page_gateway(database, scripted(slow), lease_s=1) as one,
        page_gateway(database, scripted(slow), lease_s=1) as two,
        as_openai(one.url) as client,
    ):
        begun = [await begin(client, jsonl(*(line(str(n), f"{b}.{n}") for n in range(30)))) for b in range(6)]
        for batch in begun:
            done = await until(client, batch.id, "completed")
            assert done.request_counts.completed == 30
        assert len(one.exchanges) + len(two.exchanges) == 180
        assert one.exchanges and two.exchanges, "one gateway ran everything"


def test_only_openais_own_lines_are_taken_where_a_file_is_uploaded() -> None:
    assert request_of(b'{"prompt": "hi"}', 1, "m").custom_id == "line-1"
    with pytest.raises(BadLine, match="64 bits"):
        request_of(b'{"prompt": "hi", "seed": 100000000000000000000}', 1, "m")
    assert [fault["param"] for fault in faults_of(b'{"prompt": "hi"}\n', CHAT)[0]] == ["custom_id"]
