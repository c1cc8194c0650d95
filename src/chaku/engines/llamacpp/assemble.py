"""A whole answer out of the chunks of its stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The whole answer from the chunks of its stream, for chats and for completions."""
    choices: dict[int, dict[str, Any]] = {}
    frame: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    for chunk in chunks:
        frame = chunk
        usage = chunk.get("usage") or usage
        for piece in chunk["choices"]:
            whole = choices.setdefault(
                piece["index"], {"index": piece["index"], "logprobs": None, "finish_reason": None}
            )
            if "delta" in piece:
                _add_delta(
                    whole.setdefault("message", {"role": "assistant", "content": None, "refusal": None}), piece["delta"]
                )
            else:
                whole["text"] = whole.get("text", "") + piece["text"]
            if piece.get("logprobs"):
                _add_lists(whole, piece["logprobs"])
            whole["finish_reason"] = piece["finish_reason"] or whole["finish_reason"]
            if "stop_reason" in piece:
                whole["stop_reason"] = piece["stop_reason"]
    for whole in choices.values():
        if "message" in whole and not whole["message"]["content"]:
            whole["message"]["content"] = None if "tool_calls" in whole["message"] else ""
    head: dict[str, Any] = {
        name: frame[name] for name in ("id", "object", "created", "model", "system_fingerprint") if name in frame
    }
    head["object"] = head["object"].removesuffix(".chunk")
    return {**head, "choices": [choices[index] for index in sorted(choices)], "usage": usage}


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
    for piece in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        while len(calls) <= piece["index"]:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[piece["index"]]
        call["id"] = piece.get("id") or call["id"]
        for name, text in piece.get("function", {}).items():
            call["function"][name] += text or ""


def _add_lists(whole: dict[str, Any], logprobs: dict[str, Any]) -> None:
    if whole["logprobs"] is None:
        whole["logprobs"] = {name: [] if isinstance(value, list) else value for name, value in logprobs.items()}
    for name, value in logprobs.items():
        if isinstance(value, list):
            whole["logprobs"][name].extend(value)
