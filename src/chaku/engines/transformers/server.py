"""The server inside the child: OpenAI's chat and completion routes for the models of one base, on loopback."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import torch
from aiohttp import web

from chaku.chat.tokenizer import Tokenizer
from chaku.engines.transformers.answers import Choice, Shapes, merged
from chaku.engines.transformers.generating import PAGE_TOKENS, Generator, score_prompt, start_generator
from chaku.engines.transformers.loading import Loaded, load_models
from chaku.engines.transformers.prompts import Prompt, PromptRenderer
from chaku.engines.transformers.sampling import Sampling, Vocabulary
from chaku.errors import ChakuError, ContextOverflow, EngineError, InvalidRequest
from chaku.models.plan.free_memory import available_bytes
from chaku.protocol.answers import DONE, event
from chaku.protocol.errors import body_of, event_of
from chaku.protocol.openai import prompts_of

_log = logging.getLogger(__name__)

_CACHE_SHARE = 0.4
"""Of the free memory, for the key-value caches of all models together."""
_WATCH_S = 0.5
_MAX_BODY_BYTES = 1 << 30
DEAD = 4
"""Exit code after the batching loop has failed: the parent starts the child again."""


async def serve(config: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Load, generate a token with each model, say the address, and serve until the process ends."""
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    loaded = load_models(
        config["name"], Path(config["folder"]), adapters=config["adapters"], main_adapter=config["main_adapter"],
        dtype=config["dtype"], bits=config["bits"],
    )  # fmt: skip
    context, num_blocks = _sizes(loaded, config["context"], config["slots"])
    sizes = {"num_blocks": num_blocks, "batch_tokens": config["batch"], "slots": config["slots"]}
    generators = {
        name: await start_generator(model, batching=config["batching"], **sizes)
        for name, model in loaded.models.items()
    }
    server = Server(loaded, generators, config, context)
    address = await server.listen()
    slots = min(generator.slots or config["slots"] for generator in generators.values())
    num_parameters = next(iter(loaded.models.values())).num_parameters()
    say({"address": address, "context": context, "slots": slots, "num_parameters": num_parameters})
    failure = None
    while failure is None:
        await asyncio.sleep(_WATCH_S)
        failure = next(filter(None, (generator.failure() for generator in generators.values())), None)
    sys.stderr.write(f"error: continuous batching has ended: {failure}\n")
    sys.stderr.flush()
    os._exit(DEAD)  # the manager's thread would keep the process alive


def _sizes(loaded: Loaded, context: int | None, slots: int) -> tuple[int, int]:
    """Tokens per request, and pages of the cache: full contexts for all slots, as far as the free memory goes."""
    device = next(iter(loaded.models.values())).device
    free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()
    wanted = context or loaded.max_tokens or 2048
    pages = slots * -(-wanted // PAGE_TOKENS)
    if free_bytes is not None:
        share = int(free_bytes * _CACHE_SHARE / len(loaded.models))
        pages = min(pages, share // (loaded.kv_bytes_per_token * PAGE_TOKENS))
    if context is not None and pages * PAGE_TOKENS < context:
        raise InvalidRequest(
            f"context is {context:,}, the cache holds {pages * PAGE_TOKENS:,} tokens", fix="lower --context"
        )
    return min(wanted, pages * PAGE_TOKENS), max(1, pages)


class Server:
    """Routes and what they need."""

    def __init__(self, loaded: Loaded, generators: dict[str, Generator], config: dict[str, Any], context: int) -> None:
        self._loaded, self._generators, self._context = loaded, generators, context
        self._key, self._stops = config["key"], tuple(config["stops"])
        self._tokenizer = loaded.tokenizer
        self._renderer = PromptRenderer(loaded.tokenizer, config["template"])
        self._vocabulary: Vocabulary | None = None

    async def listen(self) -> str:
        """Listen on loopback. Returns the address."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {self._key}"):
            return web.Response(status=401)
        try:
            body = orjson.loads(await request.read())
            is_chat = request.path.endswith("/chat/completions")
            choices = await self._choices(body, is_chat=is_chat)
            shapes = Shapes(body["model"], self._tokenizer, choices, is_chat=is_chat)
            pieces = merged(choices, self._generators[body["model"]], self._tokenizer)
            if not body.get("stream"):
                async with aclosing(pieces):
                    whole = shapes.whole([piece async for piece in pieces])
                return web.Response(body=orjson.dumps(whole), content_type="application/json")
        except ChakuError as error:
            return web.Response(
                status=error.http_status, body=orjson.dumps(body_of(error)), content_type="application/json"
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(map(event, shapes.openings())))
        async with aclosing(pieces):
            try:
                async for piece in pieces:
                    await response.write(event(shapes.chunk(piece)))
                await response.write(event(shapes.usage_chunk()) + DONE)
            except ChakuError as error:
                await response.write(event_of(error))
        await response.write_eof()
        return response

    async def _choices(self, body: dict[str, Any], *, is_chat: bool) -> list[Choice]:
        if is_chat:
            prompts = [self._renderer.chat(body["messages"])]
            most = body.get("max_completion_tokens") or body.get("max_tokens") or self._context
        else:
            prompts = [self._renderer.completion(prompt) for prompt in prompts_of(body["prompt"])]
            most = body.get("max_tokens", 16)
        self._check(body, prompts)
        stop = body.get("stop") or ()
        stops = [stop] if isinstance(stop, str) else [*stop]
        ends = () if body.get("ignore_eos") else self._loaded.ends
        choices: list[Choice] = []
        for prompt in prompts:
            num_prompt = len(prompt.ids) + len(prompt.rechosen)
            echo = await self._echo(body, prompt) if body.get("echo") and not is_chat else None
            for number in range(body.get("n") or 1):
                choices.append(
                    Choice(
                        len(choices),
                        prompt,
                        self._renderer.before(prompt.ids),
                        self._sampling(body, prompt, number, is_chat=is_chat),
                        min(most, self._context - num_prompt),
                        ends,
                        [*stops, *(self._stops if is_chat else ())],
                        echo,
                    )
                )
        return choices

    def _check(self, body: dict[str, Any], prompts: list[Prompt]) -> None:
        for prompt in prompts:
            num_prompt = len(prompt.ids) + len(prompt.rechosen)
            room = self._context - (0 if body.get("max_tokens") == 0 else 1)
            if num_prompt > room:
                raise ContextOverflow(
                    f"the prompt is {num_prompt:,} tokens, {body['model']} takes {self._context:,} with the answer",
                    fix="shorten it, or serve the model with a larger --context",
                    param="messages" if "messages" in body else "prompt",
                )
            if not num_prompt:
                raise InvalidRequest("the prompt is empty", param="prompt")
        ids = [token_id for prompt in prompts for token_id in prompt.ids]
        for token_id in (*ids, *map(int, body.get("logit_bias") or ())):
            if token_id >= len(self._vocabulary_of().bytes_of):
                raise InvalidRequest(
                    f"no token {token_id}: {body['model']} has {len(self._vocabulary_of().bytes_of):,}, counted from 0",
                    param="logit_bias" if token_id not in ids else "prompt",
                )

    async def _echo(self, body: dict[str, Any], prompt: Prompt) -> tuple[str, tuple[Any, ...]]:
        text = prompt.text if prompt.text is not None else self._tokenizer.decode(prompt.ids)
        if body.get("logprobs") is None:
            return text, ()
        model, generator = self._loaded.models[body["model"]], self._generators[body["model"]]
        try:
            return text, tuple(await asyncio.to_thread(score_prompt, model, generator, prompt.ids, body["logprobs"]))
        except RuntimeError as error:  # torch's, for too little memory among others
            raise EngineError(f"the prompt could not be scored: {error}") from error

    def _sampling(self, body: dict[str, Any], prompt: Prompt, number: int, *, is_chat: bool) -> Sampling:
        top = (body.get("top_logprobs") or 0) if is_chat and body.get("logprobs") else None
        given = {
            name: body[name]
            for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
            if body.get(name) is not None
        }
        return Sampling(
            **given,
            top_k=max(0, body.get("top_k") or 0),
            logit_bias={int(token): bias for token, bias in (body.get("logit_bias") or {}).items()},
            seed=body["seed"] + number if body.get("seed") is not None else None,
            num_top=top if is_chat else body.get("logprobs"),
            num_prompt=len(prompt.ids),
            begins_with=b"".join(map(self._tokenizer.token_bytes, prompt.rechosen)),
            vocabulary=self._vocabulary_of() if prompt.rechosen else None,
        )

    def _vocabulary_of(self) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(_bytes_of_tokens(self._tokenizer, self._loaded))
        return self._vocabulary


def _bytes_of_tokens(tokenizer: Tokenizer, loaded: Loaded) -> list[bytes | None]:
    specials = set(tokenizer.special_ids.values())
    found: list[bytes | None] = []
    for token_id in range(next(iter(loaded.models.values())).get_input_embeddings().num_embeddings):
        try:
            found.append(None if token_id in specials else tokenizer.token_bytes(token_id))
        except (KeyError, IndexError, TypeError, ValueError):  # a row of the embedding without a token
            found.append(None)
    return found
