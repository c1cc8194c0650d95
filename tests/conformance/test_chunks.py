"""Every chunk of each kind of stream is complete: by the openai package's models, strictly, and by our OpenAPI page."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from chaku_server import MODEL, ChakuServer

pytestmark = pytest.mark.model

FRANCE = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 20}, "old": {"type": "boolean"}},
            "required": ["name", "old"],
            "additionalProperties": False,
        },
    },
}
KNOWN = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "n": {"n": 2, "temperature": 1},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "logprobs_alone": {"logprobs": True},
    "usage": {"stream_options": {"include_usage": True}},
    "json_schema": {"response_format": SCHEMA, "max_tokens": 60},
    "stop": {"stop": ["Paris"]},
    "length": {"max_tokens": 2},
    "special_token_in_text": {"messages": [{"role": "user", "content": "What does <|im_end|> mean?"}]},
    "special_token_and_n": {"messages": [{"role": "user", "content": "<|im_start|>?"}], "n": 2, "logprobs": True},
}
NAMES = [pytest.param(name, marks=pytest.mark.needs(*(CASES[name].keys() & {"response_format"}))) for name in CASES]
TEXT_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "n": {"n": 2, "temperature": 1},
    "logprobs": {"logprobs": 2},
    "logprobs_zero": {"logprobs": 0},
    "usage": {"stream_options": {"include_usage": True}},
    "stop": {"stop": [" the"]},
    "echo": {"echo": True},
    "two_prompts": {"prompt": ["The capital of France is", "One, two,"]},
    "two_prompts_twice": {"prompt": ["The capital of France is", "One, two,"], "n": 2},
    "ids": {"prompt": [504, 3575, 282, 4649]},
}


@pytest.fixture(scope="module")
def schemas(served: ChakuServer) -> dict[str, Any]:
    return served.get("/openapi.json")[1]["components"]


def events(served: ChakuServer, path: str, body: dict[str, Any]) -> Iterator[str]:
    request = urllib.request.Request(
        served.base_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        text = response.read().decode()
    assert text.endswith("\n\n")
    for event in text.removesuffix("\n\n").split("\n\n"):
        assert event.startswith("data: "), event
        yield event.removeprefix("data: ")


def checked(served: ChakuServer, schemas: dict[str, Any], path: str, body: dict[str, Any], kind: Any) -> list[Any]:
    """The chunks of a stream, each of them checked."""
    *data, done = events(served, path, {"model": MODEL, "temperature": 0, "max_tokens": 24, "stream": True, **body})
    assert done == "[DONE]"
    name = "TextCompletion" if kind is Completion else "ChatChunk"
    ours = jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": schemas})
    chunks = [json.loads(one) for one in data]
    for chunk in chunks:
        ours.validate(chunk)
        assert chunk.keys() <= KNOWN, chunk
        assert chunk["model"] == MODEL
        if kind is Completion:  # that package has one model for whole texts and chunks: there the reason is never null
            choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
            chunk = {**chunk, "choices": choices}
        kind.model_validate(chunk, strict=True)
    assert len({chunk["id"] for chunk in chunks}) == 1
    if body.get("stream_options"):
        assert [bool(chunk["choices"]) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        assert chunks[-1]["usage"]["completion_tokens"] > 0
    else:
        assert all(chunk["choices"] and not chunk.get("usage") for chunk in chunks)
    return chunks


def by_index(chunks: list[Any]) -> dict[int, list[Any]]:
    choices: dict[int, list[Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            choices.setdefault(choice["index"], []).append(choice)
    return choices


@pytest.mark.parametrize("name", NAMES)
def test_every_chunk_of_a_chat_is_complete(served: ChakuServer, schemas: dict[str, Any], name: str) -> None:
    body = {"messages": FRANCE, **CASES[name]}
    choices = by_index(checked(served, schemas, "/chat/completions", body, ChatCompletionChunk))
    assert sorted(choices) == list(range(body.get("n", 1)))
    for pieces in choices.values():
        assert pieces[0]["delta"]["role"] == "assistant"
        assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1]["finish_reason"] in ("stop", "length")
        assert not pieces[-1]["delta"].get("content")
        text = "".join(piece["delta"].get("content") or "" for piece in pieces)
        assert text or name == "stop"
        assert "Paris" not in text if name == "stop" else True
        if name == "json_schema":
            assert json.loads(text).keys() == {"name", "old"}
        if body.get("logprobs"):
            tokens = [token for piece in pieces if piece.get("logprobs") for token in piece["logprobs"]["content"]]
            assert "".join(token["token"] for token in tokens) == text
            assert {len(token["top_logprobs"]) for token in tokens} == {body.get("top_logprobs", 0)}
    if name == "length":
        assert choices[0][-1]["finish_reason"] == "length"


@pytest.mark.parametrize("name", TEXT_CASES)
def test_every_chunk_of_a_completion_is_complete(served: ChakuServer, schemas: dict[str, Any], name: str) -> None:
    body = {"prompt": "The capital of France is", "max_tokens": 8, **TEXT_CASES[name]}
    choices = by_index(checked(served, schemas, "/completions", body, Completion))
    prompts = body["prompt"] if isinstance(body["prompt"], list) and isinstance(body["prompt"][0], str) else [None]
    assert sorted(choices) == list(range(body.get("n", 1) * len(prompts)))
    for pieces in choices.values():
        text = "".join(piece["text"] for piece in pieces)
        assert pieces[-1]["finish_reason"] in ("stop", "length")
        if body.get("echo"):
            assert text.startswith(body["prompt"])
        if body.get("logprobs") is not None:
            found = [piece["logprobs"] for piece in pieces if piece["logprobs"]]
            assert "".join(token for one in found for token in one["tokens"]) == text
            tops = {len(top) for one in found for top in one["top_logprobs"]}
            assert tops == {body["logprobs"]} or name == "logprobs_zero"


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_answer_is_complete_too(served: ChakuServer, schemas: dict[str, Any], name: str) -> None:
    fields = {key: value for key, value in CASES[name].items() if key != "stream_options"}
    body = {"model": MODEL, "temperature": 0, "max_tokens": 24, "messages": FRANCE, **fields}
    request = urllib.request.Request(
        served.base_url + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    ours = jsonschema_rs.validator_for({"$ref": "#/components/schemas/ChatCompletion", "components": schemas})
    ours.validate(answer)
    ChatCompletion.model_validate(answer, strict=True)
    assert answer.keys() <= KNOWN
    assert len(answer["choices"]) == body.get("n", 1)
