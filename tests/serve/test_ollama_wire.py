"""Ollama's own client asks a gateway: chats, generations, tools, images, embeddings, and errors in its words."""

from __future__ import annotations

import base64
import json
from typing import Any

import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canned_engine import CannedEngine, tool_call
from chaku.engines.base import Block
from chaku.engines.scripted import Reply
from chaku.errors import InvalidRequest
from chaku.protocol.ollama import OllamaChatRequest, OllamaGenerateRequest
from chaku.protocol.validation import read_request
from chaku.serve.wires.ollama import OllamaChatWire, OllamaGenerateWire
from gateways import gateway, scripted

TALK: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()


def chat(**fields: Any) -> Any:
    """The translation of a chat."""
    return OllamaChatWire().translate(read_request(OllamaChatRequest, {"model": "m", "messages": TALK, **fields}), {})


async def test_the_official_client_chats_generates_and_lists() -> None:
    engine = scripted(Reply(match="loud", text="", fault="refuse"), Reply(text="You said: {prompt}", reasoning="Hm."))
    async with gateway(engine) as g, ollama.AsyncClient(host=f"{g.url}/ollama") as client:
        whole = await client.chat("scripted", TALK, options={"num_predict": 50, "num_ctx": 4096}, keep_alive="5m")
        pieces = [piece async for piece in await client.chat("scripted", TALK, stream=True)]
        said = await client.generate("scripted", "hi there", system="Be brief.")
        raw = [piece async for piece in await client.generate("scripted", "once", raw=True, stream=True)]
        models = (await client.list()).models
        shown = await client.show("scripted")
        for call, status in (
            (client.chat("nobody", TALK), 404),
            (client.chat("scripted", TALK, options={"mirostat": 2}), 400),
            (client.show("nobody"), 404),
            (client.generate("scripted", "loud"), 502),
        ):
            with pytest.raises(ollama.ResponseError) as failed:
                await call
            assert failed.value.status_code == status
    assert (whole.message.content, whole.message.thinking) == ("You said: hello", "Hm.")
    assert whole.done and whole.done_reason == "stop" and whole.eval_count and whole.total_duration
    assert "".join(piece.message.content or "" for piece in pieces) == "You said: hello"
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].eval_count == whole.eval_count
    assert said.response == "You said: hi there"
    assert "".join(piece.response or "" for piece in raw) and raw[-1].done
    assert [model.model for model in models] == ["scripted"]
    assert "completion" in (shown.capabilities or [])
    assert [exchange.route for exchange in g.exchanges][:4] == ["chat", "chat", "chat", "completions"]


async def test_a_stream_is_the_default_and_a_late_failure_is_its_last_line() -> None:
    engine = scripted(Reply(text="one two three four five six", fault="break_off", fault_after_tokens=2))
    async with gateway(engine) as g, g.http.post(
        f"{g.url}/ollama/api/chat", json={"model": "scripted", "messages": TALK, "options": {"num_ctx": 8}}
    ) as response:  # fmt: skip
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["x-chaku-note"] == "num_ctx: the server's own settings hold"
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert "error" in lines[-1] and not any(line.get("done") for line in lines)


def test_options_become_sampling_parameters() -> None:
    options = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7, "num_predict": 8, "stop": ["x"],
        "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.25, "num_thread": 4,
    }  # fmt: skip
    asked = chat(options=options, format={"type": "object"}, think=False, stream=False)
    assert asked.body == {
        "model": "m", "messages": TALK, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7,
        "max_tokens": 8, "stop": ["x"], "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.25,
        "reasoning_effort": "none",
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
    }  # fmt: skip
    assert "max_tokens" not in chat(options={"num_predict": -1}).body
    assert chat(format="json").body["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat(format="").body


def test_tool_results_answer_the_oldest_open_call_of_their_tool() -> None:
    calls = [{"function": {"name": name, "arguments": {"n": n}}} for n, name in enumerate(("a", "b", "a"))]
    talk = [
        *TALK, {"role": "assistant", "tool_calls": calls},
        *({"role": "tool", "tool_name": name, "content": name} for name in ("a", "a", "b")),
    ]  # fmt: skip
    messages = chat(messages=talk).body["messages"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_1", "call_2", "call_3"]
    assert json.loads(messages[1]["tool_calls"][2]["function"]["arguments"]) == {"n": 2}
    assert [message["tool_call_id"] for message in messages[2:]] == ["call_1", "call_3", "call_2"]
    with pytest.raises(InvalidRequest, match="follows no call"):
        chat(messages=[*TALK, {"role": "tool", "tool_name": "a", "content": "x"}])


def test_images_are_taken_as_base64_of_known_kinds() -> None:
    (message,) = chat(messages=[{"role": "user", "content": "see", "images": [PNG]}]).body["messages"]
    assert message["content"][0] == {"type": "text", "text": "see"}
    assert message["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    with pytest.raises(InvalidRequest, match="PNG, JPEG"):
        chat(messages=[{"role": "user", "images": ["/etc/passwd"]}])
    raw = {"model": "m", "prompt": "x", "raw": True, "images": [PNG]}
    with pytest.raises(InvalidRequest, match="images needs a chat template"):
        OllamaGenerateWire().translate(read_request(OllamaGenerateRequest, raw), {})


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.dictionaries(st.text(max_size=5), st.integers()),
)
def test_a_call_comes_whole_however_its_arguments_are_cut(cuts: list[int], arguments: dict[str, int]) -> None:
    text, pieces = json.dumps(arguments, indent=1), []
    for cut in cuts:
        pieces.append(text[:cut])
        text = text[cut:]
    asked = chat()
    lines: list[dict[str, Any]] = []
    for number, piece in enumerate([*pieces, text]):
        function = {"arguments": piece} | ({"name": "f"} if not number else {})
        delta = {"tool_calls": [{"index": 0, "id": "c", "function": function}]}
        event = {"id": "x-1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        block = Block(b"data: " + json.dumps(event).encode() + b"\n\n", num_tokens=1)
        lines += [json.loads(line) for line in asked.piece(block).splitlines()]
    assert not lines
    end = {"id": "x-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    block = Block(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n", is_last=True)
    call, last = (json.loads(line) for line in asked.piece(block).splitlines())
    assert call["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": arguments}}]
    assert (last["done"], last["done_reason"]) == (True, "stop")


async def test_a_call_that_the_limit_cut_off_is_left_out_and_the_reason_says_so() -> None:
    calls = tool_call(0, "a", "weather", '{"town": "Paris"}'), tool_call(1, "b", "weather", '{"town": ')
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    async with (
        gateway(CannedEngine(*calls, finish_reason="length")) as g,
        ollama.AsyncClient(host=f"{g.url}/ollama") as client,
    ):
        whole = await client.chat("canned", TALK, tools=tools)
        pieces = [piece async for piece in await client.chat("canned", TALK, tools=tools, stream=True)]
    for message in (whole.message, pieces[0].message):
        assert [call.function.arguments for call in message.tool_calls or ()] == [{"town": "Paris"}]
    assert whole.done_reason == pieces[-1].done_reason == "length"
