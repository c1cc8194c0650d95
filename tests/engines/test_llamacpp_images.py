"""Images through the gateway to llama.cpp's own image code: a projector of noise on the real 135M model."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
from engines.llamacpp_calls import NAME, control_tokens
from gateways import CHAT, Running, gateway
from gguf_mmproj import NUM_PATCHES, write_mmproj
from images.pictures import Image, saved

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    projector = write_mmproj(tmp_path_factory.mktemp("projector") / "mmproj.gguf", text_width=576)
    settings = Settings(
        smollm2_path, mmproj=projector, context=512, slots=1, threads=1, special_tokens=control_tokens(smollm2_path)
    )
    async with gateway(LlamaCppEngine(NAME, settings)) as g:
        yield g


def filled(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


async def asked(g: Running, *images: bytes) -> tuple[int, Any]:
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    parts = [{"type": "text", "text": "What is this?"}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"model": NAME, "temperature": 0, "max_tokens": 12, "messages": [{"role": "user", "content": parts}]}
    status, answer, _ = await g.post(CHAT, body)
    return status, answer


async def test_the_answer_depends_on_what_the_image_shows_and_its_tokens_are_counted(served: Running) -> None:
    assert "vision" in (await (await served.http.get(f"{served.url}/v1/models/{NAME}")).json())["capabilities"]
    (_, red), (_, blue), (_, again), (_, none) = [
        await asked(served, *images) for images in ([filled("red")], [filled("blue")], [filled("red")], [])
    ]
    texts = [answer["choices"][0]["message"]["content"] for answer in (red, blue, again)]
    assert texts[0] == texts[2] != texts[1]
    assert red["usage"]["prompt_tokens"] == none["usage"]["prompt_tokens"] + NUM_PATCHES


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
async def test_llama_cpp_reads_the_image_that_is_left_without_metadata(served: Running, form: str) -> None:
    status, answer = await asked(served, saved(form))
    assert status == 200, answer


async def test_a_format_that_llama_cpp_does_not_read_is_refused_with_those_that_it_does(served: Running) -> None:
    status, answer = await asked(served, filled("red"), saved("WEBP"))
    assert (status, answer["error"]["code"]) == (400, "invalid_image")
    assert "reads JPEG, PNG and GIF, not WebP" in answer["error"]["message"]
    assert answer["error"]["param"] == "messages.0.content.2"
