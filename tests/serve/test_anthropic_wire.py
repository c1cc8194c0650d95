"""Anthropic's Messages API with its official client, over a real socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canned_engine import CannedEngine, tool_call
from chaku.engines.base import Engine
from chaku.engines.scripted import Reply
from chaku.protocol.anthropic import MessagesRequest
from chaku.protocol.openai import ChatRequest
from chaku.protocol.validation import check, read_request
from chaku.serve.routing.breaker import FAILURES_TO_OPEN
from chaku.serve.wires.anthropic_requests import chat_body
from gateways import DOT, Keys, Running, gateway, scripted

HELLO: Any = [{"role": "user", "content": "hello"}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a town",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


@contextlib.asynccontextmanager
async def served(*engines: Engine, **options: Any) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Running]]:
    """A gateway, and the official client that speaks to it."""
    async with (
        gateway(*engines, **options) as g,
        anthropic.AsyncAnthropic(base_url=g.url, api_key="ck-1", max_retries=0) as client,
    ):
        yield client, g


def same(message: anthropic.types.Message) -> dict[str, Any]:
    """What two answers to one question share."""
    return {name: value for name, value in message.to_dict(exclude_none=True).items() if name != "id"}


async def test_a_message_comes_whole_with_its_counts() -> None:
    async with served() as (client, _):
        message = await client.messages.create(model="scripted", max_tokens=50, messages=HELLO)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "You said: hello"}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (1, 3)
    assert message.id.startswith("msg_")


async def test_a_stream_has_anthropics_events_in_their_order_and_adds_up_to_the_whole_message() -> None:
    async with served() as (client, g):
        async with client.messages.stream(model="scripted", max_tokens=50, messages=HELLO) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        body = {"model": "scripted", "max_tokens": 50, "messages": HELLO, "stream": True}
        async with g.http.post(f"{g.url}/v1/messages", json=body) as response:
            names = [line[7:] for line in (await response.text()).splitlines() if line.startswith("event: ")]
        whole = await client.messages.create(model="scripted", max_tokens=50, messages=HELLO)
    assert text == "You said: hello"
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert same(final) == same(whole)


async def test_thoughts_text_and_calls_are_blocks_of_their_own_whole_and_streamed() -> None:
    deltas = (
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Which "},
        {"reasoning_content": "town?"},
        {"content": "I look."},
        tool_call(0, "call_1", "weather", '{"town":'),
        tool_call(1, "call_2", "weather", f'{{"town":\n{10**30}}}'),
        tool_call(0, arguments='"Paris"}'),
    )
    engine = CannedEngine(*deltas, finish_reason="tool_calls")
    asked: Any = {"model": "canned", "max_tokens": 50, "messages": HELLO, "tools": [WEATHER]}
    async with served(engine) as (client, _):
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
    assert [block.to_dict() for block in whole.content] == [
        {"type": "thinking", "thinking": "Which town?", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "Paris"}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"town": 10**30}},
    ]
    assert whole.stop_reason == "tool_use"
    assert (whole.usage.input_tokens, whole.usage.cache_read_input_tokens, whole.usage.output_tokens) == (8, 4, 5)
    assert same(streamed) == same(whole)


async def test_what_is_asked_reaches_the_engine_in_openais_words() -> None:
    engine = CannedEngine({"content": "fine"})
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    messages: Any = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is it like?", "cache_control": {"type": "ephemeral"}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I must look.", "signature": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "text", "text": "And this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DOT}},
            ],
        },
        {"role": "assistant", "content": "It is"},
    ]
    async with served(engine) as (client, _):
        await client.messages.create(
            model="canned",
            max_tokens=9,
            messages=messages,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            tools=[WEATHER | {"cache_control": {"type": "ephemeral"}}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 40},
            metadata={"user_id": "u1"},
            thinking={"type": "adaptive"},
            output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        )
    function = {"name": "weather", "arguments": '{"town":"Paris"}'}
    assert engine.bodies == [
        {
            "model": "canned",
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is it like?"},
                {
                    "role": "assistant",
                    "reasoning_content": "I must look.",
                    "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
                    "content": "I look.",
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "And this?"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}},
                    ],
                },
                {"role": "assistant", "content": "It is"},
            ],
            "continue_final_message": True,
            "stop": ["END"],
            "user": "u1",
            "tools": [
                {
                    "type": "function",
                    "function": {k: WEATHER[k] for k in ("name", "description")}
                    | {"parameters": WEATHER["input_schema"]},
                }
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "reasoning_effort": "low",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
        }
    ]


async def test_an_answer_goes_back_as_the_client_has_it_and_what_it_adds_is_named() -> None:
    async with served() as (client, _):
        answer = await client.messages.create(model="scripted", max_tokens=50, messages=HELLO)
        again: Any = [*HELLO, answer.to_dict(), {"role": "user", "content": "again"}]
        raw = await client.messages.with_raw_response.create(model="scripted", max_tokens=50, messages=again)
    assert "id, model, stop_reason, type, usage" in raw.headers["x-chaku-note"]
    assert (await raw.parse()).content[0].to_dict()["text"] == "You said: again"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_stop_sequence_that_ended_the_answer_is_named(stream: bool) -> None:
    reply = Reply(text="one two three")
    asked: Any = {"model": "scripted", "max_tokens": 50, "messages": HELLO, "stop_sequences": ["zzz", " three"]}
    async with served(scripted(reply)) as (client, _):
        if stream:
            async with client.messages.stream(**asked) as events:
                message = await events.get_final_message()
        else:
            message = await client.messages.create(**asked)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " three")


async def test_a_limit_and_a_full_context_are_two_reasons() -> None:
    async with served(scripted(Reply(text="one two three"))) as (client, _):
        short = await client.messages.create(model="scripted", max_tokens=2, messages=HELLO)
    async with served(CannedEngine({"content": "cut"}, finish_reason="length")) as (client, _):
        full = await client.messages.create(model="canned", max_tokens=50, messages=HELLO)
    assert (short.stop_reason, full.stop_reason) == ("max_tokens", "model_context_window_exceeded")


async def test_counting_reads_the_prompt_and_gives_the_engines_count() -> None:
    engine = CannedEngine({"content": "x"}, finish_reason="length")
    async with served(engine) as (client, _):
        counted = await client.messages.count_tokens(
            model="canned", system="Be brief.", messages=HELLO, tools=[WEATHER]
        )
    assert counted.input_tokens == 12
    assert engine.bodies[0]["max_tokens"] == 1


async def test_the_key_comes_in_anthropics_header_too() -> None:
    async with served(keys=Keys({"ck-1": "k1"})) as (client, g):
        await client.messages.create(model="scripted", max_tokens=5, messages=HELLO)
        async with g.http.get(f"{g.url}/v1/models", headers={"x-api-key": "ck-1"}) as response:
            assert response.status == 200
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client.with_options(api_key="ck-2").messages.create(model="scripted", max_tokens=5, messages=HELLO)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert [exchange.key_id for exchange in g.exchanges] == ["k1"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"temprature": 1}, "unknown parameter temprature"),
        ({"temperature": 1.5}, "temperature is 1.5"),
        ({"max_tokens": None}, "missing parameter max_tokens"),
        ({"mcp_servers": []}, "chaku calls no servers"),
        ({"container": "c"}, "chaku runs no code"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "any"}}, "there are no tools"),
        ({"output_config": {"effort": "low"}}, "can't honour output_config.effort"),
        ({"tools": [WEATHER]}, "a script makes no tool calls"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "txt": ""}]}]}, "messages.0.content.0"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_cant_be_honoured_is_refused_by_name_in_anthropics_shape(fields: Any, says: str) -> None:
    asked = {"model": "scripted", "max_tokens": 5, "messages": HELLO} | fields
    async with gateway() as g:
        status, body, _ = await g.post("/v1/messages", {k: v for k, v in asked.items() if v is not None})
    assert status == 400
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert says in body["error"]["message"]


async def test_an_unknown_model_and_an_engine_that_fails_have_anthropics_classes() -> None:
    replies = (Reply(match="refuse", text="", fault="refuse"), Reply(text="one two three four", fault="break_off"))
    async with served(scripted(*replies)) as (client, _):
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="nobody", max_tokens=5, messages=HELLO)
        with pytest.raises(anthropic.InternalServerError) as failed:
            await client.messages.create(
                model="scripted", max_tokens=5, messages=[{"role": "user", "content": "refuse"}]
            )
        assert failed.value.body["error"]["type"] == "api_error"  # type: ignore[index]
        with pytest.raises(anthropic.APIStatusError, match="died in mid-answer"):
            async with client.messages.stream(model="scripted", max_tokens=50, messages=HELLO) as stream:
                await stream.get_final_message()


@pytest.mark.parametrize("arguments", ["", '{"town":'])
async def test_a_call_that_max_tokens_cut_off_comes_without_input_whole_and_streamed(arguments: str) -> None:
    deltas = {"content": "I look."}, tool_call(0, "call_1", "weather", arguments)
    asked: Any = {"model": "canned", "max_tokens": 5, "messages": HELLO, "tools": [WEATHER]}
    async with served(CannedEngine(*deltas, finish_reason="length")) as (client, _):
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
    assert whole.stop_reason == streamed.stop_reason == "max_tokens"
    text, call = (block.model_dump() for block in whole.content)
    assert text["text"] == "I look."
    assert (call["id"], call["name"], call["input"]) == ("call_1", "weather", {})
    assert [block.model_dump() for block in streamed.content][1]["input"] in ({}, "")


async def test_a_call_that_no_client_could_read_is_no_fault_of_the_replica_and_asked_once() -> None:
    engines = [CannedEngine(tool_call(0, "call_1", "weather", "Paris"), finish_reason="tool_calls") for _ in range(2)]
    async with served(*engines) as (client, g):
        for _ in range(FAILURES_TO_OPEN * 2):
            with pytest.raises(anthropic.InternalServerError, match="not a JSON object"):
                await client.messages.create(model="canned", max_tokens=5, messages=HELLO, tools=[WEATHER])
        replicas = [replica for served in g.serving.table for replica in served.replicas]
    assert sum(len(engine.bodies) for engine in engines) == FAILURES_TO_OPEN * 2
    assert [exchange.num_retries for exchange in g.exchanges] == [0] * FAILURES_TO_OPEN * 2
    assert len(replicas) == 2 and not any(replica.breaker.is_open for replica in replicas)


texts = st.text(max_size=5)
user_blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
    st.fixed_dictionaries(
        {"type": st.just("tool_result"), "tool_use_id": texts},
        optional={
            "content": st.one_of(texts, st.lists(st.builds(lambda t: {"type": "text", "text": t}, texts), max_size=2))
        },
    ),
    st.just({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}),
)
model_blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts, "signature": texts}),
    st.just({"type": "redacted_thinking", "data": "x"}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": texts, "name": texts, "input": st.dictionaries(texts, texts)}
    ),
)
turns = st.one_of(
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": st.one_of(texts, st.lists(user_blocks, min_size=1, max_size=4))}
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.one_of(texts, st.lists(model_blocks, max_size=4))}
    ),
    st.fixed_dictionaries({"role": st.just("system"), "content": texts}),
)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {"model": st.just("m"), "max_tokens": st.integers(1, 9), "messages": st.lists(turns, min_size=1, max_size=4)},
        optional={
            "system": texts,
            "tools": st.just([WEATHER]),
            "tool_choice": st.sampled_from([{"type": kind} for kind in ("auto", "any", "none")]),
            "thinking": st.sampled_from([{"type": "adaptive"}, {"type": "disabled"}]),
        },
    )
)
def test_every_request_of_the_shape_is_a_chat_of_openais_shape_with_every_text_in_it(body: dict[str, Any]) -> None:
    request = read_request(MessagesRequest, body)
    chat = chat_body(request.body)
    check(ChatRequest, chat)
    results = [
        b
        for t in body["messages"]
        if isinstance(t["content"], list)
        for b in t["content"]
        if b["type"] == "tool_result"
    ]
    assert [m["tool_call_id"] for m in chat["messages"] if m["role"] == "tool"] == [b["tool_use_id"] for b in results]
