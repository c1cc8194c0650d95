"""Writes small GGUF files: a vocabulary, and a tiny random Llama around it that llama.cpp loads."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]


def write_gguf(path: Path, values: Mapping[str, Any], tensors: Mapping[str, Shape] | None = None) -> Path:
    """A GGUF of version 3 with `values` and float32 tensors: vectors of ones, matrices of small random numbers."""
    tensors = tensors or {}
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(values))]
    parts += [_text(key) + _value(value) for key, value in values.items()]
    offset, bodies = 0, []
    for name, shape in tensors.items():
        body = _numbers(shape)
        parts.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset))
        bodies.append(body)
        offset += len(body)
    header = b"".join(parts)
    path.write_bytes(header + bytes(-len(header) % 32) + b"".join(bodies) + bytes(64))
    return path


def llama_values(pieces: Any) -> dict[str, Any]:
    """A SentencePiece vocabulary as a GGUF holds it, and the sizes of the model below."""
    ids = range(pieces.vocab_size())
    kinds = [6 if pieces.is_byte(i) else 3 if pieces.is_control(i) else 2 if pieces.is_unknown(i) else 1 for i in ids]
    return {
        "general.architecture": "llama",
        "llama.context_length": 512,
        "llama.embedding_length": 32,
        "llama.block_count": 1,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [pieces.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [pieces.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }


def llama_tensors(vocab_size: int) -> dict[str, Shape]:
    """One layer of width 32; every 32-element multiple keeps offsets aligned."""
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return {
        "token_embd.weight": (32, vocab_size),
        "output_norm.weight": (32,),
        "blk.0.attn_norm.weight": (32,),
        "blk.0.ffn_norm.weight": (32,),
        **{f"blk.0.{name}.weight": (32, 32) for name in matrices},
    }


def _numbers(shape: Shape) -> bytes:
    if len(shape) == 1:
        return struct.pack("<f", 1.0) * shape[0]
    row = random.Random(0)
    block = struct.pack("<32f", *(row.uniform(-0.02, 0.02) for _ in range(32)))
    return block * (shape[0] * shape[1] // 32)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case _:
            return _array(value)


def _array(values: Sequence[Any]) -> bytes:
    match values[0]:
        case str():
            kind, body = 8, b"".join(map(_text, values))
        case float():
            kind, body = 6, struct.pack(f"<{len(values)}f", *values)
        case _:
            kind, body = 5, struct.pack(f"<{len(values)}i", *values)
    return struct.pack("<IIQ", 9, kind, len(values)) + body
