"""A cloud's metadata service, played on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Metadata(ThreadingHTTPServer):
    """Answers what `pages` holds by (method, path, a header that must be there); 404 for the rest."""

    daemon_threads = True
    pages: dict[tuple[str, str, str], str]

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Metadata]:
        """One on loopback, without pages."""
        server = cls(("127.0.0.1", 0), _Handler)
        server.pages = {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        assert isinstance(self.server, Metadata)
        headers = {f"{name.lower()}: {value}" for name, value in self.headers.items()}
        found = [
            body
            for (method, path, header), body in self.server.pages.items()
            if (method, path) == (self.command, self.path) and header in headers
        ]
        self.send_response(200 if found else 404)
        body = (found or [""])[0].encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass
