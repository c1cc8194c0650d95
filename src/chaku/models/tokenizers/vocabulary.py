"""The tokenizer inside a GGUF file, as plain lists."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from chaku.errors import ModelError
from chaku.models.files.gguf import GgufMetadata, read_metadata, shard_paths
from chaku.models.files.gguf_header import NUMBERS, Array, read_header, strings

# tokenizer.ggml.token_type, the same numbers as SentencePiece's
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


@dataclass(frozen=True)
class GgufVocabulary:
    """Tokens in the order of their ids, and what else decides how text becomes ids."""

    metadata: GgufMetadata
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...]
    """Empty for byte-pair encodings."""
    merges: tuple[str, ...]
    """Empty for SentencePiece."""
    pre: str
    """Name of the rule that cuts text before merging, as llama.cpp calls it."""
    adds_space_prefix: bool
    hash: str
    """Sha256 of everything above but the metadata, hexadecimal."""


def read_vocabulary(path: Path) -> GgufVocabulary:
    """Read a GGUF's tokenizer. Raises ModelError for a file without one, or one that is broken."""
    metadata = read_metadata(path)
    header, _ = read_header(shard_paths(path)[0])
    digest = hashlib.sha256()

    def raw(key: str) -> object:
        return header.values.get(f"tokenizer.ggml.{key}")

    def array(key: str) -> Array | None:
        value = raw(key)
        return value if isinstance(value, Array) else None

    def texts(key: str) -> tuple[str, ...]:
        found = array(key)
        wanted = range(found.count) if found and found.kind not in NUMBERS else range(0)
        raw_texts = strings(header.data, found, wanted)[0] if found and wanted else {}
        texts = tuple(raw_texts[index].decode("utf-8", "replace") for index in wanted)
        digest.update("\0".join((key, *texts)).encode())
        return texts

    def numbers(key: str) -> tuple[float, ...]:
        found = array(key)
        if found is None or found.kind not in NUMBERS:
            return ()
        code, width = NUMBERS[found.kind]
        data = header.data[found.start : found.start + found.count * width]
        digest.update(key.encode() + data)
        return tuple(number for (number,) in struct.iter_unpack("<" + code, data))

    tokens, merges = texts("tokens"), texts("merges")
    kinds, scores = numbers("token_type"), numbers("scores")
    pre, space = raw("pre"), raw("add_space_prefix")
    if not tokens or len(kinds) != len(tokens):
        raise ModelError(f"{path} has {len(tokens):,} tokens and {len(kinds):,} token types", fix="choose another file")
    pre = pre.decode("utf-8", "replace") if isinstance(pre, bytes) else "default"
    digest.update(f"{pre} {space} {metadata.tokenizer} {metadata.bos_token_id} {metadata.eos_token_id}".encode())
    return GgufVocabulary(
        metadata, tokens, tuple(map(int, kinds)), scores, merges, pre, space is not False, digest.hexdigest()
    )
