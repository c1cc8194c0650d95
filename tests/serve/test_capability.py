"""What of a request reaches an engine, and what is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from chaku.engines.base import Capabilities, Route
from chaku.engines.scripted import Reply
from chaku.errors import InvalidRequest
from chaku.serve.capability import fit
from gateways import chat, gateway, scripted

PLAIN = Capabilities(routes=frozenset({"chat", "completions"}), parameters=frozenset({"n", "logprobs"}))
ABLE = Capabilities(
    routes=frozenset({"chat", "completions", "embeddings"}),
    parameters=frozenset({"response_format", "logprobs", "top_logprobs"}),
    tools=True,
    vision=True,
    why_not={"seed": "its dice are not ours"},
)
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "strict": None, "parameters": {"const": None}}}


def fitted(capabilities: Capabilities = PLAIN, route: Route = "chat", **body: Any) -> dict[str, Any]:
    start = {"chat": {"messages": [HI]}, "completions": {"prompt": "x"}, "embeddings": {"input": "x"}}[route]
    return fit("m", route, {"model": "m", **start, **body}, capabilities)


def refusal(capabilities: Capabilities = PLAIN, route: Route = "chat", **body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        fitted(capabilities, route, **body)
    return caught.value


def test_defaults_nulls_and_labels_do_not_reach_the_engine() -> None:
    labels = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "stream_options": {}}
    defaults = {"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "seed": None}
    assert fitted(**labels, **defaults, temperature=0) == {"model": "m", "messages": [HI], "temperature": 0}


def test_zero_logprobs_of_a_completion_is_not_the_default() -> None:
    assert fitted(route="completions", logprobs=0)["logprobs"] == 0
    assert "logprobs" not in fitted(logprobs=False)


def test_what_the_engine_does_not_know_is_refused_with_its_own_reason() -> None:
    error = refusal(ABLE, seed=5)
    assert (error.param, error.code) == ("seed", "unsupported_parameter")
    assert "its dice are not ours" in error.message


def test_a_route_that_a_model_lacks_is_refused() -> None:
    assert refusal(route="embeddings").param == "model"


def test_a_switch_that_is_off_asks_for_nothing() -> None:
    off = {"reasoning_effort": "none", "tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False}
    assert fitted(**off) == {"model": "m", "messages": [HI]}
    reasons = Capabilities(parameters=frozenset({"reasoning_effort"}), reasoning=True)
    assert fitted(reasons, reasoning_effort="none")["reasoning_effort"] == "none"


def test_a_model_without_tools_is_told_of_the_tools() -> None:
    for choice in ({}, {"tool_choice": "auto"}, {"parallel_tool_calls": False}):
        assert refusal(tools=[TOOL], **choice).param == "tools"


def test_a_json_schema_keeps_its_nulls() -> None:
    assert fitted(ABLE, tools=[TOOL])["tools"][0]["function"] == {"name": "f", "parameters": {"const": None}}
    schema = {"name": "s", "description": None, "schema": {"enum": [None, 1], "default": None}}
    seen = fitted(ABLE, response_format={"type": "json_schema", "json_schema": schema})["response_format"]
    assert seen["json_schema"] == {"name": "s", "schema": {"enum": [None, 1], "default": None}}


def test_a_refusal_is_text_that_the_assistant_said() -> None:
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert fitted(messages=[HI, part])["messages"][1]["content"] == [{"type": "text", "text": "No."}]
    field = {"role": "assistant", "content": None, "refusal": "No."}
    assert fitted(messages=[HI, field])["messages"][1] == {"role": "assistant", "content": "No."}
    both = {"role": "assistant", "content": "Yes.", "refusal": "No."}
    assert refusal(messages=[HI, both]).param == "messages.1.refusal"


def test_an_assistant_who_said_nothing_is_refused() -> None:
    assert refusal(messages=[HI, {"role": "assistant"}]).param == "messages.1.content"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert fitted(ABLE, messages=[HI, {"role": "assistant", "tool_calls": [call]}])["messages"][1]["tool_calls"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}
                ]
            },
            "messages.0.content.0",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages.0.content.0",
        ),
    ],
)
def test_combinations_that_ask_for_the_impossible_are_refused(body: dict[str, Any], param: str) -> None:
    assert refusal(ABLE, **body).param == param


def test_a_model_without_tools_reads_no_tool_messages_and_takes_no_tools() -> None:
    assert refusal(tools=[TOOL]).param == "tools"
    assert refusal(messages=[HI, {"role": "tool", "content": "x", "tool_call_id": "1"}]).param == "messages.1"
    assert "tools" not in fitted(tools=[], tool_choice="none")


def test_the_callers_own_body_is_left_as_it_was() -> None:
    body = {"model": "m", "messages": [{**HI, "name": None}], "user": "u", "temperature": None}
    copy = {**body, "messages": [dict(body["messages"][0])]}
    fit("m", "chat", body, PLAIN)
    assert body == copy


ASKED = {"role": "user", "content": "say"}
BEGUN = {"role": "assistant", "content": "one"}


async def test_a_scripted_answer_is_continued_to_the_unbroken_text() -> None:
    async with gateway(scripted(Reply(text="one two three"))) as g:
        for cut in range(1, 12):
            body = {**chat(), "messages": [ASKED, {**BEGUN, "content": "one two three"[:cut]}]}
            status, answer, _ = await g.post("/v1/chat/completions", {**body, "continue_final_message": True})
            assert status == 200
            assert "one two three"[:cut] + answer["choices"][0]["message"]["content"] == "one two three"


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ([ASKED], {"continue_final_message": True}, "continue_final_message"),
        ([ASKED, {**BEGUN, "content": ""}], {"continue_final_message": True}, "continue_final_message"),
        ([ASKED, BEGUN], {"continue_final_message": False}, "continue_final_message"),
        ([ASKED, BEGUN], {"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
        ([ASKED], {"add_generation_prompt": False}, "add_generation_prompt"),
        ([ASKED, BEGUN], {"continue_final_message": True, "add_generation_prompt": False}, None),
        ([ASKED], {"continue_final_message": False, "add_generation_prompt": True}, None),
        ([ASKED], {"continue_final_message": None, "add_generation_prompt": None}, None),
    ],
)
async def test_what_can_be_continued(messages: list, fields: dict, param: str | None) -> None:
    async with gateway(scripted(Reply(text="one two"))) as g:
        status, answer, _ = await g.post("/v1/chat/completions", {**chat(), "messages": messages, **fields})
    assert (status, answer.get("error", {}).get("param")) == ((200, None) if param is None else (400, param))


def test_an_engine_that_cant_continue_refuses() -> None:
    body = {"model": "m", "messages": [ASKED, BEGUN], "continue_final_message": True}
    with pytest.raises(InvalidRequest, match="can't honour continue_final_message"):
        fit("m", "chat", body, Capabilities())
