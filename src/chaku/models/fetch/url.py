"""Models at a plain URL: resumed where they stopped, hashed, and never followed to a place without encryption."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from chaku.errors import ModelError
from chaku.models.fetch import cache
from chaku.models.fetch.progress import Progress
from chaku.models.reference import UrlFile, allowed_url

_TIMEOUT_S = 30
_ATTEMPTS = 4
_PAUSE_S = 1.0
_PIECE_BYTES = 1 << 18


class _Interrupted(Exception):
    """The connection ended early; what has come is kept and the rest is asked for."""


def pull(reference: UrlFile, folder: Path, progress: Progress) -> Path:
    """Fetch a file into `folder`, continuing an earlier attempt. Raises ModelError. Call it under the model's lock."""
    target = folder / cache.file_name(unquote(urlsplit(reference.url).path))
    partial = folder / f".{target.name}.{reference.sha256[:12]}.part"
    with cache.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            try:
                _fetch(reference.url, partial, progress)
                break
            except _Interrupted as error:
                if attempt == _ATTEMPTS - 1:
                    size = partial.stat().st_size if partial.exists() else 0
                    message = f"{reference.url} stopped after {size:,} bytes: {error}"
                    raise ModelError(message, fix="pull again; it continues there") from None
                time.sleep(_PAUSE_S * attempt)
        sha256 = _hash(partial, progress)
        if sha256 != reference.sha256:
            partial.unlink()
            raise ModelError(
                f"{reference.url} has sha256 {sha256}, not {reference.sha256}",
                fix="check the address and the sha256; the file was deleted",
            )
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    return target


def _fetch(url: str, partial: Path, progress: Progress) -> None:
    """Append what is missing. Raises _Interrupted when the connection breaks, ModelError when it is pointless."""
    have_bytes = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 -- checked by parse
    if have_bytes:
        request.add_header("Range", f"bytes={have_bytes}-")
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
            if have_bytes and response.status != 206:
                have_bytes = 0  # the server sends it all again
            length = response.headers.get("Content-Length")
            total_bytes = have_bytes + int(length) if length and length.isdigit() else None
            if total_bytes is not None:
                cache.require_space(partial.parent, total_bytes - have_bytes)
            with partial.open("ab" if have_bytes else "wb") as file:
                while piece := response.read(_PIECE_BYTES):
                    file.write(piece)
                    have_bytes += len(piece)
                    progress("download", have_bytes, total_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is left to send: the sha256 decides
            return
        if error.code in (408, 429, 500, 502, 503, 504):
            raise _Interrupted(f"HTTP {error.code} {error.reason}") from None
        raise ModelError(f"{url} answers HTTP {error.code} {error.reason}", fix="check the address") from None
    except urllib.error.URLError as error:
        raise _Interrupted(str(error.reason)) from None
    except (http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None
    if total_bytes is not None and have_bytes < total_bytes:
        raise _Interrupted(f"the connection closed {total_bytes - have_bytes:,} bytes early")


def _hash(path: Path, progress: Progress) -> str:
    digest, done_bytes, total_bytes = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            done_bytes += len(piece)
            progress("verify", done_bytes, total_bytes)
    return digest.hexdigest()


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not allowed_url(newurl):
            raise ModelError(f"{req.full_url} redirects to {newurl}, without encryption", fix="use another address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_CarefulRedirects)
