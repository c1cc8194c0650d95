"""vLLM's and SGLang's answers made to conform to OpenAI's schema. Pure: objects in, objects out.

Their fields beyond the schema are dropped, so that an answer is the same whichever engine gave it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from chaku.engines.base import Block, Call
from chaku.engines.blocks import blocks_of_chunks
from chaku.errors import EngineError
from chaku.protocol.answers import DONE, AnswerFrame, CompletionUsage, completion_usage

_DONE = DONE.rstrip()
_FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class Conforming:
    """One answer of a server, whole or in chunks, under the name that clients use."""

    def __init__(self, name: str, call: Call) -> None:
        self._name = name
        self._is_chat = call.route == "chat"
        self._has_rivals = call.body.get("logprobs") != 0
        self._frame = AnswerFrame(name, call.request_id, is_chat=self._is_chat)
        self._choices: dict[int, _Choice] = {}
        self._usage: CompletionUsage | None = None

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The complete answer. Raises EngineError for one that was not finished."""
        choices = []
        for choice in answer["choices"]:
            kept = self._ending(choice, _has_calls(choice.get("message") or {}))
            if kept["finish_reason"] is None:
                raise self._unfinished("")
            if self._is_chat:
                kept["message"] = _message(choice["message"])
            else:
                kept["text"] = choice.get("text") or ""
            shown = kept["message"]["content"] if self._is_chat else kept["text"]
            choices.append({"index": choice["index"], "logprobs": self._logprobs(choice, shown), **kept})
        return self._frame.whole(choices, _usage(answer.get("usage")) or completion_usage(0, 0))

    def events(self, events: bytes) -> list[Block]:
        """Whole server-sent events as blocks. Raises EngineError for an answer that ends unfinished."""
        return list(blocks_of_chunks(self._chunks(events)))

    def _chunks(self, events: bytes) -> Iterator[dict[str, Any] | None]:
        for event in events.split(b"\n\n"):
            if event.startswith(_DONE):
                yield from self._end()
            elif event.startswith(b"data: {"):
                chunk = orjson.loads(event[6:])
                self._usage = _usage(chunk.get("usage")) or self._usage  # the last one counts everything
                for choice in chunk["choices"]:
                    yield from self._of_choice(choice)

    def _of_choice(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        index = choice["index"]
        state = self._choices.setdefault(index, _Choice())
        delta = _delta(choice.get("delta") or {}, state) if self._is_chat else {}
        ending = self._ending(choice, state.num_calls > 0)
        kept: dict[str, Any] = {"index": index, "delta": delta} if self._is_chat else {"index": index}
        if not self._is_chat:
            kept["text"] = choice.get("text") or ""
        logprobs = self._logprobs(choice, delta.get("content") if self._is_chat else kept["text"])
        says_something = bool(delta or kept.get("text") or logprobs or ending["finish_reason"])
        if not says_something or (state.has_ended and not ending["finish_reason"] and not delta):
            return
        state.has_ended = state.has_ended or ending["finish_reason"] is not None
        if delta and ending["finish_reason"]:  # OpenAI's last chunk of a choice says only why it ended
            yield self._frame.chunk({**kept, "logprobs": logprobs, "finish_reason": None})
            kept, logprobs = {"index": index, "delta": {}}, None
        yield self._frame.chunk({**kept, "logprobs": logprobs, **ending})

    def _logprobs(self, choice: dict[str, Any], shown: str | None) -> dict[str, Any] | None:
        """Those of the tokens whose text is `shown`: vLLM has one for the end token too. No rivals unless asked."""
        logprobs: dict[str, Any] | None = choice.get("logprobs")
        if not logprobs:
            return None
        tokens = [token["token"] for token in logprobs["content"]] if self._is_chat else logprobs["tokens"]
        if choice.get("finish_reason") == "stop" and "".join(tokens[:-1]) == (shown or ""):
            logprobs = {name: value[:-1] if isinstance(value, list) else value for name, value in logprobs.items()}
            tokens = tokens[:-1]
        if not self._is_chat and not self._has_rivals:
            logprobs = {**logprobs, "top_logprobs": [{} for _ in tokens]}
        return logprobs if tokens else None

    def _ending(self, choice: dict[str, Any], has_calls: bool) -> dict[str, Any]:
        """`finish_reason`, and `stop_reason` where a stop string or token is named."""
        reason = choice.get("finish_reason") or None  # SGLang: an empty text
        if reason is not None and reason not in _FINISHES:
            raise self._unfinished(f": {reason}")
        stopped_by = choice.get("stop_reason", choice.get("matched_stop"))
        if reason == "stop" and has_calls:
            reason = "tool_calls"
        # SGLang names the end token here as well, as vLLM does not
        named = isinstance(stopped_by, str) or (isinstance(stopped_by, int) and "stop_reason" in choice)
        return {"finish_reason": reason, **({"stop_reason": stopped_by} if named and reason else {})}

    def _end(self) -> Iterator[dict[str, Any] | None]:
        if not self._choices or any(not state.has_ended for state in self._choices.values()):
            raise self._unfinished("")
        if self._usage is not None:
            yield self._frame.usage_chunk(self._usage)
        yield None

    def _unfinished(self, why: str) -> EngineError:
        return EngineError(f"{self._name} broke off its answer{why}")


class _Choice:
    """What was sent of one choice."""

    def __init__(self) -> None:
        self.has_role = False
        self.has_ended = False
        self.calls: dict[int, str] = {}

    @property
    def num_calls(self) -> int:
        """Tool calls begun."""
        return len(self.calls)


def _delta(delta: dict[str, Any], state: _Choice) -> dict[str, Any]:
    """A delta without nulls; the role comes once, at the beginning."""
    kept: dict[str, Any] = {}
    if not state.has_role:
        kept["role"] = "assistant"
        state.has_role = True
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought:
        kept["reasoning_content"] = thought
    if delta.get("content"):
        kept["content"] = delta["content"]
    elif "role" in kept and not thought and not delta.get("tool_calls"):
        kept["content"] = ""
    if calls := [_call_piece(piece, state) for piece in delta.get("tool_calls") or ()]:
        kept["tool_calls"] = calls
    return kept


def _call_piece(piece: dict[str, Any], state: _Choice) -> dict[str, Any]:
    """A piece of a tool call: id, type and name come with its first piece alone."""
    given = piece.get("function") or {}
    index = piece["index"] if isinstance(piece.get("index"), int) else max(state.num_calls - 1, 0)
    function: dict[str, Any] = {"arguments": given.get("arguments") or ""}
    if index in state.calls:
        return {"index": index, "function": function}
    state.calls[index] = piece.get("id") or f"call_{index}"
    function = {"name": given.get("name") or "", **function}
    return {"index": index, "id": state.calls[index], "type": "function", "function": function}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls") or ()
    thought = message.get("reasoning_content") or message.get("reasoning")
    kept = {"role": "assistant", "content": message.get("content") or (None if calls else ""), "refusal": None}
    if thought:
        kept["reasoning_content"] = thought
    if calls:
        kept["tool_calls"] = [
            {
                "id": call.get("id") or f"call_{index}",
                "type": "function",
                "function": {name: call["function"].get(name) or "" for name in ("name", "arguments")},
            }
            for index, call in enumerate(calls)
        ]
    return kept


def _has_calls(message: dict[str, Any]) -> bool:
    return bool(message.get("tool_calls"))


def _usage(usage: dict[str, Any] | None) -> CompletionUsage | None:
    """Token counts; None where there are none. SGLang's embeddings and vLLM's aborted answers leave some null."""
    if not usage:
        return None
    counted = completion_usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached:
        counted["prompt_tokens_details"] = {"cached_tokens": cached}
    return counted
