"""A screen of the page as one HTML file: its modules and styles inside, its data as JSON, no server behind it."""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError
from chaku.report_page import document
from chaku.web.page import HOW_TO_GET, STATIC, modules_needed

_SPECIFIER = re.compile(rb"""^((?:import|export)\b[^;"'(]*["'])(\.{1,2}/[^"']+)(["'])""", re.MULTILINE)
_STYLES = ("app/tokens.css", "app/frame.css", "ui/kit.css", "ui/windows.css")


def standalone(title: str, entry: str, styles: Sequence[str], data: Any, folder: Path = STATIC) -> str:
    """The page of the module `entry`, which finds `data` as JSON in the element #run.

    Modules are data: URLs that an import map names, since a browser loads no module from a disk. Raises UsageError
    where the page's libraries are not installed.
    """
    if not (folder / "vendor/preact.js").exists():
        raise UsageError("the page's libraries are not installed", fix=HOW_TO_GET)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.js")}
    names = modules_needed(files, entry)
    imports = {f"chaku/{name}": _data_url(_named(files[name], posixpath.dirname(name))) for name in names}
    style = "\n".join((folder / name).read_text(encoding="utf-8") for name in (*_STYLES, *styles))
    head = f'<script type="importmap">{_json({"imports": imports})}</script>\n'
    body = (
        f'<div id="app"></div>\n<script type="application/json" id="run">{_json(data)}</script>\n'
        f'<script type="module">import "chaku/{entry}";</script>\n'
        "<noscript>This report needs JavaScript. It loads nothing.</noscript>"
    )
    return document(title, body, style=style, head=head, scripts="'unsafe-inline' data:")


def _named(source: bytes, folder: str) -> bytes:
    """A module whose imports go by the names of the import map."""

    def name(match: re.Match[bytes]) -> bytes:
        path = posixpath.normpath(posixpath.join(folder, match[2].decode()))
        return match[1] + b"chaku/" + path.encode() + match[3]

    return _SPECIFIER.sub(name, source)


def _data_url(source: bytes) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(source).decode()}"


def _json(value: Any) -> str:
    """JSON that can't end the script element it stands in."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")
