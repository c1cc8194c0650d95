"""OpenAI's requests in the words of llama.cpp's server. Pure: dicts in, dicts out.

llama.cpp is always asked to stream, also for a whole answer. It does not notice that a client hung up on a request
that does not stream. And only its streams carry the usage of every choice.
"""

from __future__ import annotations

from typing import Any

_SAME_NAME = (
    "temperature", "top_p", "n", "stop", "logit_bias", "presence_penalty", "frequency_penalty",
    "top_k", "min_p", "ignore_eos",
)  # fmt: skip
_CHAT_ONLY = ("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format")
_DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens on /v1/completions; llama.cpp's is the rest of the context."""
_PENALTY_WINDOW_TOKENS = 1 << 17
"""Penalties look back so far; llama.cpp's default is 64 tokens. It takes no -1, and allocates this."""
_MAX_SEED = 0xFFFFFFFF
"""llama.cpp's word for "draw one", so seeds are taken modulo this."""


def chat_request(body: dict[str, Any], *, model: str, template_kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """A request for llama.cpp's own chat route."""
    request = _sampling(body, model)
    request |= {name: body[name] for name in _CHAT_ONLY if body.get(name) is not None}
    request |= _limit(body, None)
    if body.get("logprobs"):
        request |= {"logprobs": True, "top_logprobs": max(1, body.get("top_logprobs") or 0)}
    if template_kwargs:
        request["chat_template_kwargs"] = template_kwargs
    return request


def raw_chat_request(body: dict[str, Any], ids: list[int], *, model: str) -> dict[str, Any]:
    """A chat as a completion of ids that were rendered elsewhere; the caller adds a `json_schema` for forced tools."""
    request = _sampling(body, model) | {"prompt": ids} | _limit(body, -1)
    if body.get("logprobs"):
        request["logprobs"] = max(1, body.get("top_logprobs") or 0)
    return request | _grammar(body)


def completion_request(body: dict[str, Any], *, model: str) -> dict[str, Any]:
    """A request for the completions route. Special tokens spelled in a raw prompt are special: the caller wrote it."""
    request = _sampling(body, model) | {"prompt": body["prompt"]} | _limit(body, _DEFAULT_COMPLETION_TOKENS)
    if body.get("logprobs") is not None and body["logprobs"] is not False:
        request["logprobs"] = max(1, int(body["logprobs"]))
    return request | _grammar(body)


def _sampling(body: dict[str, Any], model: str) -> dict[str, Any]:
    request = {name: body[name] for name in _SAME_NAME if body.get(name) is not None}
    request |= {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if body.get("stop"):
        request["verbose"] = True  # only then the last event names the stop sequence
    if body.get("seed") is not None:
        request["seed"] = body["seed"] % _MAX_SEED
    if body.get("repetition_penalty") is not None:
        request["repeat_penalty"] = body["repetition_penalty"]
    if request.keys() & {"presence_penalty", "frequency_penalty", "repeat_penalty"}:
        request["repeat_last_n"] = _PENALTY_WINDOW_TOKENS
    return request


def _limit(body: dict[str, Any], default: int | None) -> dict[str, Any]:
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or default
    return {} if limit is None else {"max_tokens": limit}


def _grammar(body: dict[str, Any]) -> dict[str, Any]:
    schema = answer_schema(body)
    return {} if schema is None else {"json_schema": schema}


def answer_schema(body: dict[str, Any]) -> Any:
    """The JSON schema that `response_format` holds an answer to; None where it may be any text."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    if wanted.get("type") == "json_schema":
        return wanted["json_schema"].get("schema") or {}
    return None


def forced_tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions of which one must be called, by `tool_choice`; empty where it may answer in text."""
    choice = body.get("tool_choice")
    functions = [tool["function"] for tool in body.get("tools") or ()]
    if choice == "required":
        return functions
    if isinstance(choice, dict):
        return [function for function in functions if function["name"] == choice["function"]["name"]]
    return []
