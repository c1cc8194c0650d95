"""A raw server in the place of an upstream, which fails in every way a network has, and a gateway in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson

from chaku.engines.upstream import UpstreamEngine
from chaku.settings import ModelConfig
from gateways import Running, gateway

MODELS = b'{"object":"list","data":[{"id":"theirs","object":"model","created":1,"owned_by":"x"}]}'
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"theirs","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hi"},"finish_reason":"stop","logprobs":null}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
WORD = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"theirs",'
    b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
)
END = WORD.replace(b'{"content":"hi"},"finish_reason":null', b'{},"finish_reason":"stop"')
USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"theirs","choices":[],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def reply(status: int, body: bytes, *headers: str, kind: str = "application/json", length: int | None = None) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {length or len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def stream(body: bytes, length: int | None = None) -> bytes:
    return reply(200, body, kind="text/event-stream", length=length)


class RawServer:
    """Answers each POST with the next of `answers` (the last again and again), closing after it; b"" says nothing."""

    def __init__(self, *answers: bytes, models: bytes = reply(200, MODELS)) -> None:
        self.answers = list(answers)
        self.models = models
        self.posts: list[dict[str, object]] = []
        self.heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.models
            if head.startswith("POST"):
                length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length"))
                self.posts.append(orjson.loads(await reader.readexactly(int(length.partition(":")[2]))))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def raw(
    server: RawServer, *, moderation: Any = None, **config: Any
) -> AsyncIterator[tuple[Running, UpstreamEngine]]:
    """A gateway in front of a raw server; yields the gateway and the engine."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    engine = UpstreamEngine("scripted", ModelConfig(source=url, **{"upstream_model": "theirs", **config}))
    try:
        async with gateway(engine, moderation=moderation, fastchat_networks=("127.0.0.0/8",)) as g:
            yield g, engine
    finally:
        listener.close()
        await listener.wait_closed()
