"""A request of Anthropic's Messages API as a chat of OpenAI's. Pure: a checked body in, a body out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

_SAME_NAME = ("model", "max_tokens", "stream", "temperature", "top_p", "top_k")
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_body(body: dict[str, Any]) -> dict[str, Any]:
    """The same request in OpenAI's words, as `ChatRequest` has them."""
    messages = [message for turn in body["messages"] for message in _messages(turn)]
    if body.get("system"):
        messages.insert(0, {"role": "system", "content": _content(body["system"])})
    chat = {name: body[name] for name in _SAME_NAME if name in body} | {"messages": messages}
    if body["messages"][-1]["role"] == "assistant":
        chat["continue_final_message"] = True
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    if user := (body.get("metadata") or {}).get("user_id"):
        chat["user"] = user
    if (body.get("thinking") or {}).get("type") == "disabled":
        chat["reasoning_effort"] = "none"
    return chat | _tools(body) | _output(body.get("output_config") or {})


def _output(config: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if config.get("effort"):
        chat["reasoning_effort"] = config["effort"]
    if config.get("format"):
        schema = {"name": "answer", "schema": config["format"]["schema"], "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat


def _tools(body: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if body.get("tools"):
        chat["tools"] = [{"type": "function", "function": _function(tool)} for tool in body["tools"]]
    choice = body.get("tool_choice")
    if choice is None:
        return chat
    if choice["type"] == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif "tools" in chat or choice["type"] == "any":
        chat["tool_choice"] = _TOOL_CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use") and "tools" in chat:
        chat["parallel_tool_calls"] = False
    return chat


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    return function | {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}


def _messages(turn: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One turn as messages: each tool result is a message of its own, in the order of the turn."""
    role, content = turn["role"], turn["content"]
    if role == "assistant" and isinstance(content, list):
        yield _answer(content)
        return
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    said: list[dict[str, Any]] = []
    for block in content:
        if block["type"] != "tool_result":
            said.append(block)
            continue
        if said:
            yield {"role": role, "content": _content(said)}
            said = []
        result = block.get("content") or ""
        yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": _content(result)}
    if said:
        yield {"role": role, "content": _content(said)}


def _answer(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    texts = [block for block in blocks if block["type"] == "text"]
    if thoughts := "".join(block["thinking"] for block in blocks if block["type"] == "thinking"):
        message["reasoning_content"] = thoughts
    calls = [block for block in blocks if block["type"] == "tool_use"]
    if calls:
        message["tool_calls"] = [_call(block) for block in calls]
    if texts or not calls:
        message["content"] = _content(texts) if texts else ""
    return message


def _call(block: dict[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _content(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text, or parts. One block of text is its text: some templates read nothing else."""
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0]["type"] == "text":
        text: str = content[0]["text"]
        return text
    return [_part(block) for block in content]


def _part(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    source = block["source"]
    url = source["url"] if source["type"] == "url" else f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}
