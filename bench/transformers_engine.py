"""Measure the transformers engine beside `generate` and llama.cpp, all on one model in one run.

    python bench/transformers_engine.py --folder FOLDER --gguf FILE

FOLDER and FILE hold the same model. Prints tokens per second for 1, 8 and 32 requests at once, and the ratio to
`generate`, which answers one request after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaku.engines.base import Call, Engine
from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
from chaku.engines.model_child import NO_STALL
from chaku.engines.transformers.engine import Settings as FolderSettings
from chaku.engines.transformers.engine import TransformersEngine
from chaku.models.tokenizers.tokenizer import load_tokenizer

CONCURRENCIES = (1, 8, 32)
PROMPT = "Write a long story about a lighthouse and the number {number}:"


async def tokens_per_s(engine: Engine, concurrency: int, num_tokens: int) -> float:
    """Of so many requests at once, each of so many tokens."""

    async def ask(number: int) -> int:
        body = {
            "prompt": PROMPT.format(number=number),
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        async with engine.ask(Call("completions", body, False, "bench")) as answer:
            return int((await answer.whole())["usage"]["completion_tokens"])

    began = time.perf_counter()
    counts = await asyncio.gather(*map(ask, range(concurrency)))
    return sum(counts) / (time.perf_counter() - began)


def generate_tokens_per_s(folder: Path, dtype: str, num_threads: int, num_tokens: int, num_requests: int = 3) -> float:
    """Of transformers' `generate`, one request after the other, in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(num_threads)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    tokenizer = load_tokenizer(folder)
    began = time.perf_counter()
    for number in range(num_requests):
        ids = torch.tensor([tokenizer.encode_text(PROMPT.format(number=number))])
        with torch.inference_mode():
            model.generate(ids, do_sample=False, max_new_tokens=num_tokens, min_new_tokens=num_tokens, pad_token_id=0)
    return num_requests * num_tokens / (time.perf_counter() - began)


async def measured(engine: Engine, num_tokens: int) -> list[float]:
    """Tokens per second for each concurrency."""
    await engine.start()
    try:
        return [await tokens_per_s(engine, concurrency, num_tokens) for concurrency in CONCURRENCIES]
    finally:
        await engine.stop()


def row(name: str, values: Sequence[float], base: float) -> str:
    """A row of the table."""
    return f"| {name} | " + " | ".join(f"{value:.1f} ({value / base:.2f}x)" for value in values) + " |"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--gguf", type=Path, required=True, help="the same model as GGUF")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    os.environ.update(NO_STALL)  # `generate` gets what the engines' children get, before torch is loaded
    base = generate_tokens_per_s(options.folder, options.dtype, options.threads, options.tokens)
    shape = {"context": 512, "slots": 32, "threads": options.threads}
    folder = FolderSettings(options.folder, dtype=options.dtype, **shape)
    ours = asyncio.run(measured(TransformersEngine("m", folder), options.tokens))
    settings = Settings(options.gguf, embeddings=False, **shape)
    llamacpp = asyncio.run(measured(LlamaCppEngine("m", settings), options.tokens))
    print(f"{platform.machine()}, {options.threads} threads, {options.dtype}, {options.tokens} tokens an answer")
    print("| tokens/s at | " + " | ".join(map(str, CONCURRENCIES)) + " |")
    print("|---|" + "---|" * len(CONCURRENCIES))
    print(row("generate, one by one", [base] * len(CONCURRENCIES), base))
    print(row("transformers engine", ours, base))
    print(row("llama.cpp", llamacpp, base))


if __name__ == "__main__":
    main()
