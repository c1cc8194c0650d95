"""llama.cpp as an engine: its own server in a child process, reached over loopback with a random key.

Two children at most: one for chats and completions, and one, started by the first such call, for embeddings. A pooled
input must fit one physical batch, and so large a batch would make every chat wait behind another's prefill.
What was measured, and why the defaults are what they are: docs/engines.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from chaku.chat import plain_text
from chaku.engines import llamacpp_wire as wire
from chaku.engines.base import Answer, Call, Capabilities, Engine, Status
from chaku.engines.http import read_json, sse_blocks
from chaku.engines.llamacpp_child import EMBEDDING_SLOTS, Server, Settings, start_chat, start_embeddings
from chaku.engines.llamacpp_schema import call_schema, check_schema
from chaku.engines.supervisor import Supervisor
from chaku.errors import EngineError, InvalidRequest
from chaku.protocol.openai import prompts_of

__all__ = ["BROKEN_APART", "LlamaCppEngine", "Settings"]

_log = logging.getLogger(__name__)

_SAMPLING_DEFAULTS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
_PARAMETERS = frozenset({
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "top_logprobs",
    "presence_penalty", "frequency_penalty", "logit_bias", "response_format", "echo", "encoding_format",
    "top_k", "min_p", "repetition_penalty", "ignore_eos",
})  # fmt: skip
_WHY_NOT = {
    "suffix": "llama.cpp does not fill in the middle on this route",
    "best_of": "llama.cpp does not rank answers: use n",
    "dimensions": "the model's embeddings have one length",
}
_PARTS = re.compile(r"think|thought|reasoning|<\|channel\|?>", re.IGNORECASE)
"""In a chat template: answers have a part for reasoning, which llama.cpp's parser tells apart from the content."""
_NO_JSON = "z"
"""Begins no JSON text, so a schema that is enforced never lets it come first."""
_MOST_TRIED_SCHEMAS = 256
BROKEN_APART = "special token spellings in the messages were broken apart with U+200B"


@dataclass(frozen=True)
class _Plan:
    """How a call is put to llama.cpp."""

    path: str
    request: dict[str, Any]
    stream: wire.Stream
    width: int = 1
    """Slots it takes."""
    notes: tuple[str, ...] = ()


@dataclass
class _Held:
    """Slots that a call holds."""

    is_finished: bool = False
    """llama.cpp is done with the call: leaving it ends nothing."""


class LlamaCppEngine(Engine):
    """One GGUF model."""

    def __init__(self, name: str, settings: Settings) -> None:
        """`name` is what clients call the model. Nothing is started or read yet."""
        self.name = name
        self._settings = settings
        self._chat = Supervisor(
            name, self._launch_chat, idle_unload_s=settings.idle_unload_s, back_off=settings.back_off
        )
        self._embeddings = Supervisor(
            f"{name} (embeddings)",
            lambda: start_embeddings(name, settings),
            idle_unload_s=settings.idle_unload_s or 600.0,
            when_asked=True,
        )
        self._capabilities = Capabilities()
        self._specials = plain_text.compile_specials(())
        self._special_ids: dict[str, int] = {}
        self._answers_in_parts = False
        self._active_slots: Counter[str] = Counter()
        """Slots that calls hold, by the key of the child."""
        self._settling: dict[int, asyncio.Task[None]] = {}
        self._said_broken_apart = False
        self._no_json_id = 0
        self._tried_schemas: dict[bytes, bool] = {}

    async def start(self) -> None:
        """Load the model and generate a token. Raises ModelError (file, memory, missing package) or EngineError."""
        await self._chat.start()

    @property
    def capabilities(self) -> Capabilities:
        """Read from the server and the chat template when the model was loaded."""
        return self._capabilities

    def status(self) -> Status:
        """Of the child that chats; the one for embeddings comes and goes."""
        return self._chat.status()

    @property
    def endpoint(self) -> tuple[str, str]:
        """URL and key of the child that chats, for benchmarks; both change with a restart. Raises EngineUnavailable."""
        server = self._chat.running
        return server.http.base_url, server.key

    async def stop(self) -> None:
        """End both children."""
        for task in list(self._settling.values()):
            task.cancel()
        await self._chat.stop()
        await self._embeddings.stop()

    # ---- asking

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """See `Engine.ask`. The context is entered with the first token.

        A call that is left while decoding frees its slots in less than 0.1 s. llama.cpp does not look for hang-ups
        during a prefill: then it takes until the prompt is read. `settling` tells.
        """
        if call.route == "embeddings":
            async with self._embeddings.use() as server:
                width = min(len(prompts_of(call.body["input"])), EMBEDDING_SLOTS)
                with self._holding(server, call, width) as held:
                    answer: Answer = await self._embed(server, call)
                    held.is_finished = True
                yield answer
            return
        async with self._chat.use() as server:
            plan = await self._plan(server, call)
            with self._holding(server, call, plan.width) as held:
                async with server.http.request("POST", plan.path, plan.request) as response:
                    if response.status != 200:
                        held.is_finished = True
                        param = "messages" if call.route == "chat" else "prompt"
                        body = await read_json(response, who=self.name)
                        raise wire.refusal(response.status, body, model=self.name, param=param)
                    streamed = _StreamedAnswer(plan, sse_blocks(response, who=self.name))
                    await streamed.begin()
                    yield streamed
                    held.is_finished = streamed.is_finished

    def settling(self, call: Call) -> asyncio.Future[None] | None:
        """See `Engine.settling`."""
        return self._settling.get(id(call))

    @contextlib.contextmanager
    def _holding(self, server: Server, call: Call, width: int) -> Iterator[_Held]:
        held = _Held()
        self._active_slots[server.key] += width
        try:
            yield held
        finally:
            self._active_slots[server.key] -= width
            if not held.is_finished:
                task = asyncio.create_task(self._until_slots_free(server), name=f"{self.name}-settling")
                self._settling[id(call)] = task
                task.add_done_callback(lambda _: self._settling.pop(id(call)))  # and keeps the call, whose id it is

    async def _until_slots_free(self, server: Server) -> None:
        """Wait until no more slots work than calls are running: a call that was left counts until it is over."""
        pause_s = 0.01
        while server.child.is_running:
            try:
                status, slots = await server.http.json("GET", "/slots")
            except EngineError:
                return  # the child is dying, and its slots with it
            if status != 200:
                _log.warning("no look at the slots model=%s status=%d", self.name, status)
                return
            if sum(slot["is_processing"] for slot in slots) <= self._active_slots[server.key]:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(0.2, pause_s * 2)

    async def _plan(self, server: Server, call: Call) -> _Plan:
        body, n = call.body, call.body.get("n") or 1
        slots = self._capabilities.slots or 1
        if n > slots:
            raise InvalidRequest(f"n is {n}, {self.name} answers {slots} at once", fix="lower n", param="n")
        if call.route == "completions":
            return await self._plan_completion(server, body, n)
        return await self._plan_chat(server, body, n)

    async def _plan_completion(self, server: Server, body: dict[str, Any], n: int) -> _Plan:
        top, echo, prompts = body.get("logprobs"), None, prompts_of(body["prompt"])
        if body.get("echo"):
            if top is not None:
                raise InvalidRequest("echo with logprobs: llama.cpp does not score the prompt", param="echo")
            echo = [one if isinstance(one, str) else await self._text_of(server, one) for one in prompts]
        await self._require_enforced(server, wire.answer_schema(body), "response_format.json_schema.schema")
        stream = wire.CompletionStream(model=self.name, n=n, top_logprobs=top, echo=echo)
        request = wire.completion_request(body, model=self.name)
        return _Plan("/v1/completions", request, stream, width=min(n * len(prompts), self._settings.slots))

    async def _plan_chat(self, server: Server, body: dict[str, Any], n: int) -> _Plan:
        top = (body.get("top_logprobs") or 0) if body.get("logprobs") else None
        messages = body["messages"]
        forced = wire.forced_tools(body)
        hostile = self._specials is not None and plain_text.spells_special(messages, self._specials)
        pictures = any(
            part.get("type") not in ("text", "refusal")
            for message in messages
            if isinstance(message.get("content"), list)
            for part in message["content"]
        )
        if forced and top is not None:
            raise InvalidRequest("log probabilities of a forced tool call are not given", param="logprobs")
        await self._require_enforced(server, wire.answer_schema(body), "response_format.json_schema.schema")
        if (forced or (hostile and not self._answers_in_parts and not body.get("tools"))) and not pictures:
            ids = await self._render(server, body, without_thinking=bool(forced))
            request = wire.raw_chat_request(body, ids, model=self.name)
            if forced:
                request["json_schema"] = await self._schema_of(server, forced, body["tools"])
                return _Plan("/v1/completions", request, wire.ForcedToolStream(model=self.name, n=n), width=n)
            return _Plan(
                "/v1/completions", request, wire.RawChatStream(model=self.name, n=n, top_logprobs=top), width=n
            )
        notes: tuple[str, ...] = ()
        if hostile and self._specials is not None:
            body = {**body, "messages": plain_text.break_apart(messages, self._specials)}
            notes = (BROKEN_APART,)
            if not self._said_broken_apart:
                self._said_broken_apart = True
                _log.warning("%s model=%s: its answers need llama.cpp's own parser", BROKEN_APART, self.name)
        request = wire.chat_request(body, model=self.name, template_kwargs=_template_kwargs(body))
        stream = wire.Stream(model=self.name, n=n, top_logprobs=top)
        return _Plan("/v1/chat/completions", request, stream, width=n, notes=notes)

    async def _schema_of(self, server: Server, forced: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        """The schema of a call of one of the functions. Raises InvalidRequest where it can't be enforced."""
        for index, tool in enumerate(tools):
            if tool["function"] in forced:
                check_schema(tool["function"].get("parameters") or {}, f"tools.{index}.function.parameters")
        schema = call_schema(forced)
        await self._require_enforced(server, schema, "tools")
        return schema

    async def _require_enforced(self, server: Server, schema: Any, param: str) -> None:
        """Raises InvalidRequest for a schema that llama.cpp would drop, which it does without a word.

        The keywords are known; whether they make sense together only its compiler knows. So it is asked for one token,
        pushed as hard as a bias can towards one that begins no JSON: 0.03 s, once a schema.
        """
        if schema is None:
            return
        check_schema(schema, param)
        name = orjson.dumps(schema)
        if name not in self._tried_schemas:
            request = {"prompt": [self._no_json_id], "max_tokens": 1, "temperature": 0, "json_schema": schema}
            request["logit_bias"] = {str(self._no_json_id): 100}
            answer = await self._small(server, "/v1/completions", request, param=param)
            if len(self._tried_schemas) >= _MOST_TRIED_SCHEMAS:
                self._tried_schemas.clear()
            self._tried_schemas[name] = not answer["choices"][0]["text"].startswith(_NO_JSON)
        if not self._tried_schemas[name]:
            raise InvalidRequest(
                f"{param}: llama.cpp can't compile this schema", fix="its parts may exclude each other", param=param
            )

    async def _render(self, server: Server, body: dict[str, Any], *, without_thinking: bool = False) -> list[int]:
        """Ids of a chat, the template's special tokens as such and everything else as text."""
        messages: list[Any] = body["messages"]
        spellings: dict[str, str] = {}
        if self._specials is not None:
            messages, spellings = plain_text.shield(messages, self._specials)
        template_kwargs = _template_kwargs(body) | ({"enable_thinking": False} if without_thinking else {})
        request: dict[str, Any] = {"messages": messages, "chat_template_kwargs": template_kwargs}
        request |= {name: body[name] for name in ("tools", "tool_choice") if body.get(name)}
        prompt = (await self._small(server, "/apply-template", request))["prompt"]
        content: list[str | int] = [""]  # an empty text first: there the tokenizer puts what begins every text (BOS)
        if self._specials is None:
            content.append(prompt)
        else:
            for piece in plain_text.split(prompt, self._specials, spellings):
                content.append(self._special_ids[piece.spelling] if isinstance(piece, plain_text.Special) else piece)
        request = {"content": content, "add_special": True, "parse_special": False}
        ids: list[int] = (await self._small(server, "/tokenize", request))["tokens"]
        return ids

    async def _text_of(self, server: Server, ids: list[int]) -> str:
        return str((await self._small(server, "/detokenize", {"tokens": ids}))["content"])

    async def _small(
        self, server: Server, path: str, request: dict[str, Any] | None = None, *, param: str = "messages"
    ) -> Any:
        status, body = await server.http.json("GET" if request is None else "POST", path, request)
        if status != 200:
            raise wire.refusal(status, body, model=self.name, param=param)
        return body

    async def _embed(self, server: Server, call: Call) -> Answer:
        request = {"model": self.name, "input": call.body["input"], "embd_normalize": 2}
        if call.body.get("encoding_format"):
            request["encoding_format"] = call.body["encoding_format"]
        status, body = await server.http.json("POST", "/v1/embeddings", request)
        if status != 200:
            raise wire.refusal(status, body, model=self.name, param="input")
        data = [{"object": "embedding", "index": one["index"], "embedding": one["embedding"]} for one in body["data"]]
        data.sort(key=lambda one: one["index"])
        return _WholeAnswer({"object": "list", "data": data, "model": self.name, "usage": body["usage"]})

    # ---- starting

    async def _launch_chat(self) -> Server:
        server = await start_chat(self.name, self._settings)
        try:
            await self._learn(server)
        except BaseException:
            await server.close()
            raise
        return server

    async def _learn(self, server: Server) -> None:
        """Read what model and template can do, and check that the API's sampling defaults are in force."""
        props = await self._small(server, "/props")
        defaults = props["default_generation_settings"]["params"]
        for name, wanted in _SAMPLING_DEFAULTS.items():
            if abs(defaults[name] - wanted) > 1e-6:
                raise EngineError(f"{self.name} samples with {name} {defaults[name]:g} by default, not {wanted:g}")
        asked = {"content": _NO_JSON, "add_special": False, "parse_special": False}
        self._no_json_id = (await self._small(server, "/tokenize", asked))["tokens"][-1]
        self._answers_in_parts = _PARTS.search(props.get("chat_template") or "") is not None
        await self._learn_specials(server, {props["bos_token"], props["eos_token"], *self._settings.special_tokens})
        self._capabilities = self._read_capabilities(props)

    async def _learn_specials(self, server: Server, spellings: set[str]) -> None:
        for spelling in sorted(spellings - {""}):
            request = {"content": spelling, "add_special": False, "parse_special": True}
            ids = (await self._small(server, "/tokenize", request))["tokens"]
            if len(ids) == 1:
                self._special_ids[spelling] = ids[0]
        self._specials = plain_text.compile_specials(self._special_ids)

    def _read_capabilities(self, props: dict[str, Any]) -> Capabilities:
        caps = props.get("chat_template_caps", {})
        tools = bool(caps.get("supports_tools"))
        parameters, why_not = set(_PARAMETERS), dict(_WHY_NOT)
        if tools:
            parameters |= {"tools", "tool_choice", "parallel_tool_calls"}
        else:
            reason = f"the chat template of {self.name} knows no tools"
            why_not |= dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls"), reason)
        if caps.get("supports_reasoning_effort"):
            parameters.add("reasoning_effort")
        else:
            why_not["reasoning_effort"] = f"the chat template of {self.name} knows no reasoning effort"
        routes: frozenset[Any] = frozenset(
            {"chat", "completions"} | ({"embeddings"} if self._settings.embeddings else set())
        )
        return Capabilities(
            routes=routes,
            parameters=frozenset(parameters),
            tools=tools,
            vision=bool(props["modalities"].get("vision")),
            reasoning=self._answers_in_parts,
            context_tokens=props["default_generation_settings"]["n_ctx"],
            slots=props["total_slots"],
            embedding_slots=EMBEDDING_SLOTS,
            why_not=why_not,
        )


def _template_kwargs(body: dict[str, Any]) -> dict[str, Any]:
    return {"reasoning_effort": body["reasoning_effort"]} if body.get("reasoning_effort") else {}


class _WholeAnswer(Answer):
    def __init__(self, response: dict[str, Any]) -> None:
        self._response = response

    async def whole(self) -> dict[str, Any]:
        return self._response

    def blocks(self) -> AsyncIterator[bytes]:
        raise AssertionError("this route does not stream")


class _StreamedAnswer(Answer):
    def __init__(self, plan: _Plan, blocks: AsyncIterator[bytes]) -> None:
        self.notes = plan.notes
        self.is_finished = False
        self._stream = plan.stream
        self._blocks = blocks
        self._first = b""

    async def begin(self) -> None:
        """Wait for the first events."""
        self._first = await anext(self._blocks)

    async def whole(self) -> dict[str, Any]:
        chunks = [chunk for chunk in self._stream.events(self._first) if chunk is not None]
        async for block in self._blocks:
            chunks += [chunk for chunk in self._stream.events(block) if chunk is not None]
        self.is_finished = True
        return wire.assemble(chunks)

    async def blocks(self) -> AsyncIterator[bytes]:
        if translated := self._stream.feed(self._first):
            yield translated
        async for block in self._blocks:
            if translated := self._stream.feed(block):
                yield translated
        self.is_finished = True
