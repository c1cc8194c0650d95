"""What a client sees when replicas fail: before the first token nothing, after it a continued answer or an error."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.engines.base import Answer, Call, State, Status
from chaku.engines.scripted import Reply, Script, ScriptedEngine
from chaku.errors import ChakuError, EngineError, EngineUnavailable, InvalidRequest, Overloaded
from chaku.http_out import BrokenOff, NotSent, Unanswered
from chaku.serve.failover import dispatch
from chaku.serve.routing.breaker import FAILURES_TO_OPEN, OPEN_S, RESERVE, SUCCESSES_TO_CLOSE, Breaker, RetryBudget
from gateways import CHAT, Running, chat
from gateways import gateway as any_gateway

gateway = functools.partial(any_gateway, continue_answers=True)
TEXT = "one two, three  four\nfive vicuña 山 seven eight nine ten"
WORDS = len(TEXT.split())


class Mortal(ScriptedEngine):
    """Dies when a test says so: what runs there breaks off, and nothing new is taken."""

    def __init__(self, *replies: Reply, error: ChakuError | None = None, comes_back: bool = True) -> None:
        super().__init__("scripted", Script(replies=replies or (Reply(text=TEXT),), slots=32))
        self.error = error
        """Raised for each new call."""
        self.calls: list[Call] = []
        self.comes_back = comes_back
        self.is_frozen = False

    def status(self) -> Status:
        if self.is_frozen:
            return Status(State.RESTARTING if self.comes_back else State.FAILED, "as the test says")
        return super().status()

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        async with super().ask(call) as answer:
            yield answer


def good(**reply: Any) -> Mortal:
    return Mortal(Reply(text=TEXT, **reply))


def failing(error: ChakuError) -> Mortal:
    return Mortal(error=error)


def breaking(after: int) -> Mortal:
    return Mortal(Reply(text=TEXT, fault="break_off", fault_after_tokens=after))


async def streamed(g: Running, *, headers: dict[str, str] | None = None, **fields: Any) -> tuple[str, list[Any], Any]:
    """The text, the events and the headers of a stream."""
    async with g.http.post(g.url + CHAT, json=chat(stream=True, **fields), headers=headers) as response:
        assert response.status == 200, await response.text()
        events = [event.removeprefix("data: ") for event in (await response.text()).split("\n\n") if event]
        chunks = [orjson.loads(event) for event in events if event != "[DONE]"]
    text = "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk.get("choices", ()))
    return text, [*chunks, *(["[DONE]"] if events[-1] == "[DONE]" else [])], response.headers


@pytest.mark.parametrize(
    "error",
    [
        EngineError("500"), EngineUnavailable("503"), Overloaded("429"),
        NotSent("no connection"), Unanswered("reset"), BrokenOff("cut"),
    ],
)  # fmt: skip
async def test_a_failure_before_the_first_token_is_not_seen(error: ChakuError) -> None:
    bad, fine = failing(error), good()
    async with gateway(bad, fine) as g:
        while len(bad.calls) < 3:
            assert (await streamed(g))[0] == TEXT
            status, answer, _ = await g.post(CHAT, chat())
            assert (status, answer["choices"][0]["message"]["content"]) == (200, TEXT)
    assert {exchange.status for exchange in g.exchanges} == {200}
    assert sum(exchange.num_retries for exchange in g.exchanges) == len(bad.calls)
    assert not any(replica.num_running for served in g.serving.table for replica in served.replicas)


async def test_a_role_chunk_alone_is_held_back() -> None:
    async with gateway(breaking(0), good()) as g:
        for _ in range(10):
            text, chunks, _ = await streamed(g)
            assert text == TEXT
            assert sum("role" in chunk["choices"][0]["delta"] for chunk in chunks[:-1] if chunk["choices"]) == 1
    assert any(exchange.num_retries for exchange in g.exchanges)
    assert not any(exchange.num_continued for exchange in g.exchanges)


async def test_a_clients_fault_is_not_repeated() -> None:
    bad, fine = failing(InvalidRequest("no")), failing(InvalidRequest("no"))
    async with gateway(bad, fine) as g:
        status, _, _ = await g.post(CHAT, chat())
    assert (status, len(bad.calls) + len(fine.calls)) == (400, 1)


async def test_three_tries_are_the_limit_and_the_last_failure_is_told() -> None:
    engines = [failing(EngineError(f"broken {i}")) for i in range(5)]
    async with gateway(*engines) as g:
        status, answer, _ = await g.post(CHAT, chat())
    assert (status, sum(len(engine.calls) for engine in engines)) == (502, 3)
    assert "broken" in answer["error"]["message"]


async def test_unreachable_replicas_do_not_count_as_tries() -> None:
    engines = [failing(NotSent("no connection")) for _ in range(5)]
    async with gateway(*engines, good()) as g:
        for _ in range(4):
            assert (await g.post(CHAT, chat()))[0] == 200


async def test_a_continued_answer_equals_the_unbroken_one() -> None:
    bad, fine = good(), good()
    async with gateway(bad, fine) as g:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            bad.script = fine.script
            unbroken, whole_chunks, _ = await streamed(g, **options)
            for after in range(1, WORDS):
                bad.script = breaking(after).script
                bad.calls.clear()
                while not bad.calls:
                    text, chunks, _ = await streamed(g, **options)
                bad_replica = g.serving.table.find("scripted").replicas[0]
                bad_replica.breaker.succeed()
                assert text == unbroken == TEXT
                assert len({chunk["id"] for chunk in chunks[:-1]}) == 1
                finish = next(c for c in chunks[:-1] if c["choices"] and c["choices"][0]["finish_reason"])
                assert finish["chaku"] == {"continued": 1}
                assert [c.get("usage") for c in chunks[:-1]] == [c.get("usage") for c in whole_chunks[:-1]]
                assert chunks[-1] == "[DONE]"
                assert sum("role" in c["choices"][0]["delta"] for c in chunks[:-1] if c["choices"]) == 1
                assert g.exchanges[-1].num_continued == 1
                assert g.exchanges[-1].completion_tokens == WORDS


async def test_max_tokens_holds_over_both_parts() -> None:
    bad, fine = breaking(3), good()
    async with gateway(bad, fine) as g:
        while not bad.calls:
            text, chunks, _ = await streamed(g, max_tokens=6)
        assert TEXT.startswith(text)
        assert len(text.split()) == 6
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        bad.calls.clear()
        while not bad.calls:
            text, chunks, _ = await streamed(g, max_tokens=3)
        assert len(text.split()) == 3
        assert (chunks[-2]["choices"][0]["finish_reason"], chunks[-1]) == ("length", "[DONE]")


@pytest.mark.parametrize(
    ("headers", "fields", "config"),
    [
        ({"x-chaku-continue": "off"}, {}, {}),
        ({}, {}, {"continue_answers": False}),
        ({}, {"n": 2}, {}),
    ],
)
async def test_an_answer_that_may_not_be_continued_ends_with_an_error(
    headers: dict[str, str], fields: dict[str, Any], config: dict[str, Any]
) -> None:
    bad, fine = breaking(2), good()
    async with gateway(bad, fine, **config) as g:
        while not bad.calls:
            _, chunks, _ = await streamed(g, headers=headers, **fields)
        assert "error" in chunks[-1]
        assert not any(c["choices"][0]["finish_reason"] for c in chunks[:-1])


async def test_a_request_may_ask_for_it_where_the_server_does_not() -> None:
    bad, fine = breaking(2), good()
    async with gateway(bad, fine, continue_answers=False) as g:
        while not bad.calls:
            text, _, _ = await streamed(g, headers={"x-chaku-continue": "on"})
        assert text == TEXT
        status, answer, _ = await g.post(CHAT, chat(), headers={"x-chaku-continue": "maybe"})
        assert (status, answer["error"]["param"]) == (400, "x-chaku-continue")


async def test_reasoning_that_broke_off_is_not_continued() -> None:
    bad = Mortal(Reply(text=TEXT, reasoning="hm", fault="break_off", fault_after_tokens=0))
    async with gateway(bad, good()) as g:
        while not bad.calls:
            _, chunks, _ = await streamed(g)
        assert "error" in chunks[-1]


async def test_a_call_leaves_a_replica_that_is_down_and_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SILENT_S", 0.1)
    monkeypatch.setattr(dispatch, "_WATCH_EVERY_S", 0.05)
    for after in (0, 3):
        frozen = Mortal(Reply(text=TEXT, fault="hang", fault_after_tokens=after))
        async with gateway(frozen, good(token_delay_s=0.01)) as g:
            for _ in range(20):
                stream = asyncio.create_task(streamed(g))
                await asyncio.sleep(0.02)
                if frozen.calls:
                    frozen.is_frozen = True
                    break
                await stream
            async with asyncio.timeout(5):
                assert (await stream)[0] == TEXT
            assert not any(replica.num_running for replica in g.serving.table.find("scripted").replicas)


class Restarting(Mortal):
    """Dies with its first call, and is back a moment later."""

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        try:
            async with super().ask(call) as answer:
                yield answer
        except EngineError:
            self.is_frozen = True
            asyncio.get_running_loop().call_later(0.2, self._come_back)
            raise

    def _come_back(self) -> None:
        self.script = Script(replies=(Reply(text=TEXT),))
        self.is_frozen = False


@pytest.mark.parametrize("after", [0, 4])
async def test_a_call_waits_for_its_only_replica_to_come_back(after: int) -> None:
    only = Restarting(Reply(text=TEXT, fault="break_off", fault_after_tokens=after))
    async with gateway(only) as g:
        text, chunks, _ = await streamed(g)
    assert (text, chunks[-1], len(only.calls)) == (TEXT, "[DONE]", 2)


async def test_a_hundred_streams_lose_nothing_when_one_of_three_dies() -> None:
    dying = Mortal(Reply(text=TEXT, delay_s=0.05, token_delay_s=0.02, fault="break_off", fault_after_tokens=5))
    others = [good(delay_s=0.05, token_delay_s=0.02), good(delay_s=0.05, token_delay_s=0.02)]
    async with gateway(dying, *others) as g:
        answers = await asyncio.gather(*(streamed(g) for _ in range(100)))
    assert {text for text, _, _ in answers} == {TEXT}
    assert dying.calls
    assert sum(exchange.num_continued for exchange in g.exchanges) == len(dying.calls)


async def test_a_fallback_answers_while_every_replica_is_down() -> None:
    main, spare = good(), ScriptedEngine("spare", Script(replies=(Reply(text="spare"),)))
    async with gateway(main, spare, model={"fallback": "spare"}) as g:
        _, answer, headers = await g.post(CHAT, chat())
        assert (answer["model"], headers.get("x-chaku-fallback")) == ("scripted", None)
        main.is_frozen = True
        _, answer, headers = await g.post(CHAT, chat())
        assert (answer["model"], headers["x-chaku-fallback"]) == ("spare", "spare")
        main.is_frozen = False
        main.error, main.comes_back = NotSent("gone in this moment"), False

        @contextlib.asynccontextmanager
        async def ask(call: Call) -> AsyncIterator[Answer]:
            main.is_frozen = True
            raise NotSent("gone in this moment")
            yield

        main.ask = ask  # type: ignore[method-assign]
        _, answer, headers = await g.post(CHAT, chat())
        assert (answer["model"], headers["x-chaku-fallback"]) == ("spare", "spare")
    assert [exchange.model for exchange in g.exchanges] == ["scripted", "spare", "spare"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_every_wire_names_the_fallback_that_answers(is_stream: bool) -> None:
    main, spare = good(), ScriptedEngine("spare", Script())
    talk = chat()["messages"]
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"messages": talk},
        "/v1/completions": {"prompt": "x"},
        "/v1/messages": {"messages": talk, "max_tokens": 5},
        "/v1/responses": {"input": "x", "store": False},
        "/ollama/api/chat": {"messages": talk},
        "/ollama/api/generate": {"prompt": "x"},
    }
    async with gateway(main, spare, model={"fallback": "spare"}) as g:
        main.is_frozen = True
        for path, body in bodies.items():
            asked = {"model": "scripted", "stream": is_stream, **body}
            async with g.http.post(g.url + path, json=asked) as response:
                text = await response.text()
            assert response.status == 200, text
            assert set(re.findall(r'"model": ?"(\w+)"', text)) == {"spare"}, path


async def test_fallbacks_in_a_circle_end() -> None:
    one, other = good(), ScriptedEngine("spare", Script())
    async with gateway(one, other, model={"fallback": "scripted"}) as g:
        one.is_frozen = True
        assert (await g.post(CHAT, chat()))[0] == 503


async def test_a_hang_up_in_a_retry_frees_every_slot() -> None:
    hanging = good(delay_s=60)
    bad = failing(EngineError("broken"))
    async with gateway(bad, hanging) as g:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await g.post(CHAT, chat(), timeout=aiohttp.ClientTimeout(total=0.3))
        served = g.serving.table.find("scripted")
        async with asyncio.timeout(5):
            while served.admission.num_running or any(replica.num_running for replica in served.replicas):
                await asyncio.sleep(0.01)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_breaker_opens_probes_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.allows
        breaker.fail(breaker.begin())
    assert not breaker.allows
    clock.now_s += OPEN_S
    for _ in range(SUCCESSES_TO_CLOSE):
        assert breaker.allows
        breaker.begin()
        assert not breaker.allows, "one probe at a time"
        breaker.succeed()
    assert not breaker.is_open


def test_calls_that_break_off_together_count_as_one_failure() -> None:
    breaker = Breaker(Clock())
    together = [breaker.begin() for _ in range(100)]
    for began in together:
        breaker.fail(began)
    assert breaker.allows


@given(st.lists(st.sampled_from(["begin", "succeed", "fail", "leave", "wait"]), max_size=40))
def test_no_order_of_events_shuts_a_breaker_for_ever(events: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    began = 0
    for event in events:
        if event == "wait":
            clock.now_s += OPEN_S / 2
        elif event == "begin":
            began = breaker.begin()
        elif event == "fail":
            breaker.fail(began)
        else:
            getattr(breaker, event)()
    breaker.leave()
    clock.now_s += OPEN_S
    assert breaker.allows


def test_retries_are_bounded_by_requests_beyond_the_reserve() -> None:
    budget = RetryBudget(Clock())
    assert sum(budget.spend(0) for _ in range(1000)) == RESERVE
    for _ in range(50):
        budget.earn()
    assert sum(budget.spend(0) for _ in range(1000)) == 10
    large = RetryBudget(Clock())
    assert sum(large.spend(300) for _ in range(1000)) == 300


async def test_a_replica_that_always_fails_is_left_out_after_a_while() -> None:
    bad, fine = failing(EngineError("broken")), good()
    async with gateway(bad, fine) as g:
        for _ in range(30):
            assert (await g.post(CHAT, chat()))[0] == 200
    assert len(bad.calls) == FAILURES_TO_OPEN
