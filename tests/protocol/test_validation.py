"""What a refused request is told: its own field, in plain words, at a cost that does not grow with the body."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from chaku.errors import InvalidRequest
from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from chaku.protocol.validation import check
from chaku.serve.endpoints import ENDPOINTS

HI = {"role": "user", "content": "hi"}
PYDANTIC = re.compile(r"Input should|Value error|valid |validation|pattern|\^|\\d|instance of", re.IGNORECASE)


def refusal(kind: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(kind, {"model": "m", **fields})
    return caught.value


def chat(*messages: Any, **fields: Any) -> InvalidRequest:
    return refusal(ChatRequest, messages=list(messages) or [HI], **fields)


def part(**fields: Any) -> Any:
    return {"role": "user", "content": [{"type": "text", "text": "a"}, fields]}


@pytest.mark.parametrize(
    ("error", "param", "says"),
    [
        (lambda: chat(part(type="text", text="x", cache=1)), "messages.0.content.1.cache", "unknown parameter"),
        (lambda: chat(part(type="text", text=5)), "messages.0.content.1.text", "a text is needed"),
        (lambda: chat(part(type="text")), "messages.0.content.1.text", "missing parameter"),
        (lambda: chat(part(type="image_url", image_url={})), "messages.0.content.1.image_url.url", "missing parameter"),
        (lambda: chat(part(type="image")), "messages.0.content.1", "type must be one of 'text'"),
        (lambda: chat({"role": "function", "content": "x"}), "messages.0", "role must be one of 'system'"),
        (lambda: chat({"content": "x"}), "messages.0", "role is missing"),
        (lambda: chat({"role": "user", "content": 5}), "messages.0.content", "a text is needed"),
        (lambda: chat("hello"), "messages.0", "a mapping of keys to values is needed"),
        (lambda: chat(temperature="hot"), "temperature", "'hot': a number is needed"),
        (lambda: chat(temperature=2.5), "temperature", "at most 2"),
        (lambda: chat(n=1.5), "n", "a whole number is needed"),
        (lambda: chat(stream="yes"), "stream", "true or false is needed"),
        (lambda: chat(logit_bias={"a": 1}), "logit_bias.a", "a token id"),
        (lambda: chat(metadata={"a": 1}), "metadata.a", "a text is needed"),
        (lambda: chat(tool_choice="maybe"), "tool_choice", "'none', 'auto' or 'required'"),
        (
            lambda: chat(tools=[{"type": "x", "function": {"name": "f"}}]),
            "tools.0.type",
            "is 'x': 'function' is needed",
        ),
        (lambda: chat(response_format={"type": "xml"}), "response_format", "type must be one of 'text'"),
        (
            lambda: chat(tools=[{"type": "function", "function": {"name": "no spaces"}}]),
            "tools.0.function.name",
            "letters, digits",
        ),
        (lambda: refusal(ChatRequest, model="a\nb", messages=[HI]), "model", "printable characters"),
        (lambda: refusal(CompletionRequest, prompt=["a", 5]), "prompt.1", "a text is needed"),
        (lambda: refusal(CompletionRequest, prompt=[1, "a"]), "prompt.1", "a whole number is needed"),
        (lambda: refusal(CompletionRequest, prompt=[[1], [True]]), "prompt.1.0", "a whole number is needed"),
        (lambda: refusal(CompletionRequest, prompt=[]), "prompt", "at least 1"),
        (lambda: refusal(EmbeddingRequest, input=["a"] * 2049), "input", "at most 2,048"),
        (lambda: refusal(EmbeddingRequest), "input", "missing parameter"),
    ],
)
def test_the_field_at_fault_is_named_in_plain_words(error: Any, param: str, says: str) -> None:
    refused = error()
    assert refused.param == param
    assert says in refused.message
    assert not PYDANTIC.search(refused.message), refused.message
    assert refused.code


@pytest.mark.parametrize(
    "error",
    [
        lambda: refusal(CompletionRequest, prompt=[1] * 100_000 + ["x"]),
        lambda: refusal(CompletionRequest, prompt=["x"] * 100_000),
        lambda: refusal(CompletionRequest, prompt=[-1] * 100_000),
        lambda: chat(*[{"role": "nobody"}] * 10_000),
        lambda: chat(logit_bias=dict.fromkeys(map(str, range(10_000)), "x")),
        lambda: chat(stop=[1] * 10_000),
        lambda: chat(tools=[{"type": "function", "function": dict.fromkeys(map(str, range(10_000)), 1)}]),
        lambda: refusal(ChatRequest, messages=[HI], **dict.fromkeys(map(str, range(10_000)), 1)),
        lambda: refusal(ChatRequest, messages=[HI], **{"k" * 100_000: 1}),
        lambda: chat(user={"a": ["x" * 100_000]}),
    ],
)
def test_a_refusal_is_short_however_large_the_body(error: Any) -> None:
    refused = error()
    assert len(refused.message) < 400
    assert len(refused.param or "") < 200


def test_a_name_that_can_be_served_can_be_asked_for() -> None:
    for name in ("m" * 256, "Vicuña 13B v1.5", "org/name:file@rev"):
        assert check(ChatRequest, {"model": name, "messages": [HI]}).model == name
    assert refusal(ChatRequest, model="m" * 257, messages=[HI]).param == "model"


def _lists(schema: Any) -> Iterator[dict[str, Any]]:
    """Every list, set and tuple of a pydantic-core schema."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "set", "tuple") and "mode" not in schema:
            yield schema
        for inner in schema.values():
            yield from _lists(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            yield from _lists(inner)


@pytest.mark.parametrize("kind", sorted({row.wire.request for row in ENDPOINTS if row.wire}, key=str), ids=str)
def test_every_list_of_a_request_ends_at_its_first_fault(kind: type[BaseModel]) -> None:
    """Otherwise each wrong element costs half a kilobyte, many times what it takes in the body."""
    slow = [each for each in _lists(kind.__pydantic_core_schema__) if not each.get("fail_fast")]
    assert [each for each in slow if each.get("items_schema", {"type": "any"})["type"] != "any"] == []
