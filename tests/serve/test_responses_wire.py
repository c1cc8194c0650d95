"""OpenAI's Responses API with the official client, over a real socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canned_engine import CannedEngine, tool_call
from chaku.engines.base import Engine
from chaku.engines.scripted import Reply
from chaku.errors import InvalidRequest
from chaku.protocol.openai import ChatRequest
from chaku.protocol.responses import ResponsesRequest
from chaku.protocol.validation import check, read_request
from chaku.serve.wires.responses_requests import chat_body
from gateways import DOT, Running, gateway, scripted

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    "strict": False,
}


@contextlib.asynccontextmanager
async def served(*engines: Engine) -> AsyncIterator[tuple[openai.AsyncOpenAI, Running]]:
    """A gateway, and the official client that speaks to it."""
    async with (
        gateway(*engines) as g,
        openai.AsyncOpenAI(base_url=f"{g.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client, g


async def test_a_response_comes_whole_with_its_settings_and_counts() -> None:
    async with served() as (client, _):
        response = await client.responses.create(
            model="scripted", input="hello", instructions="Be brief.", max_output_tokens=50, store=False
        )
    assert (response.output_text, response.status) == ("You said: hello", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 3, 6)
    assert (response.instructions, response.max_output_tokens, response.store) == ("Be brief.", 50, False)


async def test_a_stream_has_the_events_of_the_reference_in_their_order_and_adds_up_to_the_whole_response() -> None:
    async with served() as (client, _):
        stream = await client.responses.create(model="scripted", input="hello", stream=True)
        events = [event async for event in stream]
        async with client.responses.stream(model="scripted", input="hello") as helper:
            final = await helper.get_final_response()
        whole = await client.responses.create(model="scripted", input="hello")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert names[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(names[4:-4]) == {"output_text.delta"}
    assert final.output_text == whole.output_text == "".join(e.delta for e in events if e.type.endswith("text.delta"))
    assert final.usage == whole.usage


async def test_thoughts_text_and_calls_are_items_of_their_own_whole_and_streamed() -> None:
    deltas = (
        {"reasoning_content": "Which town?"},
        {"content": "I look."},
        tool_call(0, "call_1", "weather", '{"town":'),
        tool_call(1, "call_2", "weather", '{"town":"Rome"}'),
        tool_call(0, arguments='"Paris"}'),
    )
    engine = CannedEngine(*deltas, finish_reason="tool_calls")
    async with served(engine) as (client, _):
        whole = await client.responses.create(model="canned", input="hello", tools=[WEATHER])
        async with client.responses.stream(model="canned", input="hello", tools=[WEATHER]) as stream:
            streamed = await stream.get_final_response()
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    kept = [item.to_dict(exclude_none=True) for item in whole.output]
    assert kept[0]["content"] == [{"type": "reasoning_text", "text": "Which town?"}]
    assert [(item["call_id"], item["arguments"]) for item in kept[2:]] == [
        ("call_1", '{"town":"Paris"}'),
        ("call_2", '{"town":"Rome"}'),
    ]
    assert [item.to_dict(exclude_none=True).get("arguments") for item in streamed.output] == [
        item.get("arguments") for item in kept
    ]


async def test_items_of_an_answer_go_back_as_they_came_and_reach_the_engine_as_messages() -> None:
    engine = CannedEngine(
        {"reasoning_content": "Hm."}, tool_call(0, "call_1", "weather", "{}"), finish_reason="tool_calls"
    )
    schema = {"type": "object", "properties": {}}
    async with served(engine) as (client, _):
        first = await client.responses.create(model="canned", input="hello", tools=[WEATHER])
        items: Any = [
            {"role": "user", "content": "hello"},
            *first.output,
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "And this?"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{DOT}", "detail": "auto"},
                ],
            },
        ]
        await client.responses.create(
            model="canned",
            input=items,
            instructions="Be brief.",
            tools=[WEATHER],
            tool_choice={"type": "function", "name": "weather"},
            reasoning={"effort": "low"},
            text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
            include=["reasoning.encrypted_content"],
            store=False,
        )
    asked = engine.bodies[1]
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "reasoning_content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}", "detail": "auto"}},
            ],
        },
    ]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert asked["reasoning_effort"] == "low"
    assert asked["response_format"]["json_schema"] == {"name": "n", "schema": schema, "strict": True}
    assert asked["tools"] == [{"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_at_its_limit_is_incomplete(stream: bool) -> None:
    asked: Any = {"model": "scripted", "input": "x", "max_output_tokens": 2}
    async with served(scripted(Reply(text="one two three"))) as (client, _):
        if stream:
            events = [event async for event in await client.responses.create(**asked, stream=True)]
            assert events[-1].type == "response.incomplete"
            response = events[-1].response
        else:
            response = await client.responses.create(**asked)
    assert (response.status, response.output_text) == ("incomplete", "one two")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_a_stream_that_breaks_off_ends_with_a_failed_response() -> None:
    async with served(scripted(Reply(text="one two three four", fault="break_off"))) as (client, _):
        events = [event async for event in await client.responses.create(model="scripted", input="x", stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert "died in mid-answer" in events[-1].response.error.message


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "chaku stores no answers"),
        ({"conversation": "c"}, "conversation", "chaku stores no answers"),
        ({"store": True}, "store", "send store: false"),
        ({"background": True}, "background", "chaku stores no answers"),
        ({"truncation": "auto"}, "truncation", "never cut"),
        ({"temprature": 1}, "temprature", "unknown parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "function"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0", ""),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "nothing but thoughts"),
        ({"input": []}, "input", ""),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort", "can't honour reasoning.effort"),
    ],
)
async def test_what_cant_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str, says: str) -> None:
    async with gateway() as g:
        status, body, _ = await g.post("/v1/responses", {"model": "scripted", "input": "x"} | fields)
    assert (status, body["error"]["param"]) == (400, param)
    assert says in body["error"]["message"]


texts = st.text(max_size=5)
items = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": texts}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": texts, "name": texts, "arguments": st.just("{}")}
    ),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": texts, "output": texts}),
    st.fixed_dictionaries(
        {"type": st.just("reasoning")},
        optional={"content": st.lists(st.builds(lambda t: {"type": "reasoning_text", "text": t}, texts), max_size=2)},
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(items, min_size=1, max_size=6))
def test_every_input_is_a_chat_of_its_shape_with_every_call_and_result_in_it(given_items: list[dict[str, Any]]) -> None:
    body = orjson.loads(orjson.dumps({"model": "m", "input": given_items}))
    try:
        chat = chat_body(read_request(ResponsesRequest, body).body)
    except InvalidRequest:
        assert all(item.get("type") == "reasoning" for item in given_items)
        return
    check(ChatRequest, chat)
    calls = [call["id"] for message in chat["messages"] for call in message.get("tool_calls", ())]
    assert calls == [item["call_id"] for item in given_items if item.get("type") == "function_call"]
    said = [message["content"] for message in chat["messages"] if "content" in message]
    assert said == [
        item.get("content", item.get("output")) for item in given_items if "role" in item or "output" in item
    ]
