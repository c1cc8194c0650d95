"""Every known difference of vLLM's and SGLang's answers from OpenAI's schema, written down as they send it."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter

from chaku.engines.base import Call
from chaku.engines.servers.conform import Conforming
from chaku.errors import EngineError
from chaku.protocol.answers import ChatChunk, ChatCompletion, TextCompletion

USAGE = {"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": None}
END = {"choices": [], "usage": USAGE}
NULLS = {"content": None, "reasoning_content": None, "tool_calls": None}


def chunk(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0, **extra: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None, **extra}]}


def conformed(*sent: dict[str, Any], route: Literal["chat", "completions"] = "chat") -> list[dict[str, Any]]:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "base"}
    events = b"".join(b"data: " + json.dumps({**head, **one}).encode() + b"\n\n" for one in sent) + b"data: [DONE]\n\n"
    blocks = Conforming("ours", Call(route, {}, True, "1")).events(events)
    assert blocks[-1].is_last
    data = b"".join(block.data for block in blocks)
    chunks = [json.loads(event[6:]) for event in data.split(b"\n\n")[:-2]]
    for one in chunks:
        TypeAdapter(ChatChunk if route == "chat" else TextCompletion).validate_python(one)
    assert {one["model"] for one in chunks} == {"ours"} and len({one["id"] for one in chunks}) == 1
    return chunks


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["choices"][0]["delta"] for one in chunks if one["choices"]]


def reasons(chunks: list[dict[str, Any]]) -> list[str | None]:
    return [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]]


def test_sglangs_empty_finish_reasons_and_null_fields_are_gone() -> None:
    chunks = conformed(
        chunk({"role": "assistant", **NULLS, "content": ""}, "", matched_stop=None),
        chunk({"role": None, **NULLS, "content": "Hi"}, "", matched_stop=None),
        chunk({"role": None, **NULLS}, "stop", matched_stop=2),
        END,
    )
    assert deltas(chunks) == [{"role": "assistant", "content": ""}, {"content": "Hi"}, {}]
    assert reasons(chunks) == [None, None, "stop"]
    assert "matched_stop" not in json.dumps(chunks) and "stop_reason" not in json.dumps(chunks)


def test_the_stop_string_has_one_name() -> None:
    for field in ("matched_stop", "stop_reason"):
        ended = conformed(chunk({"content": "a"}), chunk({}, "stop", **{field: "END"}), END)[-2]["choices"][0]
        assert ended["stop_reason"] == "END"


def test_vllms_reasoning_has_the_name_that_other_engines_give_it() -> None:
    chunks = conformed(chunk({"role": "assistant", "content": ""}), chunk({"reasoning": "Hm"}), chunk({}, "stop"), END)
    assert deltas(chunks)[1] == {"reasoning_content": "Hm"}


def test_vllms_further_fields_are_dropped() -> None:
    sent = {**chunk({"content": "a"}, token_ids=[4]), "prompt_token_ids": [1], "kv_transfer_params": None}
    chunks = conformed(sent, chunk({}, "stop", token_ids=None), END)
    assert "token_ids" not in json.dumps(chunks) and "kv_transfer" not in json.dumps(chunks)
    assert "prompt_tokens_details" not in chunks[-1]["usage"]


def test_usage_in_every_chunk_becomes_the_last_chunk_of_its_own() -> None:
    chunks = conformed(
        {**chunk({"content": "a"}), "usage": {**USAGE, "completion_tokens": 1}},
        {**chunk({}, "stop"), "usage": USAGE},
    )
    assert ["usage" in one for one in chunks] == [False, False, True]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 3


def test_a_role_is_sent_once_and_for_every_choice() -> None:
    chunks = conformed(
        chunk({"role": "assistant", "content": "a"}), chunk({"role": "assistant", "content": "b"}),
        chunk({"content": "c"}, index=1), chunk({}, "stop"), chunk({}, "stop", index=1), END,
    )  # fmt: skip
    assert [delta.get("role") for delta in deltas(chunks)] == ["assistant", None, "assistant", None, None]


def call(index: int | None, **fields: Any) -> dict[str, Any]:
    given = {name: fields.pop(name, None) for name in ("name", "arguments")}
    piece = {"index": index, "id": None, "type": "function", "function": given, **fields}
    return {"role": None, "content": None, "tool_calls": [piece]}


def test_a_tool_call_has_its_id_and_name_once_and_ends_with_tool_calls() -> None:
    chunks = conformed(
        chunk(call(0, id="c7", name="f", arguments="")),
        chunk(call(0, arguments='{"a"')),
        chunk(call(0, id="c7", name="f", arguments=":1}")),
        chunk(call(1, name="g", arguments="{}")),
        chunk({}, "stop"),
        END,
    )
    pieces = [delta["tool_calls"][0] for delta in deltas(chunks)[:-1]]
    assert pieces[0] == {"index": 0, "id": "c7", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert pieces[1:3] == [{"index": 0, "function": {"arguments": text}} for text in ('{"a"', ":1}")]
    assert pieces[3]["id"] and pieces[3]["function"]["name"] == "g"
    assert reasons(chunks)[-1] == "tool_calls"


@pytest.mark.parametrize("reason", ["abort", "error", "repetition"])
def test_an_answer_that_the_server_aborted_is_an_error_and_no_end(reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        conformed(chunk({"content": "a"}), chunk({}, reason), END)


def test_an_answer_without_an_end_is_an_error() -> None:
    with pytest.raises(EngineError, match="broke off"):
        conformed(chunk({"content": "a"}), END)


def test_text_completions_conform_too() -> None:
    text = {"index": 0, "text": "a", "finish_reason": "", "logprobs": None, "prompt_logprobs": None}
    chunks = conformed(
        {"choices": [text]}, {"choices": [{**text, "text": "", "finish_reason": "length"}]}, END, route="completions"
    )
    assert [one["choices"][0]["text"] for one in chunks[:-1]] == ["a", ""]
    assert "prompt_logprobs" not in json.dumps(chunks)


def scored(*tokens: str) -> dict[str, Any]:
    return {
        "content": [
            {"token": token, "logprob": -0.5, "bytes": [*token.encode()], "top_logprobs": []} for token in tokens
        ]
    }


def test_the_last_chunk_says_only_why_it_ended_and_the_end_token_has_no_log_probability() -> None:
    first, last = chunk({"content": "A"}), chunk({"content": "."}, "stop")
    first["choices"][0]["logprobs"], last["choices"][0]["logprobs"] = scored("A"), scored(".", "<|im_end|>")
    chunks = conformed(first, last, END)
    assert deltas(chunks) == [{"role": "assistant", "content": "A"}, {"content": "."}, {}]
    assert reasons(chunks) == [None, None, "stop"]
    assert [one["choices"][0]["logprobs"] for one in chunks[:-1]] == [scored("A"), scored("."), None]
    cut = chunk({"content": "."}, "length")
    cut["choices"][0]["logprobs"] = scored(".")
    assert conformed(cut, END)[0]["choices"][0]["logprobs"] == scored(".")


@pytest.mark.parametrize("asked", [0, 1])
def test_a_completion_has_no_rivals_unless_they_were_asked_for(asked: int) -> None:
    found = {"text_offset": [0, 1], "token_logprobs": [-1, -2], "tokens": ["a", "</s>"],
             "top_logprobs": [{"a": -1}, {"</s>": -2}]}  # fmt: skip
    choice = {"index": 0, "text": "a", "finish_reason": "stop", "logprobs": found}
    call = Call("completions", {"logprobs": asked}, False, "1")
    whole = Conforming("ours", call).whole({"choices": [choice], "usage": USAGE})["choices"][0]["logprobs"]
    assert whole["tokens"] == ["a"] and whole["text_offset"] == [0] and whole["token_logprobs"] == [-1]
    assert whole["top_logprobs"] == [{"a": -1} if asked else {}]


def test_a_whole_answer_conforms() -> None:
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed": None}}
    message = {"role": "assistant", "content": None, "reasoning": "Hm", "tool_calls": [made], "audio": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None, "stop_reason": None}
    answer = {"id": "x", "choices": [{**choice, "token_ids": None}], "usage": USAGE, "prompt_logprobs": None}
    whole = Conforming("ours", Call("chat", {}, False, "1")).whole(answer)
    TypeAdapter(ChatCompletion).validate_python(whole)
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["choices"][0]["message"] == {
        "role": "assistant", "content": None, "refusal": None, "reasoning_content": "Hm",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }  # fmt: skip
