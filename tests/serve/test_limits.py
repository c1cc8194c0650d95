"""Limits of keys, on every wire: reserved, settled, and refused with the time to come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from chaku.engines.base import Answer, Call, State, Status
from chaku.engines.scripted import Reply, Script, ScriptedEngine
from chaku.errors import EngineError
from chaku.policies import Limits, Price
from chaku.serve.endpoints import ENDPOINTS
from chaku.serve.limits import estimate
from chaku.store import keys
from chaku.store.counters import Charge, Counters, Standing
from chaku.store.database import Store, open_store
from chaku.store.keyring import KeyRing
from chaku.store.tables import rate_counters
from gateways import Running, chat, gateway, scripted

WIRES: dict[str, Callable[[], dict[str, Any]]] = {
    "/v1/chat/completions": lambda: chat(max_tokens=8),
    "/v1/completions": lambda: {"model": "scripted", "prompt": "hello", "max_tokens": 8},
    "/v1/messages": lambda: {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
    "/v1/messages/count_tokens": lambda: {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": lambda: {"model": "scripted", "input": "hi", "max_output_tokens": 16, "store": False},
    "/ollama/api/chat": lambda: {
        "model": "scripted",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
        "options": {"num_predict": 8},
    },
    "/ollama/api/generate": lambda: {
        "model": "scripted",
        "prompt": "hi",
        "stream": False,
        "options": {"num_predict": 8},
    },
    "/score": lambda: {"input_data": {"input_string": ["hi"], "parameters": {"max_new_tokens": 8}}},
}
"""A short request for every inference path that the scripted engine has: all but embeddings."""


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{database}") as opened:
        yield opened


@asynccontextmanager
async def limited(store: Store, *engines: Any, **options: Any) -> AsyncIterator[tuple[Running, dict[str, str], str]]:
    """A gateway, the headers of a key with these limits, and its id."""
    counters = options.pop("counters", None) or Counters(store)
    config = {name: options.pop(name) for name in list(options) if name in ("prices", "model", "score_model")}
    new = keys.create(store, "laptop", now=datetime.now(UTC), limits=Limits(**options))
    ring = KeyRing(store)
    async with gateway(*engines, keys=ring, counters=counters, **config) as running:
        yield running, {"authorization": f"Bearer {new.token}"}, new.key.id


def used(store: Store, key_id: str, kind: str) -> float:
    """What is used of a limit of a thousand, without adding to it."""
    return Counters(store).reserve(key_id, {kind: Charge(0, 1000)}).levels[kind].used


@pytest.mark.parametrize("path", WIRES)
async def test_a_limit_on_requests_holds_on_every_wire(store: Store, path: str) -> None:
    async with limited(store, requests_per_minute=1) as (g, headers, _):
        status, first, answered = await g.post(path, WIRES[path](), headers=headers)
        assert status == 200, first
        assert answered["x-ratelimit-limit-requests"] == "1"
        assert answered["x-ratelimit-remaining-requests"] == "0"
        status, refused, answered = await g.post(path, WIRES[path](), headers=headers)
    assert status == 429, refused
    assert 1 <= int(answered["retry-after"]) <= 60
    assert answered["x-ratelimit-remaining-requests"] == "0"
    assert "1 requests per minute" in str(refused["error"])
    assert [exchange.status for exchange in g.exchanges] == [200, 429]


def test_every_wire_is_among_those_tested() -> None:
    counted = {row.path for row in ENDPOINTS if row.wire is not None and row.scope != "fastchat"}  # which has no keys
    assert counted == {*WIRES, "/v1/embeddings", "/ollama/api/embed"}


async def test_tokens_are_settled_by_the_engine_s_count(store: Store) -> None:
    async with limited(store, scripted(Reply(text="one two")), tokens_per_day=1000) as (g, headers, key_id):
        status, answer, _ = await g.post("/v1/chat/completions", chat(max_tokens=500), headers=headers)
        assert status == 200
        assert used(store, key_id, "tokens_per_day") == answer["usage"]["total_tokens"]
        request = chat(max_tokens=500, stream=True)
        async with g.http.post(g.url + "/v1/chat/completions", json=request, headers=headers) as response:
            assert "[DONE]" in await response.text()
            assert int(response.headers["x-ratelimit-remaining-tokens"]) < 1000
        assert used(store, key_id, "tokens_per_day") == 2 * answer["usage"]["total_tokens"]


def in_table(store: Store) -> list[float]:
    """What the database has of all counters, once they are counted."""
    with store.read() as connection:
        return list(connection.execute(sa.select(rate_counters.c.used)).scalars())


class SlowCounters(Counters):
    """Counters in a database that takes a while to write."""

    def settle(self, *arguments: Any) -> None:
        time.sleep(0.3)
        super().settle(*arguments)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_the_whole_answer_finds_it_settled(store: Store, stream: bool) -> None:
    engine = scripted(Reply(text="one two"))
    async with limited(store, engine, tokens_per_day=510, counters=SlowCounters(store)) as (g, headers, _):
        for _ in range(2):  # a reservation that still stood would refuse the second
            request = chat(max_tokens=500, stream=stream)
            async with g.http.post(g.url + "/v1/chat/completions", json=request, headers=headers) as response:
                assert response.status == 200, await response.text()
                await response.read()


async def test_what_no_waiting_makes_possible_is_refused_by_name(store: Store) -> None:
    async with limited(store, tokens_per_minute=100) as (g, headers, _):
        status, refused, _ = await g.post("/v1/chat/completions", chat(max_tokens=500), headers=headers)
    assert (status, refused["error"]["code"]) == (400, "rate_limit_exceeded")
    assert "100 tokens per minute" in refused["error"]["message"]


async def test_a_caller_who_hangs_up_keeps_the_debt(store: Store) -> None:
    slow = scripted(Reply(text="word " * 200, token_delay_s=0.02))
    async with limited(store, slow, tokens_per_day=1000) as (g, headers, key_id):
        request = chat(max_tokens=400, stream=True)
        async with g.http.post(g.url + "/v1/chat/completions", json=request, headers=headers) as response:
            await response.content.readany()
        async with asyncio.timeout(60):
            while not g.exchanges:
                await asyncio.sleep(0.01)
        assert g.exchanges[0].status == 499
        assert used(store, key_id, "tokens_per_day") >= 400


async def test_a_caller_who_leaves_while_the_database_counts_owes_nothing(store: Store) -> None:
    begun, may_count = threading.Event(), threading.Event()

    class Busy(Counters):
        def reserve(self, *arguments: Any) -> Standing:
            begun.set()
            assert may_count.wait(60)
            return super().reserve(*arguments)

    async with limited(store, tokens_per_day=1000, counters=Busy(store)) as (g, headers, _):
        asking = asyncio.create_task(g.post("/v1/chat/completions", chat(max_tokens=400), headers=headers))
        await asyncio.to_thread(begun.wait, 60)
        asking.cancel()
        async with asyncio.timeout(60):
            while not g.exchanges:
                await asyncio.sleep(0.01)
        assert g.exchanges[0].status == 499 and not g.exchanges[0].is_asked
        may_count.set()
        async with asyncio.timeout(60):
            while not (counted := in_table(store)) or counted[0]:
                await asyncio.sleep(0.01)


class Dying(ScriptedEngine):
    """Goes down with its first call."""

    state = State.READY
    comes_back = False

    def status(self) -> Status:
        return Status(self.state, "as the test says")

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        self.state = State.RESTARTING if self.comes_back else State.FAILED
        raise EngineError("gone in this moment")
        yield


@pytest.mark.parametrize("comes_back", [False, True], ids=["in the queue of a fallback", "until a replica is back"])
async def test_a_caller_who_leaves_after_a_failure_while_nothing_runs_owes_nothing(
    store: Store, comes_back: bool
) -> None:
    main = Dying("scripted", Script())
    main.comes_back = comes_back
    spare = ScriptedEngine("spare", Script(slots=1))
    async with limited(store, main, spare, tokens_per_day=1000, model={"fallback": "spare"}) as (g, headers, key_id):
        admission = g.serving.table.find("spare").admission
        async with admission.hold(1):
            asking = asyncio.create_task(g.post("/v1/chat/completions", chat(max_tokens=400), headers=headers))
            async with asyncio.timeout(60):
                while main.state is State.READY or not (comes_back or admission.num_waiting):
                    await asyncio.sleep(0.01)
            asking.cancel()
            async with asyncio.timeout(60):
                while not g.exchanges:
                    await asyncio.sleep(0.01)
        assert g.exchanges[0].status == 499
        assert used(store, key_id, "tokens_per_day") == 0


async def test_a_request_that_no_engine_answered_costs_no_tokens(store: Store) -> None:
    broken = scripted(Reply(text="", fault="refuse"))
    async with limited(store, broken, tokens_per_day=1000, requests_per_minute=5) as (g, headers, key_id):
        status, _, _ = await g.post("/v1/chat/completions", chat(max_tokens=500), headers=headers)
        assert status >= 500
        assert used(store, key_id, "tokens_per_day") == 0


async def test_a_limit_in_dollars_counts_at_the_model_s_price(store: Store) -> None:
    price = {"scripted": {"prompt": 1_000_000, "completion": 2_000_000}}
    async with limited(store, scripted(Reply(text="one two")), dollars_per_month=30, prices=price) as (g, headers, key):
        status, answer, _ = await g.post("/v1/chat/completions", chat(max_tokens=5), headers=headers)
        assert status == 200, answer
        usage = answer["usage"]
        dollars = usage["prompt_tokens"] + 2 * usage["completion_tokens"]
        assert g.exchanges[0].dollars == pytest.approx(dollars)
        assert used(store, key, "dollars_per_month") == pytest.approx(dollars)
        refusals = [await g.post("/v1/chat/completions", chat(max_tokens=5), headers=headers) for _ in range(9)]
    assert refusals[-1][0] == 429
    assert "dollars per month" in refusals[-1][1]["error"]["message"]


ASKS_FOR: dict[str, Callable[[], dict[str, Any]]] = {
    **WIRES,
    "/v1/embeddings": lambda: {"model": "scripted", "input": "hi"},
    "/ollama/api/embed": lambda: {"model": "scripted", "input": "hi"},
    "/ollama/api/show": lambda: {"model": "scripted"},
    "/v1/models/": dict,
}
"""A short request for every path where a caller names a model."""


async def ask_for(g: Running, headers: dict[str, str], path: str, model: str) -> tuple[int, str]:
    """Status and body of a request for a model."""
    if path == "/v1/models/":
        async with g.http.get(g.url + path + model, headers=headers) as response:
            return response.status, await response.text()
    body = ASKS_FOR[path]()
    named = {"azureml-model-deployment": model} if path == "/score" else {}
    sent = body if named else body | {"model": model}
    async with g.http.post(g.url + path, json=sent, headers=headers | named) as response:
        return response.status, await response.text()


async def test_a_key_asks_and_sees_its_models_only(store: Store) -> None:
    async with limited(store, scripted(name="one"), scripted(name="two"), models=("one",)) as (g, headers, _):
        assert (await g.post("/v1/chat/completions", chat() | {"model": "one"}, headers=headers))[0] == 200
        async with g.http.get(g.url + "/v1/models", headers=headers) as response:
            assert [row["id"] for row in (await response.json())["data"]] == ["one"]
        for path in ASKS_FOR:
            exists, absent = await ask_for(g, headers, path, "two"), await ask_for(g, headers, path, "six")
            assert exists[0] == 404 and "models here: one" in exists[1], path
            assert exists == (absent[0], absent[1].replace("six", "two")), path


async def test_a_request_without_a_model_goes_to_the_one_that_its_key_may_ask(store: Store) -> None:
    engines = scripted(name="one"), scripted(name="two")
    async with limited(store, *engines, models=("one",), score_model="two") as (g, headers, _):
        status, answer, _ = await g.post("/score", WIRES["/score"](), headers=headers)
    assert status == 200, answer
    assert [exchange.model for exchange in g.exchanges] == ["one"]


class Down(ScriptedEngine):
    """Down, once a test says so."""

    is_down = False

    def status(self) -> Status:
        return Status(State.RESTARTING, "as the test says") if self.is_down else super().status()


@pytest.mark.parametrize(
    ("models", "status", "named"),
    [(("main",), 503, "main"), (("spare",), 404, "main"), (("main", "spare"), 200, "spare")],
)
async def test_a_key_gets_a_fallback_only_where_it_may_ask_both(
    store: Store, models: tuple[str, ...], status: int, named: str
) -> None:
    main, spare = Down("main", Script()), scripted(name="spare")
    async with limited(store, main, spare, models=models, model={"fallback": "spare"}) as (g, headers, _):
        main.is_down = True
        got, answer, _ = await g.post("/v1/chat/completions", chat() | {"model": "main"}, headers=headers)
        assert got == status, answer
        assert named in (answer["model"] if status == 200 else answer["error"]["message"])
        assert len(g.exchanges) == (status != 404)  # what is not found is not booked


async def test_an_answer_is_no_longer_than_the_key_allows(store: Store) -> None:
    async with limited(store, scripted(Reply(text="word " * 50)), max_tokens=10) as (g, headers, _):
        status, refused, _ = await g.post("/v1/chat/completions", chat(max_tokens=11), headers=headers)
        assert (status, refused["error"]["param"]) == (400, "max_tokens")
        status, answer, _ = await g.post("/v1/chat/completions", chat(), headers=headers)
    assert answer["usage"]["completion_tokens"] <= 10
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_an_expired_key_is_refused_and_keeps_the_door_closed(store: Store) -> None:
    now = datetime.now(UTC)
    new = keys.create(store, "old", now=now, expires_at=now - timedelta(seconds=1))
    async with gateway(keys=KeyRing(store), counters=Counters(store)) as g:
        headers = {"authorization": f"Bearer {new.token}"}
        status, refused, _ = await g.post("/v1/chat/completions", chat(), headers=headers)
        assert (status, refused["error"]["code"]) == (401, "api_key_expired")
        assert (await g.post("/v1/chat/completions", chat()))[0] == 401


async def test_the_official_client_waits_for_as_long_as_it_is_told(store: Store) -> None:
    async with limited(store, requests_per_minute=1) as (g, headers, _):
        token = headers["authorization"].removeprefix("Bearer ")
        async with openai.AsyncOpenAI(base_url=g.url + "/v1", api_key=token, max_retries=0) as client:
            raw = await client.chat.completions.with_raw_response.create(**chat())
            assert raw.headers["x-ratelimit-limit-requests"] == "1"
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**chat())
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 1


async def test_without_the_database_a_limited_key_is_refused_with_503(store: Store, monkeypatch: Any) -> None:
    async with limited(store, requests_per_minute=5) as (g, headers, _):
        from chaku.errors import StoreError

        def away(self: Counters, subject: str, charges: Any) -> None:
            raise StoreError("away")

        monkeypatch.setattr(Counters, "reserve", away)
        status, refused, answered = await g.post("/v1/chat/completions", chat(), headers=headers)
    assert (status, refused["error"]["code"], answered["retry-after"]) == (503, "store_unavailable", "5")


@given(st.recursive(st.text() | st.integers(0, 9), lambda inner: st.lists(inner, max_size=4), max_leaves=10))
def test_an_estimate_is_made_of_any_prompt(prompt: Any) -> None:
    num_prompt, num_answer = estimate("completions", {"prompt": prompt}, 2)
    assert num_prompt >= 0
    assert num_answer == 1024


def test_an_image_is_not_counted_by_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}], "max_tokens": 1}
    assert estimate("chat", body, 1)[0] < 1100


def test_cached_tokens_have_a_price_of_their_own() -> None:
    assert Price(prompt=10, cached=1, completion=20).dollars(1_000_000, 500_000, 400_000) == pytest.approx(16.4)
    assert Price(prompt=10, completion=0).dollars(1_000_000, 0, 400_000) == pytest.approx(10)
