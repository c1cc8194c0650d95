"""The two libraries that turn plain text into ids, told to leave special tokens and spaces in front alone."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from chaku.errors import ModelError
from chaku.models.tokenizers.vocabulary import BYTE, CONTROL, UNKNOWN, USER_DEFINED, GgufVocabulary

# User-defined tokens that mark roles, tools and thoughts are special here even where a vocabulary does not say so
# (DeepSeek's <｜User｜>, Qwen's <tool_call>); others, such as runs of spaces or HTML tags, are text.
MARKER = re.compile(r"<[|｜].*|.*[|｜]>|</?(think|tool_\w+|(start|end)_of_\w+|unused\d+|s|pad|bos|eos)>|\[/?[A-Z_]+\]")

_HOLE = "\U0010ffff"  # no byte-level token: those are letters below U+0144

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# tokenizer.ggml.pre: how text is cut before merging, and whether a piece that is a token is taken without merging.
# https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
PRETOKENIZERS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo"), ((_GPT2,), False)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), ((r"\p{N}", _GPT2), False)),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe"), ((_CONTRACTIONS + r"\p{N}{1,3}" + _REST,), True)
    ),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), ((_CONTRACTIONS + r"\p{N}" + _REST,), False)),
    "tekken": ((_TEKKEN,), True),
}


class Encoder(Protocol):
    """Text to ids and an id to bytes, with no special tokens and no space in front."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for."""

    def loses(self, character: str) -> bool:
        """Whether no ids give this character back."""


class TokenizersEncoder:
    """An encoder on Hugging Face's `tokenizers`: byte-level BPE, or BPE with byte fallback and ▁ for spaces."""

    def __init__(self, tokenizer: Any, *, byte_level: bool, dropped_id: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._dropped_id = dropped_id
        self._byte_level = byte_level
        letters = byte_of_letter().items()
        self._bytes = {byte for letter, byte in letters if tokenizer.token_to_id(letter) is not None}
        self.token_bytes = functools.lru_cache(maxsize=1 << 16)(self._find_bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids if self._dropped_id is None else [token_id for token_id in ids if token_id != self._dropped_id]

    def to_json(self) -> str:
        """What `tokenizers` reads and writes as tokenizer.json."""
        return str(self._tokenizer.to_str())

    def loses(self, character: str) -> bool:
        """Whether no ids give this character back."""
        if not self._byte_level:
            return character == _SPACE
        return not self._bytes.issuperset(character.encode())

    def _find_bytes(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id) or ""
        if not self._byte_level:
            return _piece_bytes(token)
        try:
            return bytes(byte_of_letter()[letter] for letter in token)
        except KeyError:  # an added token: plain text
            return str(token).encode()


class SentencePieceEncoder:
    """An encoder on `sentencepiece`, with its own space in front switched off."""

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        # A message field that comes twice is merged: this sets normalizer_spec.add_dummy_prefix to false.
        self.processor = SentencePieceProcessor(model_proto=model + _field(3, _field(3, 0)))

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone."""
        ids: list[int] = self.processor.encode(text)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for."""
        return _piece_bytes(self.processor.id_to_piece(token_id))

    def loses(self, character: str) -> bool:
        """Whether no ids give this character back."""
        return character == _SPACE


def _piece_bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


@functools.cache
def byte_of_letter() -> dict[str, int]:
    """Byte-level BPE writes bytes as letters: printable Latin-1 as it is, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def byte_level_bpe(
    vocab: Mapping[str, int],
    merges: Iterable[tuple[str, str]],
    patterns: Sequence[str],
    *,
    takes_whole: bool,
    added: Sequence[str] = (),
) -> Encoder:
    """Byte-level BPE. Text is cut by `patterns` first; with `takes_whole`, a piece that is a token is not merged."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    # A byte without a token must still keep its neighbours from merging; llama.cpp drops it afterwards, and so do we.
    hole = _HOLE if any(letter not in vocab for letter in byte_of_letter()) else None
    known = {**vocab, hole: len(vocab)} if hole else dict(vocab)
    model = models.BPE(vocab=known, merges=list(merges), ignore_merges=takes_whole, unk_token=hole)
    tokenizer = Tokenizer(model)
    cuts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, byte_level])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    return TokenizersEncoder(tokenizer, byte_level=True, dropped_id=len(vocab) if hole else None)


def gguf_bpe(vocabulary: GgufVocabulary, specials: Mapping[str, int]) -> Encoder:
    """A GGUF's byte-level BPE. Raises ModelError if it cuts text by a rule that is not known here."""
    if vocabulary.pre not in PRETOKENIZERS:
        raise ModelError(
            f"{vocabulary.metadata.path} cuts text by the rule {vocabulary.pre!r}, which is not known here",
            fix="give its tokenizer.json",
        )
    patterns, takes_whole = PRETOKENIZERS[vocabulary.pre]
    vocab = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)]
    plain = [
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind == USER_DEFINED and token not in specials
    ]
    return byte_level_bpe(vocab, merges, patterns, takes_whole=takes_whole, added=plain)


def sentencepiece_model(vocabulary: GgufVocabulary) -> bytes:
    """A GGUF's SentencePiece vocabulary as the model file it once was.

    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    """
    pieces = []
    for token, kind, score in zip(vocabulary.tokens, vocabulary.kinds, vocabulary.scores, strict=True):
        kind = CONTROL if kind == USER_DEFINED and MARKER.fullmatch(token) else kind
        pieces.append(_field(1, _field(1, token.encode()) + _field(2, score) + _field(3, kind)))
    unknown = vocabulary.kinds.index(UNKNOWN) if UNKNOWN in vocabulary.kinds else 0
    byte_pair, has_bytes = 2, BYTE in vocabulary.kinds
    trainer = _field(3, byte_pair) + _field(4, len(pieces)) + _field(35, int(has_bytes)) + _field(40, unknown)
    normalizer = _field(1, b"identity") + _field(3, int(vocabulary.adds_space_prefix)) + _field(4, 0) + _field(5, 1)
    return b"".join(pieces) + _field(2, trainer) + _field(3, normalizer)


def _field(number: int, value: bytes | int | float) -> bytes:
    """One field in protobuf's encoding: bytes, a varint or a 32-bit float."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
