"""Turns a call into a request to llama.cpp: route, body, and how the stream is read. Refuses what it can't do."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import orjson

from chaku.chat import plain_text
from chaku.engines.base import Call
from chaku.engines.chat_template import given_stops
from chaku.engines.llamacpp import requests
from chaku.engines.llamacpp.child import LlamaServer
from chaku.engines.llamacpp.logprobs import Piece
from chaku.engines.llamacpp.model import NO_JSON, Learned, ask_server
from chaku.engines.llamacpp.schema import call_schema, check_schema
from chaku.engines.llamacpp.streams import CompletionStream, RawChatStream, Stream
from chaku.engines.llamacpp.tool_stream import ForcedToolStream
from chaku.errors import InvalidRequest
from chaku.protocol.json_scan import loads
from chaku.protocol.openai import prompts_of

_log = logging.getLogger(__name__)

_MOST_TRIED_SCHEMAS = 256
_MOST_PIECES = 4096
_OPTIONAL = ("name", "reasoning_content")
"""Fields of a message that many templates do not read."""


@dataclass(frozen=True)
class PreparedCall:
    """The request that llama.cpp gets for a call."""

    path: str
    request: dict[str, Any]
    stream: Stream
    width: int = 1
    """Slots it takes."""
    notes: tuple[str, ...] = ()


class Planner:
    """Prepares calls for one running server, using what was learnt about its model."""

    def __init__(self, name: str, server: LlamaServer, learned: Learned) -> None:
        """`name` is what clients call the model."""
        self.name = name
        self.learned = learned
        self._server = server
        self._tried_schemas: dict[bytes, bool] = {}
        self._pieces: dict[str, list[Piece]] = {}
        self._said_broken_apart = False

    async def plan(self, call: Call) -> PreparedCall:
        """Raises InvalidRequest, naming the field, for what the model or llama.cpp can't honour."""
        body, n = call.body, call.body.get("n") or 1
        slots = self.learned.capabilities.slots or 1
        if n > slots:
            raise InvalidRequest(f"n is {n}, {self.name} answers {slots} at once", fix="lower n", param="n")
        for token in body.get("logit_bias") or ():
            if int(token) >= self.learned.num_vocabulary:
                raise self._no_token(token, f"logit_bias.{token}")
        if call.route == "completions":
            self.check_ids(body["prompt"], "prompt")
            return await self._plan_completion(body, n)
        return await self._plan_chat(body, n)

    def check_ids(self, value: Any, param: str) -> None:
        """Raises InvalidRequest for a token id that the vocabulary does not have."""
        for prompt in prompts_of(value):
            for token in prompt if isinstance(prompt, list) else ():
                if token >= self.learned.num_vocabulary:
                    raise self._no_token(token, param)

    def _no_token(self, token: int | str, param: str) -> InvalidRequest:
        why = f"no token {token}: {self.name} has {self.learned.num_vocabulary:,}, counted from 0"
        return InvalidRequest(why, param=param, code="invalid_value")

    def _readable(self, body: dict[str, Any]) -> tuple[list[dict[str, Any]], set[str]]:
        """The messages without fields that the chat template does not read, and the names of these fields.

        Raises InvalidRequest for what neither the template nor llama.cpp can read.
        """
        messages, dropped = [], set()
        for i, message in enumerate(body["messages"]):
            unread = {
                name for name in _OPTIONAL if message.get(name) and (message["role"], name) in self.learned.unread
            }
            dropped |= unread
            messages.append(
                {name: value for name, value in message.items() if name not in unread} if unread else message
            )
            content = message.get("content")
            for j, part in enumerate(content if isinstance(content, list) else ()):
                if part["type"] == "image_url" and part["image_url"]["url"].startswith("data:image/webp"):
                    why = f"{self.name} reads JPEG, PNG and GIF, not WebP, as llama.cpp does"
                    raise InvalidRequest(why, fix="convert it", param=f"messages.{i}.content.{j}", code="invalid_image")
                if part["type"] == "image_url" and part["image_url"].get("detail", "auto") != "auto":
                    param = f"messages.{i}.content.{j}.image_url.detail"
                    raise _unsupported(f"{self.name} sees images in one way only: leave detail out", param)
            for j, call in enumerate(message.get("tool_calls") or ()):
                _check_arguments(call["function"]["arguments"], f"messages.{i}.tool_calls.{j}.function.arguments")
        if body.get("tools") and body.get("logprobs"):
            raise _unsupported("llama.cpp gives no log probabilities of answers that may call tools", "logprobs")
        return messages, dropped

    async def _plan_completion(self, body: dict[str, Any], n: int) -> PreparedCall:
        top, echo, prompts = body.get("logprobs"), None, prompts_of(body["prompt"])
        if body.get("echo"):
            if top is not None:
                raise InvalidRequest("echo with logprobs: llama.cpp does not score the prompt", param="echo")
            echo = [one if isinstance(one, str) else await self.text_of(one) for one in prompts]
        await self._require_enforced(requests.answer_schema(body), "response_format.json_schema.schema")
        stream = CompletionStream(model=self.name, n=n, top_logprobs=top, echo=echo)
        request = requests.completion_request(body, model=self.name)
        return PreparedCall(
            "/v1/completions", request, stream, width=min(n * len(prompts), self.learned.capabilities.slots or 1)
        )

    async def _plan_chat(self, body: dict[str, Any], n: int) -> PreparedCall:
        messages, unread = self._readable(body)
        body = {**body, "messages": messages}
        notes = tuple(f"{field} dropped: the chat template does not read it" for field in sorted(unread))
        top = (body.get("top_logprobs") or 0) if body.get("logprobs") else None
        forced = requests.forced_tools(body)
        texts = [messages, body.get("tools")]
        hostile = self.learned.specials is not None and plain_text.spells_special(texts, self.learned.specials)
        pictures = any(
            part.get("type") not in ("text", "refusal")
            for message in messages
            if isinstance(message.get("content"), list)
            for part in message["content"]
        )
        if forced and body.get("stop"):
            raise _unsupported("a stop sequence would cut a forced tool call: leave it out", "stop")
        schema = requests.answer_schema(body)
        await self._require_enforced(schema, "response_format.json_schema.schema")
        continues = messages[-1]["role"] == "assistant"
        all_json = schema is not None and not continues and not self._thinks(body)
        if self.learned.stops and not forced and not all_json:
            body = {**body, "stop": [*given_stops(body), *self.learned.stops]}
        repeats = self.learned.may_repeat and continues
        is_plain = not self.learned.answers_in_parts and not body.get("tools")
        if (forced or all_json or (is_plain and (hostile or repeats))) and not pictures:
            ids = await self.render(body, without_thinking=bool(forced) or all_json)
            request = requests.raw_chat_request(body, ids, model=self.name)
            if forced:
                request["json_schema"] = await self._schema_of(forced, body["tools"])
                return PreparedCall("/v1/completions", request, ForcedToolStream(model=self.name, n=n), n, notes)
            chat = RawChatStream(model=self.name, n=n, top_logprobs=top)
            return PreparedCall("/v1/completions", request, chat, n, notes)
        if hostile and self.learned.specials is not None:
            apart = plain_text.break_apart([messages, body.get("tools")], self.learned.specials)
            body = {**body, "messages": apart[0]} | ({"tools": apart[1]} if body.get("tools") else {})
            notes = (*notes, plain_text.BROKEN_APART)
            if not self._said_broken_apart:
                self._said_broken_apart = True
                _log.warning("%s model=%s: its answers need llama.cpp's own parser", plain_text.BROKEN_APART, self.name)
        request = requests.chat_request(body, model=self.name, template_kwargs=_template_kwargs(body))
        if all_json:  # with a picture
            request["reasoning_format"] = "none"
        chunks = Stream(model=self.name, n=n, top_logprobs=top)
        return PreparedCall("/v1/chat/completions", request, chunks, width=n, notes=notes)

    def _thinks(self, body: dict[str, Any]) -> bool:
        """Whether thoughts come before an answer that a schema holds: only by a setting that the template reads."""
        return "reasoning_effort" in self.learned.capabilities.parameters and body.get("reasoning_effort") != "none"

    async def _schema_of(self, forced: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        """The schema of a call of one of the functions. Raises InvalidRequest where it can't be enforced."""
        for index, tool in enumerate(tools):
            if tool["function"] in forced:
                check_schema(tool["function"].get("parameters") or {}, f"tools.{index}.function.parameters")
        schema = call_schema(forced)
        await self._require_enforced(schema, "tools")
        return schema

    async def _require_enforced(self, schema: Any, param: str) -> None:
        """Raises InvalidRequest for a schema that llama.cpp would ignore, which it does without an error.

        Its keywords are checked here. Whether they can hold together only llama.cpp's compiler knows. So one token is
        generated with a strong bias towards a token that begins no JSON: 0.03 s, once per schema.
        """
        if schema is None:
            return
        check_schema(schema, param)
        name = hashlib.sha256(orjson.dumps(schema)).digest()  # not the schema: it may be megabytes
        if name not in self._tried_schemas:
            request = {"prompt": [self.learned.no_json_id], "max_tokens": 1, "temperature": 0, "json_schema": schema}
            request["logit_bias"] = {str(self.learned.no_json_id): 100}
            answer = await self._small("/v1/completions", request, param=param)
            if len(self._tried_schemas) >= _MOST_TRIED_SCHEMAS:
                self._tried_schemas.clear()
            self._tried_schemas[name] = not answer["choices"][0]["text"].startswith(NO_JSON)
        if not self._tried_schemas[name]:
            raise InvalidRequest(
                f"{param}: llama.cpp can't compile this schema",
                fix="simplify it: its parts may contradict each other",
                param=param,
            )

    async def render(self, body: dict[str, Any], *, without_thinking: bool = False) -> list[int]:
        """Ids of a chat, the template's special tokens as such and everything else as text."""
        texts: list[Any] = [body["messages"], body.get("tools")]
        spellings: dict[str, str] = {}
        if self.learned.specials is not None:
            texts, spellings = plain_text.shield(texts, self.learned.specials)
        template_kwargs = _template_kwargs(body) | ({"enable_thinking": False} if without_thinking else {})
        request: dict[str, Any] = {"messages": texts[0], "chat_template_kwargs": template_kwargs}
        if texts[1]:
            request |= {"tools": texts[1]} | ({"tool_choice": body["tool_choice"]} if body.get("tool_choice") else {})
        prompt = (await self._small("/apply-template", request))["prompt"]
        content: list[str | int] = [""]  # an empty text first: there the tokenizer puts what begins every text (BOS)
        if self.learned.specials is None:
            content.append(prompt)
        else:
            for piece in plain_text.split(prompt, self.learned.specials, spellings):
                content.append(
                    self.learned.special_ids[piece.spelling] if isinstance(piece, plain_text.Special) else piece
                )
        request = {"content": content, "add_special": True, "parse_special": False}
        ids: list[int] = (await self._small("/tokenize", request))["tokens"]
        return ids

    async def text_of(self, ids: list[int]) -> str:
        """The text of token ids, special ones spelled out."""
        return str((await self._small("/detokenize", {"tokens": ids}))["content"])

    async def pieces(self, text: str) -> list[Piece]:
        """The tokens of a short text, such as one character, with the bytes of each."""
        if text not in self._pieces:
            request = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
            tokens = (await self._small("/tokenize", request))["tokens"]
            if len(self._pieces) >= _MOST_PIECES:
                self._pieces.clear()
            self._pieces[text] = [Piece(token["id"], _bytes_of(token["piece"])) for token in tokens]
        return self._pieces[text]

    async def _small(self, path: str, request: dict[str, Any], *, param: str = "messages") -> Any:
        return await ask_server(self._server, path, request, model=self.name, param=param)


def _unsupported(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="unsupported_parameter")


def _template_kwargs(body: dict[str, Any]) -> dict[str, Any]:
    return {"reasoning_effort": body["reasoning_effort"]} if body.get("reasoning_effort") else {}


def _check_arguments(arguments: str, param: str) -> None:
    try:
        loads(arguments)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"{param} is not JSON ({error}): {arguments[:60]!r}", fix="send what the model called, or {}", param=param
        ) from None


def _bytes_of(piece: str | list[int]) -> bytes:
    """llama.cpp's way to write a token: text, or bytes that are not UTF-8."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)
