from __future__ import annotations

import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from chaku.engines.llamacpp import requests
from chaku.engines.llamacpp.assemble import assemble
from chaku.engines.llamacpp.logprobs import Piece
from chaku.engines.llamacpp.refusal import refusal
from chaku.engines.llamacpp.streams import CompletionStream, Stream
from chaku.engines.llamacpp.tool_stream import ForcedToolStream
from chaku.errors import ContextOverflow, EngineError, EngineUnavailable, InvalidRequest

FRAME = {
    "created": 1,
    "id": "chatcmpl-abc",
    "model": "m",
    "system_fingerprint": "b0",
    "object": "chat.completion.chunk",
}
TEXT_FRAME = FRAME | {"object": "text_completion"}
DONE = b"data: [DONE]\n\n"


def event(choices: list[dict[str, Any]], frame: dict[str, Any] = FRAME, **more: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": choices, **frame, **more}) + b"\n\n"


def delta(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"finish_reason": finish, "index": index, "delta": delta}


def piece(text: str, index: int = 0, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    details = {"cached_tokens": 1}
    return {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": 0,
        "prompt_tokens_details": details,
    }


def parse(blocks: bytes) -> list[Any]:
    events = blocks.split(b"\n\n")[:-1]
    assert events[-1] == b"data: [DONE]"
    return [orjson.loads(one.removeprefix(b"data: ")) for one in events[:-1]]


def fed(stream: Stream, events: bytes) -> bytes:
    """What the stream makes of the events."""
    return b"".join(block.data for block in stream.feed(events))


def test_a_plain_chat_stream_passes_through_but_for_its_first_and_last_events() -> None:
    stream = Stream(model="m")
    middle = event([delta(content='it said "usage": and [DONE]')])
    first = fed(stream, event([delta(role="assistant", content=None)]))
    (untouched,) = stream.feed(middle)
    assert untouched.data is middle
    assert (untouched.num_tokens, untouched.usage) == (1, None)
    last = fed(stream, event([delta(finish="stop")]) + event([], usage=usage(5, 2), timings={"x": 1}) + DONE)
    chunks = parse(first + middle + last)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk.get("usage", {}).get("total_tokens") for chunk in chunks] == [None, None, None, 7]
    assert b"timings" not in last


def test_usage_of_several_answers_is_summed_and_their_prompt_counted_once() -> None:
    stream = Stream(model="m", n=2)
    blocks = fed(stream, event([delta(role="assistant", content=None)]) + event([], usage=usage(5, 2)))
    blocks += fed(stream, event([delta(1, content="x")]) + event([], usage=usage(5, 3)) + DONE)
    chunks = parse(blocks)
    assert [bool(chunk["choices"]) for chunk in chunks] == [True, True, False]
    assert chunks[-1]["usage"]["prompt_tokens"] == 5
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_usage_of_several_prompts_counts_each() -> None:
    stream = CompletionStream(model="m", n=1)
    blocks = fed(stream, b"data: null\n\n" + event([piece("a")], TEXT_FRAME))
    blocks += fed(stream, event([piece("", 0, "stop")], TEXT_FRAME, usage=usage(4, 2)))
    blocks += fed(stream, event([piece("", 1, "length")], TEXT_FRAME, usage=usage(3, 1)) + DONE)
    chunks = parse(blocks)
    assert {chunk["id"] for chunk in chunks} == {"cmpl-abc"}
    assert chunks[-1]["usage"]["prompt_tokens"] == 7
    assert "usage" not in chunks[1]


def test_completion_log_probabilities_have_the_legacy_shape_with_offsets_into_the_text() -> None:
    def scored(token: str) -> dict[str, Any]:
        one = {"id": 1, "token": token, "bytes": list(token.encode()), "logprob": -0.5}
        return {"content": [one | {"top_logprobs": [one, one | {"token": "z"}]}]}

    stream = CompletionStream(model="m", top_logprobs=1)
    blocks = fed(stream, event([piece("ab", logprobs=scored("ab"))], TEXT_FRAME))
    blocks += fed(stream, event([piece("c", logprobs=scored("c"))], TEXT_FRAME))
    blocks += fed(stream, event([piece("", finish="stop")], TEXT_FRAME, usage=usage(1, 2)) + DONE)
    whole = assemble(parse(blocks))
    Completion.model_validate(whole, strict=True)
    assert whole["choices"][0]["logprobs"] == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"ab": -0.5}, {"c": -0.5}],
        "text_offset": [0, 2],
    }


def test_echo_comes_first_for_each_choice_of_its_prompt() -> None:
    stream = CompletionStream(model="m", n=2, echo=["P", "Q"])
    blocks = b""
    for index in (3, 0, 2, 1):
        blocks += fed(stream, event([piece(str(index), index, "stop")], TEXT_FRAME, usage=usage(1, 1)))
    whole = assemble(parse(blocks + fed(stream, DONE)))
    assert [choice["text"] for choice in whole["choices"]] == ["P0", "P1", "Q2", "Q3"]


def forced(text: str, cuts: list[int], finish: str = "stop") -> list[Any]:
    stream = ForcedToolStream(model="m")
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    blocks = b""
    for start, end in itertools.pairwise(bounds):
        blocks += fed(stream, event([piece(text[start:end])], TEXT_FRAME))
    return parse(blocks + fed(stream, event([piece("", finish=finish)], TEXT_FRAME, usage=usage(1, 1)) + DONE))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), json_values), st.lists(st.integers(min_value=0)), st.sampled_from([None, 1, "\t"]))
def test_a_forced_call_arrives_whole_wherever_its_text_is_cut(arguments: Any, cuts: list[int], indent: Any) -> None:
    text = json.dumps({"name": 'a"b', "arguments": arguments}, indent=indent) + "\n "
    chunks = forced(text, cuts)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    whole = assemble(chunks)
    ChatCompletion.model_validate(whole)
    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == 'a"b'
    assert json.loads(call["function"]["arguments"]) == arguments
    assert call["function"]["arguments"][0] == "{" and call["function"]["arguments"][-1] == "}"
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["choices"][0]["message"]["content"] is None


def test_a_forced_call_cut_by_the_token_limit_says_length_and_keeps_what_was_written() -> None:
    whole = assemble(forced('{"name": "f", "arguments": {"city": {"a": 1}', [], finish="length"))
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": {"a": 1}'


def test_an_error_event_is_an_error_and_no_text() -> None:
    stream = Stream(model="m")
    fed(stream, event([delta(role="assistant", content=None)]))
    with pytest.raises(EngineError, match="out of cells"):
        fed(stream, b'data: {"error":{"code":500,"message":"out of cells","type":"server_error"}}\n\n')


def test_requests_use_llama_cpp_s_names_and_openai_s_defaults() -> None:
    body = {"messages": [], "max_completion_tokens": 5, "repetition_penalty": 1.1, "seed": 2**32 - 1, "logprobs": True}
    request = requests.chat_request(body, model="m")
    assert request["max_tokens"] == 5
    assert request["repeat_penalty"] == 1.1 and request["repeat_last_n"] == 131_072
    assert request["seed"] == 0, "llama.cpp would draw a seed for 2**32 - 1"
    assert request["top_logprobs"] == 1
    assert requests.completion_request({"prompt": ""}, model="m")["max_tokens"] == 16
    assert "max_tokens" not in requests.chat_request({"messages": []}, model="m")
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}
    assert requests.completion_request({"prompt": "", "response_format": schema}, model="m")["json_schema"] == {
        "type": "array"
    }


def test_refusals_are_ours_with_both_numbers() -> None:
    body = {
        "error": {
            "code": 400,
            "message": "x",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9120,
            "n_ctx": 2048,
        }
    }
    error = refusal(400, body, model="m", param="messages")
    assert isinstance(error, ContextOverflow)
    assert "9,120" in str(error) and "2,048" in str(error) and error.param == "messages"
    assert type(refusal(400, {"error": {"message": "bad"}}, model="m", param="")) is InvalidRequest
    assert type(refusal(503, {"error": {"message": "Loading"}}, model="m", param="")) is EngineUnavailable
    assert type(refusal(500, "<html>", model="m", param="")) is EngineError


@pytest.mark.parametrize(
    ("text", "finish"), [("Sure, I can do that.", "length"), ("", "stop"), ('{"name": 1}', "stop")]
)
def test_a_forced_answer_without_a_call_is_an_error_and_not_an_empty_answer(text: str, finish: str) -> None:
    with pytest.raises(EngineError, match="forced to call"):
        forced(text, [], finish=finish)


def test_a_whole_message_has_every_key_that_openai_s_has() -> None:
    (choice,) = assemble(forced('{"na', [], finish="length"))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": None}


def test_a_forced_call_cut_within_its_head_has_no_call_yet() -> None:
    whole = assemble(forced('{"na', [], finish="length"))
    assert whole["choices"][0]["finish_reason"] == "length"


# What llama.cpp b11549 sent for a character of three tokens: the last one's id, the bytes and text of all.
MERGED = {
    "id": 218, "token": "😀", "bytes": [240, 159, 152, 128], "logprob": -2.5,
    "top_logprobs": [{"id": 231, "token": "�", "bytes": [141], "logprob": -1.8}],
}  # fmt: skip
PIECES = [Piece(10813, b"\xf0\x9f"), Piece(242, b"\x98"), Piece(218, b"\x80")]


def merged_event(**choice: Any) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "x", "created": 1, "model": "m", "system_fingerprint": "f"}
    logprobs = {"content": [MERGED]}
    return b"data: " + orjson.dumps({**chunk, "choices": [{"index": 0, "logprobs": logprobs, **choice}]}) + b"\n\n"


def test_a_character_of_three_tokens_has_three_entries() -> None:
    stream = Stream(model="m", top_logprobs=1)
    event = merged_event(delta={"content": "😀"}, finish_reason=None)
    assert stream.unsplit(event) == {"😀"}
    stream.pieces["😀"] = PIECES
    assert stream.unsplit(event) == set()
    (chunk,) = stream.events(event)
    assert chunk is not None
    entries = chunk["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in entries] == [[240, 159], [152], [128]]
    assert [entry["token"] for entry in entries] == ["�"] * 3
    assert [entry["logprob"] for entry in entries] == [-9999.0, -9999.0, -2.5]
    assert [len(entry["top_logprobs"]) for entry in entries] == [0, 0, 1]


def test_a_character_in_other_tokens_than_the_tokenizer_s_stays_one_entry() -> None:
    stream = Stream(model="m", top_logprobs=1)
    stream.pieces["😀"] = [Piece(1, b"\xf0\x9f\x98"), Piece(2, b"\x80")]
    (chunk,) = stream.events(merged_event(delta={"content": "😀"}, finish_reason=None))
    assert chunk is not None
    assert [entry["bytes"] for entry in chunk["choices"][0]["logprobs"]["content"]] == [MERGED["bytes"]]


def test_in_legacy_form_a_character_moves_the_offset_once() -> None:
    stream = CompletionStream(model="m", top_logprobs=1)
    stream.pieces["😀"] = PIECES
    events = [merged_event(text="😀", finish_reason=None)] * 2
    chunks = [chunk for event in events for chunk in stream.events(event) if chunk is not None]
    offsets = [offset for chunk in chunks for offset in chunk["choices"][0]["logprobs"]["text_offset"]]
    assert offsets == [0, 0, 0, 1, 1, 1]
