"""Engines on the real 135M model, one for each file of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from chaku.engines.base import State
from chaku.engines.llamacpp.engine import LlamaCppEngine
from engines.llamacpp_calls import started

TOOL_TEMPLATE = """
{%- if tools %}{{- '<|im_start|>system\\nCall one of these functions:\\n' }}
{%- for tool in tools %}{{- tool | tojson }}{{- '\\n' }}{%- endfor %}
{{- 'Write <tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2_path: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = await started(smollm2_path)
    yield engine
    await engine.stop()
    assert engine.status().state is State.STOPPED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tool_engine(smollm2_path: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = await started(smollm2_path, slots=2, chat_template=TOOL_TEMPLATE)
    yield engine
    await engine.stop()
