"""What `chat` needs of a tokenizer. It loads none itself: `chaku.models.tokenizers` does, and hands one over."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol


class Before(enum.Enum):
    """What stands before a piece of text. SentencePiece tokenizers put a space in front of text after some of these."""

    START = "start"
    SPECIAL = "special"
    TEXT = "text"


class Tokenizer(Protocol):
    """Text to ids and back, where text is only ever text: no spelling in it becomes a special token."""

    @property
    def name(self) -> str:
        """Where it came from, for messages."""

    @property
    def hash(self) -> str:
        """Sha256 of what determines its ids, hexadecimal."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Spelling and id of every special token, user-defined ones that are spelled like markers among them."""

    @property
    def bos(self) -> str | None:
        """Spelling of the token that begins a sequence, if there is one."""

    @property
    def adds_bos(self) -> bool:
        """Whether sequences of this model begin with `bos`."""

    @property
    def eos(self) -> str:
        """Spelling of the token that ends an answer."""

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that came with the tokenizer."""

    def special_id(self, spelling: str) -> int | None:
        """The id of a special token, or None if there is none so spelled."""

    def encode_text(self, text: str, before: Before = Before.START) -> list[int]:
        """Ids of plain text. No special tokens are recognised in it, none are added."""

    def lost_characters(self, text: str) -> str:
        """Characters in `text` that no ids of this tokenizer give back, as every engine drops or changes them.

        SentencePiece reads U+2581 as a space; SmolLM2's vocabulary lacks six control characters and planes 4 to 11.
        """

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for; they may be part of a character. Special tokens give their spelling."""

    def prepends_space(self, before: Before) -> bool:
        """Whether `encode_text` puts a space in front that decoding must take away again."""

    def decode(self, token_ids: Sequence[int], before: Before = Before.START) -> str:
        """Text of ids, special tokens spelled out, bytes that are not UTF-8 replaced."""
