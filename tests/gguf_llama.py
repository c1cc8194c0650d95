"""A SentencePiece vocabulary as a GGUF holds it, in a random one-layer Llama that llama.cpp loads."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from gguf_files import Tensor, gguf_bytes

_WIDTH = 32


def write_llama(path: Path, model: Path) -> Path:
    """Write the vocabulary of the SentencePiece file `model`."""
    pieces = SentencePieceProcessor(model_file=str(model))
    ids = range(pieces.vocab_size())
    kinds = [6 if pieces.is_byte(i) else 3 if pieces.is_control(i) else 2 if pieces.is_unknown(i) else 1 for i in ids]
    values = {
        "general.architecture": "llama",
        "llama.context_length": 512,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": _WIDTH,
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
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = [_tensor("token_embd.weight", len(ids)), *(_tensor(f"blk.0.{name}.weight", _WIDTH) for name in matrices)]
    tensors += [_tensor(f"{name}.weight") for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")]
    path.write_bytes(gguf_bytes(values, tensors))
    return path


def _tensor(name: str, num_rows: int | None = None) -> Tensor:
    """A matrix of small random numbers, every row the same; without rows a vector of ones."""
    if num_rows is None:
        return name, (_WIDTH,), 0, struct.pack("<f", 1.0) * _WIDTH
    source = random.Random(0)
    row = struct.pack(f"<{_WIDTH}f", *(source.uniform(-0.02, 0.02) for _ in range(_WIDTH)))
    return name, (_WIDTH, num_rows), 0, row * num_rows
