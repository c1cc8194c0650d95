"""llama.cpp on a GGUF, asked with ids and answering with ids, by its own endpoints."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings


@dataclass(frozen=True)
class Running:
    """An engine that answers."""

    session: aiohttp.ClientSession

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self.session.post(path, json=body) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def greedy_ids(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """The most likely ids after these."""
        body = {"prompt": list(prompt), "n_predict": num_tokens, "temperature": 0, "return_tokens": True}
        ids: list[int] = (await self.post("/completion", body | {"cache_prompt": False}))["tokens"]
        return ids

    async def log_probabilities(self, prompt: Sequence[int], num_tokens: int) -> dict[int, float]:
        """Of the most likely next ids, by id."""
        body = {"prompt": list(prompt), "n_predict": 1, "temperature": 0, "n_probs": num_tokens, "cache_prompt": False}
        answer = await self.post("/completion", body)
        return {entry["id"]: entry["logprob"] for entry in answer["completion_probabilities"][0]["top_logprobs"]}

    async def ids_of(self, text: str) -> list[int]:
        """Ids of plain text."""
        body = {"content": text, "add_special": False, "parse_special": False}
        ids: list[int] = (await self.post("/tokenize", body))["tokens"]
        return ids


@contextlib.asynccontextmanager
async def running(path: Path, context: int = 512) -> AsyncIterator[Running]:
    engine = LlamaCppEngine("m", Settings(path, slots=1, context=context, threads=1, embeddings=False))
    await engine.start()
    try:
        url, key = engine.endpoint
        # llama.cpp closes kept connections now and then
        connector = aiohttp.TCPConnector(force_close=True)
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:
            yield Running(session)
    finally:
        await engine.stop()
