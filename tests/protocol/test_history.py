"""Past messages: what a server once said comes back in every shape, and is read or dropped, never refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import InvalidRequest
from chaku.protocol.history import tidy
from chaku.protocol.openai import ChatRequest
from chaku.protocol.validation import ReadRequest, read_request_in_steps

HI = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def read(*messages: Any, **fields: Any) -> ReadRequest[ChatRequest]:
    steps = read_request_in_steps(ChatRequest, {"model": "m", "messages": copy.deepcopy(list(messages)), **fields})
    while True:
        try:
            next(steps)
        except StopIteration as end:
            request: ReadRequest[ChatRequest] = end.value
            return request


def seen(message: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What is left of a message after `HI`, and the notes."""
    request = read(HI, message)
    return request.body["messages"][1], "; ".join(request.notes)


def answer(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "yes", **fields}


@pytest.mark.parametrize(
    ("message", "left", "dropped"),
    [
        # what the official SDK's helpers put into their own message objects
        (answer(parsed=None, refusal=None, annotations=None, audio=None, function_call=None), answer(), ""),
        (answer(parsed={"name": "Paris"}), answer(), "parsed"),
        (
            answer(tool_calls=[{**CALL, "index": 0, "function": {**CALL["function"], "parsed_arguments": {"a": 1}}}]),
            answer(tool_calls=[CALL]),
            "tool_calls.function.parsed_arguments, tool_calls.index",
        ),
        # other servers
        (answer(reasoning_content="hm"), answer(reasoning_content="hm"), ""),
        (answer(reasoning="hm", reasoning_details=[]), answer(reasoning_content="hm"), "reasoning_details"),
        (answer(tool_calls=[], refusal=""), answer(), ""),
        (answer(id="msg_1", stop_reason="stop"), answer(), "id, stop_reason"),
        (answer(tool_calls=[{"id": "c1", "function": CALL["function"]}]), answer(tool_calls=[CALL]), ""),
        # arguments that are none, and Ollama's object
        *(
            (
                answer(tool_calls=[{**CALL, "function": {"name": "f", "arguments": given}}]),
                answer(tool_calls=[{**CALL, "function": {"name": "f", "arguments": kept}}]),
                "",
            )
            for given, kept in (("", "{}"), (None, "{}"), ({"a": 1}, '{"a":1}'), ('{"a":', '{"a":'))
        ),
        # parts
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            "content.cache_control",
        ),
        (
            answer(content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]),
            answer(content=[{"type": "text", "text": "yes"}]),
            "content.thinking",
        ),
        (
            {
                "role": "user",
                "name": None,
                "content": [{"type": "image_url", "image_url": {"url": "data:,", "detail": None}}],
            },
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
            "",
        ),
        # tools' results
        (
            {"role": "tool", "tool_call_id": "c1", "content": None},
            {"role": "tool", "tool_call_id": "c1", "content": ""},
            "",
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "1", "status": "success"},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            "status",
        ),
        ({"role": "user", "content": "x", "name": "planner"}, {"role": "user", "content": "x", "name": "planner"}, ""),
    ],
)
def test_replayed_fields_are_dropped_and_named(message: dict[str, Any], left: dict[str, Any], dropped: str) -> None:
    assert seen(message) == (left, f"dropped from past messages: {dropped}" if dropped else "")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "contents": "y"}, "messages.1.contents"),
        ({"role": "user", "content": "x", "parsed": 1}, "messages.1.parsed"),
        (answer(tool_calls=[{**CALL, "functon": {}}]), "messages.1.tool_calls.0.functon"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "cache": 1}]}, "messages.1.content.0.cache"),
    ],
)
def test_a_slip_of_the_pen_is_still_refused_by_name(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(HI, message)
    assert (caught.value.param, caught.value.code) == (param, "unknown_parameter")


@pytest.mark.parametrize(
    "nothing",
    [
        {"audio": None},
        {"functions": []},
        {"functions": None},
        {"function_call": "none"},
        {"tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": False},
        {"parallel_tool_calls": True},
        {"top_logprobs": 0},
        {"stream_options": {}},
        {"stream_options": {"include_usage": False, "continuous_usage_stats": None}},
        {"a_field_nobody_knows": None},
    ],
)
def test_what_asks_for_nothing_is_as_good_as_absent(nothing: dict[str, Any]) -> None:
    request = read(HI, **nothing)
    assert (request.body, request.notes) == ({"model": "m", "messages": [HI]}, ())


@pytest.mark.parametrize("field", ["audio", "functions", "top_logprobs", "parallel_tool_calls", "stream_options"])
def test_what_asks_for_something_else_is_still_refused(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(HI, **{field: "something"})
    assert caught.value.param == field


def test_vllms_running_usage_is_accepted_with_a_note() -> None:
    request = read(HI, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert request.notes == ("continuous_usage_stats: the usage comes once, at the end",)


def test_a_long_conversation_is_read_in_steps_and_wholly() -> None:
    messages = [HI, answer(parsed=1)] * 500
    steps = read_request_in_steps(ChatRequest, {"model": "m", "messages": copy.deepcopy(messages)})
    num_steps = 0
    try:
        while True:
            next(steps)
            num_steps += 1
    except StopIteration as end:
        request = end.value
    assert num_steps == 4
    assert request.body["messages"] == [HI, answer()] * 500
    assert len(request.typed.messages) == 1000
    assert request.notes == ("dropped from past messages: parsed",)


def test_a_fault_in_a_late_message_is_named_by_its_own_index() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(*[HI] * 900, {"role": "user", "content": 5}, *[HI] * 300)
    assert caught.value.param == "messages.900.content"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["role", "content", "tool_calls", "refusal", "parsed", "id", "function", "arguments", "type", "name", "image_url"]
)
ROLES = st.sampled_from(["user", "assistant", "tool", "system", "function", "", None])
MESSAGES = st.lists(
    JSON | st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON, max_size=4), max_size=3)), max_size=4
)


@given(MESSAGES, ROLES)
def test_any_messages_are_read_or_refused_and_tidying_twice_changes_nothing(messages: list[Any], role: Any) -> None:
    for message in messages:
        if isinstance(message, dict):
            message["role"] = role
    once = copy.deepcopy(messages)
    tidy(once)
    twice = copy.deepcopy(once)
    assert tidy(twice) <= {"content.thinking"}
    assert twice == once
    try:
        read(*messages)
    except InvalidRequest as refused:
        assert refused.code
        assert "Input should" not in refused.message
