"""Small GGUF files for tests, written by the format's own description and not by the code under test."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Tensor = tuple[str, tuple[int, ...], int, bytes]
"""Name, shape (innermost first), ggml type, data."""

CONTROL, USER_DEFINED, NORMAL = 3, 4, 1
TOKENS = {
    "<|endoftext|>": CONTROL,
    "<|im_start|>": CONTROL,
    "hello": NORMAL,
    "<|im_end|>": CONTROL,
    "<tool>": USER_DEFINED,
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def llama_values(**overrides: Any) -> dict[str, Any]:
    """Metadata of a two-layer Llama; `overrides` have "__" for ".", and None removes a key."""
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Tiny Llama",
        "general.file_type": 0,
        "llama.block_count": 2,
        "llama.context_length": 4096,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": list(TOKENS),
        "tokenizer.ggml.token_type": list(TOKENS.values()),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    values |= {key.replace("__", "."): value for key, value in overrides.items()}
    return {key: value for key, value in values.items() if value is not None}


def tensor(name: str = "token_embd.weight", shape: tuple[int, ...] = (64, 5)) -> Tensor:
    """An F32 tensor of zeros."""
    return name, shape, 0, bytes(4 * math.prod(shape))


def gguf_bytes(values: Mapping[str, Any], tensors: Sequence[Tensor] = (tensor(),), *, version: int = 3) -> bytes:
    """A whole file."""
    out = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(values))
    for key, value in values.items():
        out += _text(key) + _value(value)
    offset, data = 0, b""
    for name, shape, kind, content in tensors:
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        data += content + bytes(-len(content) % 32)
        offset = len(data)
    return out + bytes(-len(out) % 32) + data


def with_values(content: bytes, values: Mapping[str, Any]) -> bytes:
    """A whole file with more metadata in front of its own; a text fills it up, so that tensors stay aligned."""
    magic, version, num_tensors, num_values = struct.unpack_from("<4sIQQ", content)
    more = b"".join(_text(key) + _value(value) for key, value in values.items())
    empty = _text("test.filling") + _value("")
    more += _text("test.filling") + _value("x" * (-len(more + empty) % 32))
    start = struct.pack("<4sIQQ", magic, version, num_tensors, num_values + len(values) + 1)
    return start + more + content[len(start) :]


def write_gguf(path: Path, **overrides: Any) -> Path:
    """A two-layer Llama at `path`."""
    path.write_bytes(gguf_bytes(llama_values(**overrides)))
    return path


def write_shards(folder: Path, name: str, count: int) -> list[Path]:
    """`count` files NAME-0000i-of-0000N.gguf with one tensor each; only the first says more than its number."""
    paths = []
    for number in range(count):
        split = {"split.no": number, "split.count": count}
        values = llama_values() | split if number == 0 else {"general.architecture": "llama"} | split
        path = folder / f"{name}-{number + 1:05}-of-{count:05}.gguf"
        path.write_bytes(gguf_bytes(values, [tensor(f"blk.{number}.weight")]))
        paths.append(path)
    return paths


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> bytes:
    kind, content = _typed(value)
    return struct.pack("<I", kind) + content


def _typed(value: Any) -> tuple[int, bytes]:
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case int():
            return 4, struct.pack("<I", value)
        case float():
            return 6, struct.pack("<f", value)
        case str():
            return 8, _text(value)
        case list():
            kind = 5 if isinstance(value[0], int) else _typed(value[0])[0]
            items = [struct.pack("<i", item) if kind == 5 else _typed(item)[1] for item in value]
            return 9, struct.pack("<IQ", kind, len(value)) + b"".join(items)
    raise TypeError(type(value))
