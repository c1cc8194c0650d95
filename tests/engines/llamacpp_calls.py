"""Calls to a llama.cpp engine for tests: every answer is checked against OpenAI's own types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import orjson
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from chaku.engines.base import Answer, Call
from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings

NAME = "smollm2-135m"
PROGRAM = Path(os.environ["CHAKU_TEST_LLAMA_SERVER"]) if "CHAKU_TEST_LLAMA_SERVER" in os.environ else None
"""A llama-server that takes the place of the wheel in every test of the engine; None: the wheel."""

PARIS = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]

STORY = [{"role": "user", "content": "Write a long story about a lighthouse."}]


def control_tokens(path: Path) -> tuple[str, ...]:
    fields = gguf.GGUFReader(path).fields
    texts, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    control = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL
    return tuple(
        bytes(texts.parts[text]).decode()
        for text, kind in zip(texts.data, kinds.data, strict=True)
        if kinds.parts[kind][0] == control
    )


async def started(path: Path, **settings: Any) -> LlamaCppEngine:
    # one thread: two would wait for each other at every layer wherever something else uses a core
    options = {"slots": 4, "special_tokens": control_tokens(path), "threads": 1, "program": PROGRAM} | settings
    engine = LlamaCppEngine(NAME, Settings(path, **options))
    await engine.start()
    return engine


def call(route: Any = "chat", stream: bool = False, **body: Any) -> Call:
    if route == "chat":
        body.setdefault("messages", PARIS)
    if route != "embeddings":
        body.setdefault("temperature", 0)
        body.setdefault("max_tokens", 12)
    return Call(route, body, stream, "test")


async def whole(engine: LlamaCppEngine, route: Any = "chat", **body: Any) -> dict[str, Any]:
    async with engine.ask(call(route, **body)) as answer:
        response = orjson.loads(orjson.dumps(await answer.whole()))
    if route == "chat":
        ChatCompletion.model_validate(response)
        assert response["id"].startswith("chatcmpl-")
    elif route == "completions":
        Completion.model_validate(response, strict=True)
        assert response["id"].startswith("cmpl-")
    assert "timings" not in response and response["model"] == NAME
    return response


async def chunks_of(answer: Answer) -> list[dict[str, Any]]:
    blocks = [block async for block in answer.blocks()]
    assert all(block.data.endswith(b"\n\n") for block in blocks)
    assert [block.is_last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert [block.usage is not None for block in blocks] == [False] * (len(blocks) - 2) + [True, False]
    events = b"".join(block.data for block in blocks).split(b"\n\n")[:-1]
    assert events[-1] == b"data: [DONE]"
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


async def streamed(engine: LlamaCppEngine, route: Any = "chat", **body: Any) -> list[dict[str, Any]]:
    async with engine.ask(call(route, stream=True, **body)) as answer:
        chunks = await chunks_of(answer)
    for chunk in chunks:
        if route == "chat":
            ChatCompletionChunk.model_validate(chunk)
        else:  # OpenAI's API sends null before the end, which its own type does not allow
            ends = [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
            Completion.model_validate(chunk | {"choices": ends}, strict=True)
        assert chunk["id"] == chunks[0]["id"] and "timings" not in chunk and chunk["model"] == NAME
    assert [bool(chunk["choices"]) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert [("usage" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    finished = [choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert sorted(finished) == list(range(len(finished)))
    return chunks


def text_of(response: dict[str, Any], index: int = 0) -> str:
    choice = response["choices"][index]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def joined(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)
