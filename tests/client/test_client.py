"""The client against a real server on a socket, well and badly behaved."""

import asyncio
import contextlib
import socket
import time

import pytest

from chaku.client import Client, Delta, Retries, Timeouts, TokenUsage, ToolCallPart
from chaku.errors import (
    AuthenticationFailed,
    ChakuError,
    ConfigError,
    ContextOverflow,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    NotFound,
    Overloaded,
)
from fake_openai import USAGE_CHUNK, answer, chunk, hang_up, pieces, refusal, sse, whole
from processes import modules_loaded_by

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def client(server):
    async with Client(server.base_url, "secret", retries=Retries(limit=2, budget_s=5, first_pause_s=0.01)) as client:
        yield client


async def collect(client, **sampling):
    return [delta async for delta in client.stream(HELLO, "fake", **sampling)]


async def test_a_stream_ends_with_its_finish_reason_and_its_usage(client, server):
    deltas = await collect(client, temperature=0.5, seed=None)
    assert "".join(delta.text for delta in deltas) == "Hello there."
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert deltas[-1] == Delta(usage=TokenUsage(7, 3))
    (body,) = server.bodies
    assert body == {
        "model": "fake",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
    }
    assert server.requests[0][1]["Authorization"] == "Bearer secret"


async def test_a_whole_answer_carries_text_reasoning_calls_and_usage(client, server):
    call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    server.script.append(whole({"content": None, "reasoning_content": "hm", "tool_calls": [call]}, "tool_calls"))
    completion = await client.chat(HELLO, "fake")
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("", "hm", "tool_calls")
    assert completion.tool_calls == (ToolCallPart(0, "t1", "add", '{"a":1}'),)
    assert completion.usage == TokenUsage(7, 3)
    assert "stream" not in server.bodies[0]


@pytest.mark.parametrize("message", [{"content": 7}, {"tool_calls": ["add"]}])
async def test_a_whole_answer_of_another_shape_raises(client, server, message):
    server.script.append(whole(message))
    with pytest.raises(EngineError, match=r"not a chat completion|where a text belongs"):
        await client.chat(HELLO, "fake")


async def test_reasoning_tool_calls_and_logprobs_come_as_parts(client, server):
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    calls = [[{"index": 0, "id": "t1", "function": {"name": "add", "arguments": ""}}],
             [{"index": 0, "function": {"arguments": "{}"}}]]  # fmt: skip
    events = [
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "a"}, logprobs={"content": [entry]}),
        *(chunk({"tool_calls": call}) for call in calls),
        chunk({}, "tool_calls"),
        "[DONE]",
    ]
    server.script.append(pieces(*map(sse, events)))
    deltas = await collect(client, logprobs=True)
    assert deltas == [
        Delta(reasoning="hm"),
        Delta(text="a", logprobs=(entry,)),
        Delta(tool_calls=(ToolCallPart(0, "t1", "add", ""),)),
        Delta(tool_calls=(ToolCallPart(0, None, None, "{}"),)),
        Delta(finish_reason="tool_calls"),
    ]


async def test_models_are_listed_in_the_servers_order(client, server):
    server.models = ["b", "a"]
    assert await client.models() == ["b", "a"]


HALF = sse(chunk({"content": "half an ans"}))


@pytest.mark.parametrize(
    ("respond", "kind"),
    [
        (pieces(HALF), EngineError),
        (pieces(HALF, sse("[DONE]")), EngineError),
        (pieces(HALF, sse(chunk({"content": "wer"}))[:-9], delay_s=0.02, cut=True), EngineError),
        (pieces(HALF, delay_s=60), DeadlineExceeded),
    ],
    ids=["ends", "says done", "cut in mid-chunk", "falls silent"],
)
async def test_an_answer_without_its_end_raises_after_its_text(server, respond, kind):
    server.script.append(respond)
    texts = []
    async with Client(server.base_url, timeouts=Timeouts(silence_s=0.3)) as client:
        with pytest.raises(kind, match="broke off its answer"):
            async for delta in client.stream(HELLO, "fake"):
                texts.append(delta.text)
    assert texts == ["half an ans"]
    assert len(server.bodies) == 1, "an answer that has begun is never asked for again"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "engine died", "type": "server_error", "code": "engine_error"}, EngineError),
        ({"message": "slow", "type": "server_error", "code": "deadline_exceeded"}, DeadlineExceeded),
        ({"message": "no", "type": "invalid_request_error", "code": 400}, InvalidRequest),
        ({"message": "long", "type": "exceed_context_size_error", "code": 400}, ContextOverflow),
        ("just words", EngineError),
    ],
)
async def test_an_error_event_in_mid_stream_raises_what_it_says(client, server, error, kind):
    server.script.append(pieces(HALF, sse({"error": error}), sse("[DONE]")))
    with pytest.raises(ChakuError) as raised:
        await collect(client)
    assert type(raised.value) is kind
    assert raised.value.message == (error if isinstance(error, str) else error["message"])


async def test_a_chunk_that_is_no_chunk_raises(client, server):
    server.script.append(pieces(HALF, b"data: {nonsense\n\n"))
    with pytest.raises(EngineError, match="not a chat completion chunk"):
        await collect(client)


async def test_a_finish_reason_is_enough_where_a_server_never_says_done(client, server):
    server.script.append(pieces(HALF, sse(chunk({}, "stop")), sse(USAGE_CHUNK)))
    assert (await collect(client))[-1].usage == TokenUsage(7, 3)


@pytest.mark.parametrize(
    "first",
    [refusal(429, "full", {"Retry-After": "0.05"}), refusal(503, "loading"), hang_up()],
    ids=["429", "503", "hang-up"],
)
async def test_what_has_not_sent_a_byte_is_asked_again(client, server, first):
    server.script.extend([first, first, answer("ok")])
    assert (await collect(client))[1].text == "ok"
    assert len(server.bodies) == 3


async def test_a_retry_after_is_waited_for(client, server):
    server.script.append(refusal(429, "full", {"Retry-After": "0.3"}))
    start = time.monotonic()
    await collect(client)
    assert time.monotonic() - start >= 0.3


async def test_a_retry_after_beyond_the_budget_raises_at_once_and_says_when(client, server):
    server.script.append(refusal(429, "queue of fake is full", {"Retry-After": "60"}, code="queue_full"))
    start = time.monotonic()
    with pytest.raises(Overloaded, match="queue of fake is full") as raised:
        await collect(client)
    assert raised.value.retry_after_s == 60
    assert time.monotonic() - start < 30
    assert len(server.bodies) == 1


async def test_retries_end(client, server):
    server.script.extend([refusal(503, "loading")] * 9)
    with pytest.raises(EngineUnavailable, match="loading"):
        await collect(client)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "fields", "kind"),
    [
        (400, {"param": "top_k", "code": None}, InvalidRequest),
        (400, {"code": "context_length_exceeded"}, ContextOverflow),
        (401, {"code": "invalid_api_key"}, AuthenticationFailed),
        (404, {"code": "model_not_found"}, NotFound),
        (418, {}, InvalidRequest),
        (429, {"code": "insufficient_quota"}, Overloaded),
        (500, {}, EngineError),
    ],
)
async def test_refusals_become_our_errors_and_are_not_repeated(client, server, status, fields, kind):
    server.script.append(refusal(status, "the reason", **fields))
    with pytest.raises(ChakuError) as raised:
        await client.chat(HELLO, "fake")
    assert type(raised.value) is kind
    assert (raised.value.message, raised.value.param) == ("the reason", fields.get("param"))
    assert len(server.bodies) == 1


async def test_a_base_url_without_v1_is_told_so(server):
    async with Client(server.base_url.removesuffix("/v1")) as client:
        with pytest.raises(NotFound) as raised:
            await client.models()
    assert "/v1" in raised.value.fix


async def test_redirects_are_not_followed_so_the_key_stays_here(client, server):
    async def respond(request, _):
        from aiohttp import web

        raise web.HTTPFound("http://127.0.0.1:1/elsewhere")

    server.script.append(respond)
    with pytest.raises(EngineError, match=r"redirects to http://127.0.0.1:1/elsewhere"):
        await client.chat(HELLO, "fake")


async def test_closing_a_stream_aborts_it(client, server):
    server.script.append(answer(*["word "] * 200, delay_s=0.05))
    async with contextlib.aclosing(client.stream(HELLO, "fake")) as stream:
        async for delta in stream:
            if delta.text:
                break
    assert await asyncio.to_thread(server.aborted.wait, 5)


async def test_a_closed_port_is_a_line_with_a_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}/v1", retries=Retries(limit=1, first_pause_s=0.01)) as client:
            with pytest.raises(EngineUnavailable, match=rf"can't reach http://127.0.0.1:{port}/v1: Conn.* refused"):
                await client.models()


@pytest.mark.parametrize("base_url", ["localhost:8000", "ftp://host/v1", "", "http://"])
def test_a_base_url_that_is_no_address_is_refused(base_url):
    with pytest.raises(ConfigError, match="not an http"):
        Client(base_url)


async def test_several_answers_a_call_are_refused_instead_of_losing_some(client):
    with pytest.raises(InvalidRequest, match="n is 2"):
        await client.chat(HELLO, "fake", n=2)


def test_the_client_is_light_to_import():
    heavy = {"pydantic", "yaml", "click", "rich", "numpy", "sqlalchemy", "fastapi", "prompt_toolkit"}
    loaded = modules_loaded_by("import chaku.client")
    assert "aiohttp" in loaded
    assert not heavy & loaded
