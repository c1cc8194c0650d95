"""Bodies that cost the most for their size, for each inference route; used by a test and by bench/hostile.py."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MiB = 2**20


@dataclass(frozen=True)
class Hostile:
    """One shape; `make(size)` is a body of about so many bytes."""

    name: str
    path: str
    make: Callable[[int], bytes]
    encoding: str = ""

    @property
    def largest_mib(self) -> int:
        """The largest body that is read on its path."""
        return 32 if self.path == CHAT else 8


def _fields(path: str, inner: bytes) -> bytes:
    field = {CHAT: b'"messages":', COMPLETIONS: b'"prompt":', EMBEDDINGS: b'"input":'}[path]
    return b'{"model":"scripted",' + field + inner + b"}"


def _items(path: str, item: bytes, last: bytes = b"1") -> Callable[[int], bytes]:
    return lambda size: _fields(path, b"[" + (item + b",") * (size // (len(item) + 1)) + last + b"]")


def _text(path: str, letters: bytes) -> Callable[[int], bytes]:
    def make(size: int) -> bytes:
        text = b'"' + letters * (size // len(letters)) + b'"'
        return _fields(path, b'[{"role":"user","content":' + text + b"}]" if path == CHAT else text)

    return make


def _keys(before: bytes, after: bytes) -> Callable[[int], bytes]:
    def make(size: int) -> bytes:
        some = b",".join(b'"%07d":1' % number for number in range(min(size // 12, 90_000)))
        keys = b",".join([some] * max(1, size // len(some)))
        return _fields(CHAT, b'[{"role":"user","content":"x"}]')[:-1] + before + keys + after

    return make


def _image(fill: bytes) -> Callable[[int], bytes]:
    def make(size: int) -> bytes:
        url = b'"data:image/png;base64,' + fill * ((size - 200) // len(fill)) + b'"'
        part = b'{"type":"image_url","image_url":{"url":' + url + b"}}"
        return _fields(CHAT, b'[{"role":"user","content":[' + part + b"]}]")

    return make


HOSTILE = (
    *(Hostile(f"arrays {path[4:]}", path, _items(path, b"[]")) for path in (CHAT, COMPLETIONS, EMBEDDINGS)),
    *(Hostile(f"objects {path[4:]}", path, _items(path, b"{}")) for path in (CHAT, COMPLETIONS, EMBEDDINGS)),
    Hostile("ids, the last one wrong", COMPLETIONS, _items(COMPLETIONS, b"1", b'"x"')),
    Hostile("ids, all wrong", COMPLETIONS, _items(COMPLETIONS, b"-1", b"-1")),
    Hostile("floats", EMBEDDINGS, _items(EMBEDDINGS, b"1.2345678901234567e-300")),
    Hostile("inputs of one letter", EMBEDDINGS, _items(EMBEDDINGS, b'"a"', b'"a"')),
    Hostile("lists of one id", EMBEDDINGS, _items(EMBEDDINGS, b"[1]", b"[1]")),
    Hostile("short messages", CHAT, _items(CHAT, b'{"role":"user","content":"x"}', b'{"role":"user","content":"x"}')),
    Hostile("messages without a role", CHAT, _items(CHAT, b'{"content":"x"}', b"{}")),
    Hostile("unknown fields", CHAT, _keys(b",", b"}")),
    Hostile("unknown fields of a tool", CHAT, _keys(b',"tools":[{"type":"function","function":{', b"}}]}")),
    Hostile("biases", CHAT, _keys(b',"logit_bias":{', b"}}")),
    Hostile("properties of a schema", CHAT, _keys(
        b',"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{',
        b"}}}}}",
    )),
    Hostile("brackets that never close", CHAT, lambda size: b"[" * size),
    Hostile("quotes", CHAT, lambda size: b'"' * size),
    Hostile("escaped quotes", CHAT, _text(CHAT, b'\\"')),
    Hostile("escapes", COMPLETIONS, _text(COMPLETIONS, b"\\u0041")),
    Hostile("wide characters", COMPLETIONS, _text(COMPLETIONS, "🦙".encode())),
    Hostile("one wide character in much text", CHAT, lambda size: _text(CHAT, b"a")(size).replace(
        b'"content":"a', b'"content":"' + "🦙".encode(), 1)
    ),
    Hostile("text", EMBEDDINGS, _text(EMBEDDINGS, b"word ")),
    Hostile("white space", CHAT, lambda size: b" " * size + b"{}"),
    Hostile("a number of many digits", COMPLETIONS, lambda size: _fields(COMPLETIONS, b"[0." + b"1" * size + b"]")),
    Hostile("image", CHAT, _image(b"A")),
    Hostile("image with escaped slashes", CHAT, _image(b"A" * 60 + b"\\/")),
    Hostile("no JSON", CHAT, lambda size: b"\xff" * size),
)  # fmt: skip
BOMB = Hostile("gzip bomb", CHAT, lambda size: gzip.compress(b" " * size, 1), "gzip")
