"""A completion that a JSON schema holds to a tool call, shown as a chat whose arguments stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from chaku.engines.llamacpp.streams import RawChatStream
from chaku.errors import EngineError

_CALL_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)')
_CALL_TAIL = re.compile(r"[\s}]*$")


class ForcedToolStream(RawChatStream):
    """A completion held to `call_schema`, shown as a chat in which a tool is called, its arguments streamed."""

    def __init__(self, *, model: str, n: int = 1) -> None:
        super().__init__(model=model, n=n)
        self._text: dict[int, str] = {}
        self._sent: dict[int, int] = {}

    def _deltas(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        index, finish = choice["index"], choice["finish_reason"]
        text = self._text[index] = self._text.get(index, "") + choice["text"]
        if index not in self._sent and (head := _CALL_HEAD.match(text)):
            self._sent[index] = head.end()
            call_id = f"call_{self._frame['id'].rpartition('-')[2][:24]}{index}"
            function = {"name": orjson.loads(head.group(1)), "arguments": ""}
            call = {"index": 0, "id": call_id, "type": "function", "function": function}
            yield {"index": index, "delta": {"tool_calls": [call]}, "finish_reason": None}
        if index in self._sent:
            whole = text.rstrip().removesuffix("}").rstrip() if finish == "stop" else text
            end = len(whole) if finish else _held_back(text, self._sent[index])
            if end > self._sent[index]:
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": whole[self._sent[index] : end]}}]}
                self._sent[index] = end
                yield {"index": index, "delta": delta, "finish_reason": None}
        elif finish == "stop" or text.lstrip()[:1] not in ("", "{"):
            raise EngineError(f"{self._model} did not keep to the tools it was forced to call")
        if finish:
            yield {"index": index, "delta": {}, "finish_reason": "tool_calls" if finish == "stop" else finish}


def _held_back(text: str, start: int) -> int:
    """The index of the closing braces and spaces at the end. The last of them may not belong to the arguments."""
    tail = _CALL_TAIL.search(text, start)
    return tail.start() if tail else len(text)
