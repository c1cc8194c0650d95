"""A small OpenAI-compatible server on a loopback port, in a thread of its own, that misbehaves when told to.

`server.script` holds what the next chat requests get; when it is empty, the words of `server.reply`.
"""

import asyncio
import contextlib
import json
import threading
from collections import deque

from aiohttp import web

from processes import PATIENCE_S


def chunk(delta, finish_reason=None, **extra):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **extra}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice]}


def sse(content):
    return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
USAGE_CHUNK = {**chunk({}), "choices": [], "usage": USAGE}


def answer(*words, reasoning=(), finish_reason="stop", delay_s=0.0):
    """A well-behaved stream of these words."""
    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"reasoning_content": word}) for word in reasoning]
    events += [chunk({"content": word}) for word in words]
    events += [chunk({}, finish_reason), USAGE_CHUNK, "[DONE]"]
    return pieces(*map(sse, events), delay_s=delay_s)


def pieces(*raw, delay_s=0.0, cut=False):
    """These bytes as an event stream, a pause after each; `cut` closes the connection without a proper end."""

    async def respond(request, server):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for piece in raw:
                await response.write(piece)
                await asyncio.sleep(delay_s)
        except (ConnectionResetError, asyncio.CancelledError):
            server.aborted.set()
            raise
        if cut:
            request.transport.abort()
        return response

    return respond


def refusal(status, message, headers=None, **fields):
    async def respond(request, server):
        return web.json_response({"error": {"message": message, **fields}}, status=status, headers=headers)

    return respond


def hang_up():
    async def respond(request, server):
        request.transport.abort()
        await asyncio.sleep(3600)

    return respond


def whole(message, finish_reason="stop"):
    async def respond(request, server):
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
        return web.json_response({"id": "c1", "model": "fake", "choices": [choice], "usage": USAGE})

    return respond


class FakeServer:
    def __init__(self):
        self.models = ["fake"]
        self.reply = ["Hello", " there", "."]
        self.script = deque()
        self.requests = []  # (path, headers, body)
        self.aborted = threading.Event()
        self.port = 0
        self.key = None  # what /v1/models wants as Authorization

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self):
        return [body for path, _, body in self.requests if path == "/v1/chat/completions"]

    async def _chat(self, request):
        body = await request.json()
        self.requests.append((request.path, dict(request.headers), body))
        respond = self.script.popleft() if self.script else answer(*self.reply)
        return await respond(request, self)

    async def _models(self, request):
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return await refusal(401, "wrong key", code="invalid_api_key")(request, self)
        self.requests.append((request.path, dict(request.headers), None))
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _health(self, request):
        return web.json_response({"status": "ok"})

    async def _main(self, ready):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        ready.set()
        await self._end.wait()
        await runner.cleanup()

    @contextlib.contextmanager
    def running(self):
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE_S)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join(PATIENCE_S)
