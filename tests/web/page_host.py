"""A server on loopback, in a thread of its own, that shows one application after another at one address."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send


class PageHost:
    """The server. A browser keeps the page's scripts compiled while their address stays; see `WarmPage`."""

    def __init__(self) -> None:
        self.url = ""
        self.loop: asyncio.AbstractEventLoop
        self._app: ASGIApp = Starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[PageHost]:
        """Serve until the block ends, which breaks every connection."""
        config = uvicorn.Config(self, port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=0)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(server)), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(10)
            assert not thread.is_alive()

    @contextlib.contextmanager
    def showing(self, app: ASGIApp, end: Callable[[], None]) -> Iterator[None]:
        """Answer with `app` until the block ends; then `end` is called in the server's thread."""
        self._app = app
        try:
            yield
        finally:
            self._app = Starlette()
            self.loop.call_soon_threadsafe(end)

    async def _serve(self, server: uvicorn.Server) -> None:
        self.loop = asyncio.get_running_loop()
        await server._serve()
