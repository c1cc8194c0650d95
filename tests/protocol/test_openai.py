"""What callers may send: shapes that would be ignored or mis-read are refused at the border."""

from __future__ import annotations

from typing import Any

import pytest

from chaku.errors import InvalidRequest
from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest, prompts_of
from chaku.protocol.validation import check

HI = {"role": "user", "content": "hi"}
REFUSAL = [{"type": "refusal", "refusal": "No."}]


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        (ChatRequest, {"messages": [HI], "stop": ""}, "stop"),
        (ChatRequest, {"messages": [HI], "stop": ["a", ""]}, "stop.1"),
        (CompletionRequest, {"prompt": ""}, "prompt"),
        (CompletionRequest, {"prompt": ["a", ""]}, "prompt.1"),
        (CompletionRequest, {"prompt": [1, -1]}, "prompt.1"),
        (EmbeddingRequest, {"input": ""}, "input"),
        (EmbeddingRequest, {"input": [""]}, "input.0"),
        (ChatRequest, {"messages": [{"role": "user", "content": REFUSAL}]}, "messages.0.content.0"),
    ],
)
def test_empty_texts_and_foreign_parts_are_refused_where_they_are(kind: Any, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(kind, {"model": "m", **body})
    assert caught.value.param == param


def test_an_assistant_may_have_refused() -> None:
    check(ChatRequest, {"model": "m", "messages": [HI, {"role": "assistant", "content": REFUSAL}]})


@pytest.mark.parametrize(
    ("value", "prompts"), [("a", ["a"]), ([1, 2], [[1, 2]]), (["a", "b"], ["a", "b"]), ([[1], [2]], [[1], [2]])]
)
def test_prompts_come_one_by_one(value: Any, prompts: list[Any]) -> None:
    assert prompts_of(value) == prompts
