"""Requests of Ollama's API in OpenAI's words. Pure: a checked body in, a body out."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import orjson

from chaku.errors import InvalidRequest

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
OF_THE_SERVER = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap")
"""Options that say how a model is loaded."""
_IMAGES = {"iVBOR": "png", "/9j/": "jpeg", "R0lG": "gif", "UklG": "webp"}
"""How the base64 of an image begins."""


def chat_body(body: dict[str, Any]) -> dict[str, Any]:
    """A chat. Raises InvalidRequest for an image of no known kind, or a tool's result without a call."""
    chat = _common(body) | {"messages": list(_messages(body["messages"]))}
    if body.get("tools"):
        chat["tools"] = body["tools"]
    return chat


def generation_body(body: dict[str, Any]) -> dict[str, Any]:
    """A prompt: a chat of one message, or with `raw` a completion. Raises InvalidRequest."""
    if body.get("raw"):
        if body.get("system") or body.get("images"):
            name = "system" if body.get("system") else "images"
            raise InvalidRequest(f"{name} needs a chat template: leave {name} or raw out", param=name)
        return _common(body) | {"prompt": body["prompt"]}
    message = {"role": "user", "content": body["prompt"], "images": body.get("images")}
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return _common(body) | {"messages": list(_messages([*system, message]))}


def notes_of(body: dict[str, Any]) -> tuple[str, ...]:
    """What the server decides, whatever the request says."""
    given = [name for name in OF_THE_SERVER if (body.get("options") or {}).get(name) is not None]
    given += ["keep_alive"] if "keep_alive" in body else []
    return (f"{', '.join(given)}: the server's own settings hold",) if given else ()


def _common(body: dict[str, Any]) -> dict[str, Any]:
    options = body.get("options") or {}
    chat: dict[str, Any] = {"model": body["model"]}
    chat |= {name: options[ours] for ours, name in _OPTIONS.items() if options.get(ours) is not None}
    if (options.get("num_predict") or 0) > 0:
        chat["max_tokens"] = options["num_predict"]
    if body.get("format"):
        chat["response_format"] = _format(body["format"])
    think = body.get("think")
    if isinstance(think, str) or think is False:
        chat["reasoning_effort"] = think or "none"
    return chat


def _format(wanted: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(wanted, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted, "strict": True}}


def _messages(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ollama's tool results name the tool, OpenAI's the call: the oldest open call of that tool is meant."""
    open_calls = _OpenCalls()
    num_calls = 0
    for index, message in enumerate(messages):
        said: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
        if message.get("images"):
            parts = [{"type": "text", "text": said["content"]}] if said["content"] else []
            said["content"] = parts + [_image(image, index) for image in message["images"]]
        if message.get("thinking"):
            said["reasoning_content"] = message["thinking"]
        if message.get("tool_calls"):
            said["tool_calls"] = []
            for call in message["tool_calls"]:
                num_calls += 1
                call_id, name = call.get("id") or f"call_{num_calls}", call["function"]["name"]
                open_calls.add(num_calls, call_id, name)
                function = {"name": name, "arguments": orjson.dumps(call["function"]["arguments"]).decode()}
                said["tool_calls"].append({"id": call_id, "type": "function", "function": function})
        if message["role"] == "tool":
            said["tool_call_id"] = message.get("tool_call_id") or _answered(open_calls, message, index)
        yield said


def _answered(open_calls: _OpenCalls, message: dict[str, Any], index: int) -> str:
    call_id = open_calls.answer(message.get("tool_name"))
    if call_id is None:
        raise InvalidRequest("a tool's result follows no call of it", param=f"messages.{index}.tool_name")
    return call_id


class _OpenCalls:
    """Calls without a result yet, the oldest first. Each is looked at once, however many there are."""

    def __init__(self) -> None:
        self._ids: OrderedDict[int, str] = OrderedDict()
        self._of_tool: defaultdict[str, deque[int]] = defaultdict(deque)

    def add(self, number: int, call_id: str, name: str) -> None:
        """A further call of a tool; `number` is greater than that of the last."""
        self._ids[number] = call_id
        self._of_tool[name].append(number)

    def answer(self, name: str | None) -> str | None:
        """Take out the oldest call of a tool, or of any tool; its id. None where there is none."""
        if name is None:
            return self._ids.popitem(last=False)[1] if self._ids else None
        numbers = self._of_tool[name]
        while numbers:
            if (call_id := self._ids.pop(numbers.popleft(), None)) is not None:
                return call_id
        return None


def _image(content: str, index: int) -> dict[str, Any]:
    kind = next((kind for start, kind in _IMAGES.items() if content.startswith(start)), None)
    if kind is None:
        raise InvalidRequest("an image must be base64 of a PNG, JPEG, GIF or WebP", param=f"messages.{index}.images")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{content}"}}
