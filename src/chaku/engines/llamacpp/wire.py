"""Between OpenAI's requests and answers and those of llama.cpp's server. Pure: dicts and bytes in, dicts and bytes out.

llama.cpp is always asked to stream, also for a whole answer: it does not notice that a client hung up on a request
that does not stream, and only its streams carry the usage of every choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from chaku.engines.base import Block
from chaku.engines.blocks import blocks_of_chunks
from chaku.errors import ChakuError, ContextOverflow, EngineError, EngineUnavailable, InvalidRequest
from chaku.protocol.answers import DONE

_SAME_NAME = (
    "temperature", "top_p", "n", "stop", "logit_bias", "presence_penalty", "frequency_penalty",
    "top_k", "min_p", "ignore_eos",
)  # fmt: skip
_CHAT_ONLY = ("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format")
_DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens on /v1/completions; llama.cpp's is the rest of the context."""
_PENALTY_WINDOW_TOKENS = 1 << 17
"""How far penalties look back: llama.cpp's own 64 tokens are not the text so far. It takes no -1 and allocates this."""
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


def refusal(status: int, body: Any, *, model: str, param: str) -> ChakuError:
    """llama.cpp's error answer as one of ours, in our words where we know better ones."""
    error = body.get("error", body) if isinstance(body, dict) else {"message": str(body)}
    if not isinstance(error, dict):
        error = {"message": str(error)}
    message = str(error.get("message") or "no reason given").strip()
    if error.get("type") == "exceed_context_size_error":
        return ContextOverflow(
            f"prompt is {error['n_prompt_tokens']:,} tokens, {model} takes {error['n_ctx']:,} per request",
            fix="shorten it, or serve the model with a larger --context",
            param=param,
        )
    if too_large := re.search(r"input \((\d+) tokens\) is (?:too large|larger).*?(\d+)", message):
        tokens, limit = (int(number) for number in too_large.groups())
        return ContextOverflow(f"input is {tokens:,} tokens, {model} embeds {limit:,}", fix="shorten it", param=param)
    if status == 503:
        return EngineUnavailable(f"{model} is not ready: {message}", retry_after_s=1.0)
    if status in (400, 422):
        return InvalidRequest(message, param=param)
    return EngineError(f"{model} failed: {message}")


_NEEDS_A_LOOK = (b'"usage":', b'"timings":', b'"error":{', DONE)
"""Can't be text of the model: inside a JSON string the quotes would be escaped, and a line break too."""


UNKNOWN_LOGPROB = -9999.0
"""OpenAI's number for a log probability that is not given. llama.cpp gives none for a token that ends in
mid-character."""


class Piece(NamedTuple):
    """A token and its bytes."""

    id: int
    content: bytes


class Stream:
    """Turns the events of one llama.cpp stream into OpenAI's chunks, with one usage chunk just before the end.

    `n` answers are given to each prompt. This base is the chat route; a subclass says what becomes of a choice.
    """

    _is_openai_s = True
    """Its events are OpenAI's but for the first and the last."""

    def __init__(self, *, model: str, n: int = 1, top_logprobs: int | None = None) -> None:
        self._model = model
        self._n = n
        self._top_logprobs = top_logprobs
        self._untouched = n == 1 and top_logprobs is None and self._is_openai_s
        self.pieces: dict[str, list[Piece]] = {}
        """Tokens of the characters that llama.cpp reports as one although they are several: see `unsplit`."""
        self._begun = False
        self._frame: dict[str, Any] = {}
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def feed(self, events: bytes) -> list[Block]:
        """Translate whole events; those of a plain chat stream pass through unparsed."""
        if self._untouched and self._begun and not any(mark in events for mark in _NEEDS_A_LOOK):
            return [Block(events, num_tokens=events.count(b"\n\n"))]  # one token per event
        return list(blocks_of_chunks(self.events(events)))

    def events(self, block: bytes) -> Iterator[dict[str, Any] | None]:
        """The same, as chunks; None is the end of the stream."""
        for line in block.split(b"\n\n"):
            if not line.startswith(b"data: "):
                continue
            if line + b"\n\n" == DONE:
                yield self._chunk([]) | {"usage": self._usage()}
                yield None
            elif chunk := orjson.loads(line[6:]):  # llama.cpp opens a stream of several prompts with `data: null`
                yield from self._translate(chunk)

    def _translate(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "error" in chunk:
            code = chunk["error"].get("code", 500) if isinstance(chunk["error"], dict) else 500
            raise refusal(code, chunk, model=self._model, param="messages")
        if not self._begun:
            self._begun = True
            self._frame = {name: chunk[name] for name in ("id", "object", "created", "model", "system_fingerprint")}
            self._name_frame()
        if usage := chunk.get("usage"):
            self._prompt_tokens += usage["prompt_tokens"]
            self._completion_tokens += usage["completion_tokens"]
            self._cached_tokens += usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        for choice in chunk["choices"]:
            for translated in self._choices(choice):
                yield self._chunk([translated])

    def _name_frame(self) -> None:
        """Set the id's prefix and the object's name; llama.cpp's chat route has them right."""

    def _choices(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta = choice["delta"]
        if delta.get("content", "") is None and "tool_calls" not in delta:
            delta["content"] = ""
        if logprobs := choice.get("logprobs"):
            choice["logprobs"] = self._chat_logprobs(logprobs)
        yield choice

    def _chat_logprobs(self, logprobs: dict[str, Any]) -> dict[str, Any]:
        top = self._top_logprobs or 0
        return {
            "content": [
                _without_id(entry) | {"top_logprobs": [_without_id(other) for other in entry["top_logprobs"][:top]]}
                for entry in self._entries(logprobs)
            ],
            "refusal": None,
        }

    def unsplit(self, block: bytes) -> set[str]:
        """Characters in these events that may be several tokens; `pieces` must have them before the events are read.

        llama.cpp reports a character made of several tokens as one: with the id of the last and the bytes of all.
        """
        if self._top_logprobs is None or b'"logprobs":{' not in block:
            return set()
        found: set[str] = set()
        for line in block.split(b"\n\n"):
            if line.startswith(b"data: {"):
                for choice in orjson.loads(line[6:]).get("choices", ()):
                    entries = (choice.get("logprobs") or {}).get("content") or ()
                    found |= {entry["token"] for entry in entries if not entry["token"].isascii()}
        return found - self.pieces.keys()

    def _entries(self, logprobs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One entry for each token, also inside a character."""
        for entry in logprobs["content"]:
            pieces = self.pieces.get(entry["token"], [])
            is_same = pieces and pieces[-1].id == entry["id"]
            if not is_same or b"".join(piece.content for piece in pieces) != bytes(entry["bytes"]):
                yield entry
                continue
            for piece in pieces[:-1]:
                yield {**_named(piece), "logprob": UNKNOWN_LOGPROB, "top_logprobs": []}
            yield {**entry, **_named(pieces[-1])}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._frame, "choices": choices}

    def _usage(self) -> dict[str, Any]:
        prompt = self._prompt_tokens // self._n  # each of n choices reports the same prompt
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt + self._completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens // self._n},
        }


def _named(piece: Piece) -> dict[str, Any]:
    return {"id": piece.id, "token": piece.content.decode(errors="replace"), "bytes": list(piece.content)}


def _without_id(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]}


class CompletionStream(Stream):
    """The completions route: OpenAI's legacy log probabilities, and `echo` as a first piece of text.

    `echo` holds the text of each prompt; choice i belongs to prompt i // n.
    """

    _is_openai_s = False

    def __init__(
        self, *, model: str, n: int = 1, top_logprobs: int | None = None, echo: list[str] | None = None
    ) -> None:
        super().__init__(model=model, n=n, top_logprobs=top_logprobs)
        self._echo = echo
        self._offsets: dict[int, int] = {}

    def _name_frame(self) -> None:
        self._frame["id"] = "cmpl-" + self._frame["id"].rpartition("-")[2]

    def _choices(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        index, text = choice["index"], choice["text"]
        if index not in self._offsets:
            self._offsets[index] = 0
            if self._echo is not None:
                yield {"index": index, "text": self._echo[index // self._n], "logprobs": None, "finish_reason": None}
        logprobs = self._legacy_logprobs(index, choice["logprobs"]) if choice.get("logprobs") else None
        yield {"index": index, "text": text, "logprobs": logprobs, "finish_reason": choice["finish_reason"]}

    def _legacy_logprobs(self, index: int, logprobs: dict[str, Any]) -> dict[str, Any]:
        legacy: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in self._entries(logprobs):
            top = entry["top_logprobs"][: self._top_logprobs or 0]
            legacy["tokens"].append(entry["token"])
            legacy["token_logprobs"].append(entry["logprob"])
            legacy["top_logprobs"].append({other["token"]: other["logprob"] for other in top})
            legacy["text_offset"].append(self._offsets[index])
            # a character counts once, at its last token
            self._offsets[index] += 0 if entry["logprob"] == UNKNOWN_LOGPROB else len(entry["token"])
        return legacy


class RawChatStream(Stream):
    """A completion shown as a chat."""

    _is_openai_s = False

    def __init__(self, *, model: str, n: int = 1, top_logprobs: int | None = None) -> None:
        super().__init__(model=model, n=n, top_logprobs=top_logprobs)
        self._opened: set[int] = set()

    def _name_frame(self) -> None:
        self._frame["id"] = "chatcmpl-" + self._frame["id"].rpartition("-")[2]
        self._frame["object"] = "chat.completion.chunk"

    def _choices(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        index = choice["index"]
        if index not in self._opened:
            self._opened.add(index)
            yield {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield from self._deltas(choice)

    def _deltas(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta = {"content": choice["text"]} if choice["text"] else {}
        translated = {"index": choice["index"], "delta": delta, "finish_reason": choice["finish_reason"]}
        if choice.get("logprobs"):
            translated["logprobs"] = self._chat_logprobs(choice["logprobs"])
        yield translated


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
    """Where the closing braces and spaces begin, the last of which may not belong to the arguments."""
    tail = _CALL_TAIL.search(text, start)
    return tail.start() if tail else len(text)


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
