"""Can this model honour this request? Every field is honoured by the engine or refused here, with the reason."""

from __future__ import annotations

from typing import Any

from chaku.engines.base import Capabilities, Route
from chaku.errors import InvalidRequest

ROUTE_PATHS: dict[Route, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}

# Of no meaning to an engine of our own; an upstream may account for them or route by them.
LABELS = (
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "store",
    "service_tier",
    "modalities",
    "verbosity",
)

# Needs no engine: the gateway itself honours these, or they ask for nothing.
PLAIN = frozenset(
    {
        *("model", "messages", "prompt", "input", "stream", "stream_options", "temperature", "top_p"),
        *("max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice", "encoding_format"),
        "add_generation_prompt",
        *LABELS,
    }
)

# What OpenAI does anyway when the field is left out: asking for it asks for nothing.
_DEFAULTS: dict[str, Any] = {
    "n": 1,
    "logprobs": False,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "parallel_tool_calls": True,
    "echo": False,
    "best_of": 1,
    "suffix": "",
    "top_k": -1,
    "min_p": 0,
    "repetition_penalty": 1,
    "ignore_eos": False,
    "continue_final_message": False,
}

_OF_TOOLS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})

# Switches off what a model without the ability does not do anyway.
_OFF = {"reasoning_effort": "none"}

# A null inside is a field left out too. So many objects deep; a JSON schema further in keeps its nulls.
_NULLS_INSIDE = {"tools": 2, "response_format": 2}


def fit(model: str, route: Route, body: dict[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    """The body as the engine gets it: nulls, defaults and what only the gateway needs are gone.

    Raises InvalidRequest naming the field that `model` can't honour, and why.
    """
    if route not in capabilities.routes:
        why = capabilities.why_not.get(route, "its engine has no such route")
        raise InvalidRequest(f"{model} does not serve {ROUTE_PATHS[route]}: {why}", param="model")
    if body.get("tools") and not capabilities.tools:
        body = _without_tools(model, body, capabilities)
    wanted = _honoured(model, body, capabilities)
    _check_num_answers(model, wanted, capabilities)
    if route == "completions":
        _check_scoring(model, wanted, capabilities)
    for field, depth in _NULLS_INSIDE.items():
        if field in wanted:
            wanted[field] = _without_nulls(wanted[field], depth)
    if route == "chat":
        wanted["messages"] = [
            message if type(message.get("content")) is str and "refusal" not in message else _with_content(message, i)
            for i, message in enumerate(wanted["messages"])
        ]
        _check_continuation(model, body, capabilities)
        wanted.pop("add_generation_prompt", None)
        _check_combinations(wanted)
        _check_tools(model, wanted, capabilities)
        _check_parts(model, wanted["messages"], capabilities)
    return wanted


def _honoured(model: str, body: dict[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    """The fields that the engine is to get. Raises InvalidRequest for one that it does not honour."""
    wanted: dict[str, Any] = {}
    for field, value in body.items():
        if value is None or _asks_for_nothing(field, value):
            continue
        if value == _OFF.get(field) and field not in capabilities.parameters:
            continue
        if field not in PLAIN and field not in capabilities.parameters:
            why = capabilities.why_not.get(field, "its engine does not honour it")
            raise _refuse(field, f"{model} can't honour {field}: {why}")
        wanted[field] = value
    for field in ("stream_options", *(() if capabilities.labels else LABELS)):
        wanted.pop(field, None)
    return wanted


def _check_num_answers(model: str, wanted: dict[str, Any], capabilities: Capabilities) -> None:
    num_answers = wanted.get("n", 1)
    if capabilities.slots is not None and num_answers > capabilities.slots:
        raise InvalidRequest(
            f"n is {num_answers}, {model} answers {capabilities.slots} at once", fix="lower n", param="n"
        )


def _check_scoring(model: str, wanted: dict[str, Any], capabilities: Capabilities) -> None:
    """With max_tokens 0 a completion only scores its prompt."""
    if wanted.get("max_tokens") != 0:
        return
    if not capabilities.scores_prompts:
        raise InvalidRequest(
            f"max_tokens is 0, {model} does not score prompts", fix="raise it to 1", param="max_tokens"
        )
    if not wanted.get("echo"):
        raise InvalidRequest("max_tokens is 0, which needs echo: true", param="max_tokens")


def _without_nulls(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item, depth) for item in value]
    if isinstance(value, dict) and depth:
        return {key: _without_nulls(item, depth - 1) for key, item in value.items() if item is not None}
    return value


def _with_content(message: dict[str, Any], index: int) -> dict[str, Any]:
    """The message with a refusal as what it is for a template: the text that the assistant said."""
    name, content, refusal = f"messages.{index}", message.get("content"), message.get("refusal")
    if isinstance(content, list) and any(part["type"] == "refusal" for part in content):
        parts = [{"type": "text", "text": part["refusal"]} if "refusal" in part else part for part in content]
        message = {**message, "content": parts}
    if refusal is not None:
        if content:
            raise InvalidRequest(
                f"messages.{index} has content and a refusal: send one", param=f"messages.{index}.refusal"
            )
        return {**{key: value for key, value in message.items() if key != "refusal"}, "content": refusal}
    if content is None and not message.get("tool_calls"):
        raise InvalidRequest(
            f"{name} has neither content nor tool_calls",
            param=f"{name}.content",
            code="missing_required_parameter",
        )
    return message


def _asks_for_nothing(field: str, value: Any) -> bool:
    default = _DEFAULTS.get(field)
    # logprobs: 0 of plain completions is a number and asks for something, False of chat does not.
    return default is not None and value == default and isinstance(value, bool) is isinstance(default, bool)


def _refuse(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=field, code="unsupported_parameter")


def _check_continuation(model: str, body: dict[str, Any], capabilities: Capabilities) -> None:
    """A last assistant message is continued, and nothing else is."""
    continues, opens = body.get("continue_final_message"), body.get("add_generation_prompt")
    if opens is not None and opens is bool(continues):
        other = "true" if continues else "false"
        raise InvalidRequest(
            f"continue_final_message and add_generation_prompt are both {other}: one excludes the other",
            fix="leave add_generation_prompt out",
            param="add_generation_prompt",
        )
    last = body["messages"][-1]
    is_open = last["role"] == "assistant" and bool(last.get("content")) and not last.get("tool_calls")
    if continues and not is_open:
        raise InvalidRequest(
            "continue_final_message needs a last message of the assistant with text", param="continue_final_message"
        )
    if continues is False and is_open and "continue_final_message" in capabilities.parameters:
        raise InvalidRequest(
            f"{model} always continues a last message of the assistant",
            fix="add a user message after it",
            param="continue_final_message",
        )


def _check_combinations(body: dict[str, Any]) -> None:
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens are two names of one limit: send one", param="max_completion_tokens"
        )
    if body.get("tool_choice", "none") not in ("none", "auto") and not body.get("tools"):
        raise InvalidRequest("tool_choice asks for a call, but there are no tools", param="tool_choice")
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        if name not in {tool["function"]["name"] for tool in body["tools"]}:
            raise InvalidRequest(f"tool_choice names {name!r}, which is not among the tools", param="tool_choice")


def _without_tools(model: str, body: dict[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    """The body without tools that it forbids to call. Raises InvalidRequest where one may be called."""
    if body.get("tool_choice") != "none":
        raise _refuse("tools", f"{model} can't honour tools: {_why_no_tools(capabilities)}")
    return {field: value for field, value in body.items() if field not in _OF_TOOLS}


def _why_no_tools(capabilities: Capabilities) -> str:
    return capabilities.why_not.get("tools", "its chat template knows no tools")


def _check_tools(model: str, body: dict[str, Any], capabilities: Capabilities) -> None:
    if capabilities.tools:
        return
    why = _why_no_tools(capabilities)
    body.pop("tools", None)
    body.pop("tool_choice", None)
    for index, message in enumerate(body["messages"]):
        if message["role"] == "tool" or message.get("tool_calls"):
            raise InvalidRequest(f"{model} can't read tool calls and results: {why}", param=f"messages.{index}")


def _check_parts(model: str, messages: list[dict[str, Any]], capabilities: Capabilities) -> None:
    for i, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for j, part in enumerate(content):
            param = f"messages.{i}.content.{j}"
            if part["type"] in ("input_audio", "file"):
                raise InvalidRequest(f"{model} can't read a part of type {part['type']}", param=param)
            if part["type"] != "image_url":
                continue
            if not capabilities.vision:
                why = capabilities.why_not.get("vision", "it is a text model")
                raise InvalidRequest(f"{model} can't see images: {why}", param=param)
            if not capabilities.remote_images and not part["image_url"]["url"].startswith("data:image/"):
                raise InvalidRequest(
                    "image_url must be a data:image/...;base64, URL",
                    param=param,
                    fix="send the image as base64: chaku fetches no URLs for callers",
                )
