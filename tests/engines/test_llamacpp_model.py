"""What a loaded model is and can: the real llama.cpp with the real 135M model."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from chaku.engines.llamacpp.engine import LlamaCppEngine
from engines.llamacpp_calls import call, joined, started, streamed, text_of, whole
from gguf_files import with_values

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


async def test_capabilities_are_those_of_the_model(engine: LlamaCppEngine) -> None:
    known = engine.capabilities
    assert (known.context_tokens, known.slots) == (2048, 4)
    assert 130e6 < (known.num_parameters or 0) < 165e6
    assert not (known.tools or known.vision or known.reasoning)
    assert "knows no tools" in known.why_not["tools"]
    assert known.routes == {"chat", "completions", "embeddings"}
    assert {"n", "seed", "logprobs", "response_format", "top_k", "ignore_eos"} <= known.parameters


THINKING_TEMPLATE = """
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}
"""


OPENING_TEMPLATE = THINKING_TEMPLATE.replace("<think>\\n' }}{%- endif %}", "' }}{%- endif %}")
"""Left to itself, the model may open a thought; the prompt opens none."""
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}


async def assert_json_from_the_first_token(engine: LlamaCppEngine) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}}
    message = (await whole(engine, response_format=wanted, max_tokens=40))["choices"][0]["message"]
    assert json.loads(message["content"])["city"] and "reasoning_content" not in message
    chunks = await streamed(engine, response_format={"type": "json_object"})
    assert joined(chunks).startswith("{")
    assert not any("reasoning_content" in choice["delta"] for chunk in chunks for choice in chunk["choices"])


async def test_reasoning_has_its_own_field(smollm2_path: Path) -> None:
    engine = await started(smollm2_path, slots=1, chat_template=THINKING_TEMPLATE, kv_type="q8_0", embeddings=False)
    try:
        assert engine.capabilities.reasoning and "embeddings" not in engine.capabilities.routes
        message = (await whole(engine))["choices"][0]["message"]
        assert message["reasoning_content"] and not message["content"]
        deltas = [choice["delta"] for chunk in await streamed(engine) for choice in chunk["choices"]]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message["reasoning_content"]
        await assert_json_from_the_first_token(engine)
    finally:
        await engine.stop()


async def test_no_thought_is_opened_before_an_answer_that_a_schema_holds(smollm2_path: Path) -> None:
    engine = await started(smollm2_path, slots=1, chat_template=OPENING_TEMPLATE, embeddings=False, stops=("}",))
    try:
        await assert_json_from_the_first_token(engine)
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        asked = call(messages=[{"role": "user", "content": [picture]}], response_format={"type": "json_object"})
        assert (await engine.planner.plan(asked)).request["reasoning_format"] == "none"
    finally:
        await engine.stop()


async def test_sampling_metadata_in_the_file_does_not_replace_the_api_s_defaults(
    smollm2_path: Path, tmp_path: Path
) -> None:
    opinionated = tmp_path / "opinionated.gguf"
    opinions = {"general.sampling.temp": 0.1, "general.sampling.top_k": 3, "general.sampling.top_p": 0.5}
    opinionated.write_bytes(with_values(smollm2_path.read_bytes(), opinions))
    engine = await started(opinionated, slots=1)  # start refuses other defaults than the API's
    try:
        async with engine._chat.use() as speaker:
            _, props = await speaker.server.http.json("GET", "/props")
        defaults = props["default_generation_settings"]["params"]
        assert [defaults[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [1, 0, 1, 0]
    finally:
        await engine.stop()


async def test_an_adapter_changes_what_the_model_says(
    engine: LlamaCppEngine, smollm2_path: Path, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "adapter.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    random = np.random.default_rng(0)
    for name, shape in (("lora_a", (1, 576)), ("lora_b", (576, 1))):  # rank 1; the model is 576 wide
        writer.add_tensor(f"blk.0.attn_output.weight.{name}", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    adapted = await started(smollm2_path, slots=1, embeddings=False, lora=(tmp_path / "adapter.gguf",))
    try:
        assert text_of(await whole(adapted)) != text_of(await whole(engine))
    finally:
        await adapted.stop()
