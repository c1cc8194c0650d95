"""Bodies that cost the most for their size, for each inference route; used by a test and by bench/hostile.py."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES, RESPONSES, OLLAMA, SCORE = "/v1/messages", "/v1/responses", "/ollama/api/chat", "/score"
MODERATIONS = "/v1/moderations"
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
        return {CHAT: 32, MESSAGES: 32, OLLAMA: 32, MODERATIONS: 1}.get(self.path, 8)


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


def _many(before: bytes, item: bytes, after: bytes, num: int, filled: bytes = b"") -> Callable[[int], bytes]:
    """`num` items, as many as pass the scan. FILL is text up to the size, or to the 8 MiB of text that are read."""

    def make(size: int) -> bytes:
        fill = (min(size, 8 * MiB - (64 << 10)) - len(filled)) // num - len(item)
        return before + filled + b",".join([item.replace(b"FILL", b"x" * max(fill, 1))] * num) + after

    return make


_ASKED = b'{"model":"scripted",'
_OLLAMA_CALLS = b"".join(
    b'{"role":"assistant","content":"","tool_calls":['
    + b",".join([b'{"function":{"name":"%s","arguments":{}}}' % name] * 100)
    + b"]},"
    for name in (b"a", b"b")
    for _ in range(22)
)
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
    Hostile("turns", MESSAGES, _many(
        _ASKED + b'"max_tokens":8,"messages":[', b'{"role":"user","content":"FILL"}', b"]}", 19_000)),
    Hostile("results of tools", MESSAGES, _many(
        _ASKED + b'"max_tokens":8,"messages":[{"role":"user","content":[',
        b'{"type":"tool_result","tool_use_id":"a","content":"FILL"}', b"]}]}", 1000)),
    Hostile("thoughts", RESPONSES, _many(
        _ASKED + b'"store":false,"input":[',
        b'{"type":"reasoning","summary":[{"type":"summary_text","text":"FILL"}]}', b"]}", 6500)),
    Hostile("items without a role", RESPONSES, _many(
        _ASKED + b'"store":false,"input":[', b'{"content":"FILL"}', b"]}", 19_000)),
    Hostile("results of the later calls", OLLAMA, _many(
        _ASKED + b'"messages":[', b'{"role":"tool","tool_name":"b","content":"FILL"}', b"]}", 2200, _OLLAMA_CALLS)),
    Hostile("texts, the last one wrong", SCORE, _many(
        b'{"input_data":{"input_string":[', b'"FILL"', b",1]}}", 2000)),
    Hostile("texts of one letter", SCORE, _many(b'{"input_data":{"input_string":[', b'"a"', b"]}}", 8000)),
    Hostile("a text to judge", MODERATIONS, _many(b'{"input":', b'"FILL"', b"}", 1)),
    Hostile("no JSON", CHAT, lambda size: b"\xff" * size),
)  # fmt: skip
BOMB = Hostile("gzip bomb", CHAT, lambda size: gzip.compress(b" " * size, 1), "gzip")
