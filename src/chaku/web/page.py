"""The page's files: HTML, scripts and styles from `static`, compressed, under names that change when they do."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import html
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chaku.errors import NotFound

STATIC = Path(__file__).parent / "static"

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types chaku dompurify"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

NOT_KEPT = "Nothing of what you write here is kept: chats end with the server, or after a day without a message."
"""The note of a gateway that keeps nothing."""

MAIN = "app/main.js"
"""The module that starts the page."""

_IMPORT = re.compile(rb"""^(?:import|export)\b[^;"'(]*["'](\.{1,2}/[^"']+)["']""", re.MULTILINE)

_SCREENS = frozenset({"arena", "chat", "compare", "evals", "leaderboard", "library", "training"})
"""First parts of paths that are screens, whoever asks. Of others the page itself tells a browser that there is none."""

_NOT_OURS = frozenset({"api", "assets", "docs", "health", "metrics", "openapi.json", "redoc", "v1"})
"""First parts of paths whose unknown addresses are errors, and no screens of the page."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_PACKED_ALREADY = frozenset({".png", ".woff2"})
_MIN_GZIP_BYTES = 500

_MISSING = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>chaku</title></head><body>
<h1>chaku is serving, without its page</h1>
<p>The API is at /v1 and described at <a href="/docs">/docs</a>; <code>chaku chat</code> talks to it in a terminal.</p>
<p>The page's files are not installed: {reason}</p></body></html>"""

HOW_TO_GET = "run `make page` in the sources with npm in reach, or install chaku from its wheel"


@dataclass
class File:
    """One file as it is sent."""

    content: bytes
    media_type: str
    is_packed: bool
    gzipped: bytes | None = None

    def for_browser(self, accepts: str) -> tuple[bytes, dict[str, str]]:
        """The bytes and headers for this Accept-Encoding; compressed once, when first asked for."""
        if self.is_packed or len(self.content) < _MIN_GZIP_BYTES:
            return self.content, {}
        if not re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", accepts):
            return self.content, {"vary": "accept-encoding"}
        if self.gzipped is None:
            self.gzipped = gzip.compress(self.content, mtime=0)
        return self.gzipped, {"vary": "accept-encoding", "content-encoding": "gzip"}


class PageFiles:
    """The files of a folder, in memory. Changed files are seen with the next load of the page."""

    def __init__(self, folder: Path = STATIC, *, note: str | None = None) -> None:
        """`note` is said at the top of every screen."""
        self._folder = folder
        self._note = f'<p id="note" role="note">{html.escape(note)}</p>' if note else ""
        self._files: dict[str, File] = {}
        self._seen: dict[Path, tuple[int, int]] = {}
        self._index = ""
        self.hash = ""
        self._refresh()

    @property
    def missing(self) -> str | None:
        """The missing part of the page, or None if the page is whole."""
        for name in ("index.html", "vendor/manifest.json"):
            if name not in self._files:
                return f"{name} is not there; {HOW_TO_GET}"
        return None

    def routes(self) -> list[Route]:
        """The page's addresses, and its files below /assets/HASH/."""
        return [
            Route("/assets/{hash}/{name:path}", self.asset),
            Route("/", self.index, methods=["GET"]),
            Route("/{path:path}", self.screen, methods=["GET"]),
        ]

    async def screen(self, request: Request) -> Response:
        """The page, for a browser that goes to one of its screens; everything else is not found."""
        path = request.path_params["path"]
        first = path.split("/")[0]
        is_navigation = first in _SCREENS or "text/html" in request.headers.get("accept", "")
        if not is_navigation or first in _NOT_OURS or "." in path.rsplit("/")[-1]:
            raise NotFound(f"no path {request.url.path[:200]!r}")
        return await self.index(request)

    async def index(self, request: Request) -> Response:
        """The page, never from a cache, with today's hash in the addresses of its files."""
        await asyncio.to_thread(self._refresh)
        headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
        if (reason := self.missing) is not None:
            return HTMLResponse(_MISSING.format(reason=reason), 503, headers)
        return HTMLResponse(self._index, headers=headers)

    async def asset(self, request: Request) -> Response:
        """One file. An old hash gets today's file, uncached, so that a tab from before an upgrade still works."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise NotFound(f"the page has no file {request.path_params['name'][:200]!r}")
        is_current = request.path_params["hash"] == self.hash
        caching = "public, max-age=31536000, immutable" if is_current else "no-store"
        content, headers = await asyncio.to_thread(file.for_browser, request.headers.get("accept-encoding", ""))
        headers |= {**SECURITY_HEADERS, "cache-control": caching, "content-type": file.media_type}
        return Response(content, headers=headers)

    def _refresh(self) -> None:
        """Read the folder again if anything in it has changed (half a millisecond if not)."""
        paths = sorted(path for path in self._folder.rglob("*") if path.suffix in _TYPES and path.is_file())
        stats = {path: path.stat() for path in paths}
        seen = {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}
        if seen == self._seen:
            return
        files: dict[str, File] = {}
        whole = hashlib.sha256()
        for path in paths:
            name = path.relative_to(self._folder).as_posix()
            content = path.read_bytes()
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
            files[name] = File(content, _TYPES[path.suffix], path.suffix in _PACKED_ALREADY)
        self._files, self.hash, self._seen = files, whole.hexdigest()[:16], seen
        if "index.html" in files:
            self._index = self._filled(files["index.html"].content.decode())

    def _filled(self, index: str) -> str:
        """index.html; `{{preload}}` becomes a line for each module that is needed at once."""
        names = modules_needed({name: file.content for name, file in self._files.items()}, MAIN)
        links = [f'    <link rel="modulepreload" href="{{{{assets}}}}/{name}">\n' for name in names if name != MAIN]
        filled = {"preload": "".join(links), "note": self._note, "assets": f"/assets/{self.hash}"}
        for name, text in filled.items():
            index = index.replace(f"{{{{{name}}}}}", text)
        return index


def modules_needed(files: Mapping[str, bytes], start: str) -> list[str]:
    """The modules that run before `start` does, and `start`, by name; what is imported on demand is not among them."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found or name not in files:
            continue
        found.add(name)
        folder = posixpath.dirname(name)
        for path in _IMPORT.findall(files[name]):
            waiting.append(posixpath.normpath(posixpath.join(folder, path.decode())))
    return sorted(found)
