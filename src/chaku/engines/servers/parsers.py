"""Which parser of vLLM and SGLang reads a model family's tool calls and thoughts: one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parsers:
    """Names of a server's parsers; None where the model has no such ability, or none is known."""

    tools: str | None = None
    reasoning: str | None = None


_THINKS = "<think>"
_GPT_OSS = "gpt_oss"
_QWEN = ("qwen2", "qwen2_moe", "qwen2_5_vl", "qwen3", "qwen3_moe", "qwen3_vl", "qwen3_next")
_DEEPSEEK = ("deepseek_v3", "deepseek_v32")
_GLM = ("glm4_moe",)
_TABLE = {
    # model types: (tools of vLLM, of SGLang), (reasoning of vLLM, of SGLang)
    _QWEN: (("hermes", "qwen25"), ("qwen3", "qwen3")),
    ("llama", "mllama"): (("llama3_json", "llama3"), ("deepseek_r1", "deepseek-r1")),
    ("llama4",): (("llama4_pythonic", "pythonic"), (None, None)),
    ("mistral", "mistral3", "mixtral"): (("mistral", "mistral"), (None, None)),
    _DEEPSEEK: (("deepseek_v3", "deepseekv3"), ("deepseek_r1", "deepseek-r1")),
    ("kimi_k2",): (("kimi_k2", "kimi_k2"), ("kimi_k2", "kimi_k2")),
    _GLM: (("glm45", "glm45"), ("glm45", "glm45")),
    (_GPT_OSS,): (("openai", "gpt-oss"), ("openai_gptoss", "gpt-oss")),
}
_SPELLINGS = {"hermes": "<tool_call>", "llama3_json": '"parameters"', "mistral": "[TOOL_CALLS]"}
"""What a template shows its model where several formats are found in one family."""


def parsers_for(server: str, model_type: str | None, template: str | None) -> Parsers:
    """The parsers of `server` for a model: by its family, and only for what its chat template shows.

    A template that never reads `tools` has no tools; one without a place for thoughts has none.
    """
    row = next((found for types, found in _TABLE.items() if model_type in types), None)
    if template is None:
        return Parsers()
    which = 0 if server == "vllm" else 1
    tools = reasoning = None
    if row is not None:
        (tools, reasoning) = (column[which] for column in row)
        shown = _SPELLINGS.get(row[0][0] or "")
        if shown is not None and shown not in template:
            tools = None
    if tools is None and _SPELLINGS["hermes"] in template:  # the commonest format, whatever the family
        tools = _TABLE[_QWEN][0][which]
    if "tools" not in template:
        tools = None
    thinks = _THINKS in template or model_type == _GPT_OSS
    return Parsers(tools, reasoning if thinks else None)
