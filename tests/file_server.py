"""A web server on loopback that serves files well, badly or not at all, for tests of everything that fetches."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class Page:
    """What one path answers."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: list[int] = field(default_factory=list)
    """Close the connection after so many bytes of the body: one number for each GET, then none."""
    ranges: bool = True
    hang: bool = False
    """Send half of the body, then wait until the server ends."""


class FileServer:
    """`with FileServer() as server: server.pages["/f"] = Page(b"...")`; `requests` holds (method, path, Range)."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.authorizations: set[str] = set()
        self.half_sent, self.ending = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                server._answer(self)

            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def gets(self) -> Counter[str]:
        """How often each path was asked for with GET."""
        return Counter(path for method, path, _ in self.requests if method == "GET")

    def json(self, path: str, value: object) -> None:
        """Serve a JSON value."""
        self.pages[path] = Page(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.command, handler.path, wanted))
        self.authorizations.update(handler.headers.get_all("Authorization", []))
        page = self.pages.get(handler.path.partition("?")[0], Page(b"nothing here", 404))
        body, status, extra = page.content, page.status, dict(page.headers)
        if wanted and page.ranges and status == 200:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = (206, body[start:]) if start < len(body) else (416, b"")
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **extra}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if page.hang:
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            self.half_sent.set()
            self.ending.wait()
        elif page.cut_at:
            handler.wfile.write(body[: page.cut_at.pop(0)])
            handler.close_connection = True
        else:
            handler.wfile.write(body)
