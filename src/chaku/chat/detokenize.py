"""Ids to text while they stream in: never half a character, never the space a SentencePiece tokenizer made up."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from chaku.chat.tokenizer import Before, Tokenizer


class StreamDetokenizer:
    """Turns ids into text piece by piece. All pieces joined are `tokenizer.decode` of all ids.

    Bytes of an unfinished character are held back; bytes that can't become UTF-8 give U+FFFD. With
    `skip_special` the spellings of special tokens are left out.
    """

    def __init__(self, tokenizer: Tokenizer, before: Before = Before.START, *, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._before = before
        self._skip_special = skip_special
        self._special_ids = frozenset(tokenizer.special_ids.values())
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that these ids complete; may be empty."""
        pieces: list[str] = []
        for token_id in token_ids:
            if token_id in self._special_ids:
                pieces.append(self._decoder.decode(b"", final=True))
                if not self._skip_special:
                    pieces.append(self._tokenizer.token_bytes(token_id).decode())
                self._before = Before.SPECIAL
                continue
            data = self._tokenizer.token_bytes(token_id)
            if self._tokenizer.prepends_space(self._before):
                data = data.removeprefix(b" ")
            self._before = Before.TEXT
            pieces.append(self._decoder.decode(data))
        return "".join(pieces)

    def flush(self) -> str:
        """What is still held back, at the end of the stream: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)
