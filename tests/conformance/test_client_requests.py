"""What popular clients send by default is accepted as it is. client_requests.jsonl was recorded from them.

Each line is one distinct request: client, its version, what it was asked to do, path and body (long texts cut short).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaku.engines.base import Capabilities
from chaku.engines.scripted import Script, ScriptedEngine
from gateways import Running, gateway

RECORDED: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "client_requests.jsonl").read_text().splitlines()
]
CLIENTS = {
    *("openai (PyPI)", "openai (npm)", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "litellm", "langchain-openai"),
    *("llama-index-llms-openai-like", "llm", "instructor", "pydantic-ai-slim", "openai-agents", "autogen-ext"),
    *("lm-eval", "guidellm"),
}


class AbleEngine(ScriptedEngine):
    """A scripted engine that says it can do everything: what is refused is refused for its shape."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            routes=frozenset({"chat", "completions"}),
            parameters=frozenset({
                *("n", "seed", "logprobs", "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty"),
                *("response_format", "parallel_tool_calls", "reasoning_effort", "echo", "suffix", "best_of"),
            }),
            tools=True,
            vision=True,
            slots=8,
        )  # fmt: skip


async def ask(g: Running, recorded: dict[str, Any]) -> tuple[int, str]:
    async with g.http.post(g.url + recorded["path"], json=recorded["body"]) as response:
        return response.status, await response.text()


def test_every_client_is_recorded() -> None:
    assert {row["client"] for row in RECORDED} == CLIENTS
    majors = {row["version"].split(".")[0] for row in RECORDED if row["client"] == "openai (PyPI)"}
    assert majors == {"1", "2", "3"}


async def test_every_recorded_request_is_accepted() -> None:
    refused = []
    async with gateway(AbleEngine("scripted", Script())) as g:
        for row in RECORDED:
            if row["path"] == "/v1/embeddings":
                continue
            status, text = await ask(g, row)
            if status != 200:
                refused.append((row["client"], row["version"], row["case"], text[:200]))
    assert not refused


async def test_a_model_without_tools_or_schemas_names_what_it_lacks_and_takes_the_rest() -> None:
    lacking = ("tools", "response_format", "parallel_tool_calls", "seed", "messages.")
    async with gateway() as g:
        for row in RECORDED:
            if row["path"] == "/v1/embeddings":
                continue
            status, text = await ask(g, row)
            if status != 200:
                param = json.loads(text)["error"]["param"]
                assert param.startswith(lacking), (row["client"], row["case"], text)


@pytest.mark.parametrize("row", [row for row in RECORDED if row["path"] == "/v1/embeddings"])
async def test_embeddings_are_refused_for_the_model_alone(row: dict[str, Any]) -> None:
    async with gateway() as g:
        status, text = await ask(g, row)
    assert (status, json.loads(text)["error"]["param"]) == (400, "model")
