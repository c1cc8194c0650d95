"""Which replica has read the beginning of a prompt before: a bounded index of hash chains.

The blocks are of text, not of tokens. The gateway has no tokenizer, engines of one model may differ in theirs, and
hashing 32 KiB of text costs less than a tenth of a millisecond. Text of equal beginning has tokens of equal beginning,
up to the last token or two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from chaku.serve.routing.load import Load, Work

BLOCK_BYTES = 128
MAX_BYTES = 32 << 10
"""Only so much of a prompt is hashed: what begins alike for longer is alike enough."""
BYTES_PER_TOKEN = 4
"""English text with a vocabulary of 32,000 to 128,000 tokens."""
BLOCK_TOKENS = BLOCK_BYTES // BYTES_PER_TOKEN
MAX_ENTRIES = 1 << 16


class PrefixIndex:
    """Block to the caches that hold it. The blocks that were not asked for the longest are forgotten first."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        """`max_entries` bounds the pairs of block and cache."""
        self._holders: OrderedDict[int, dict[object, None]] = OrderedDict()
        self._max_entries = max_entries
        self.num_entries = 0

    def hits(self, loads: Iterable[Load], blocks: Sequence[int]) -> list[int]:
        """For each replica the number of prompt tokens that its cache is expected to hold."""
        caches = [load.cache for load in loads]
        found = dict.fromkeys(caches, 0)
        for index, block in enumerate(blocks, start=1):
            holders = self._holders.get(block)
            if holders is None:
                break
            for cache in holders:
                if cache in found:
                    found[cache] = index
        return [found[cache] * BLOCK_TOKENS for cache in caches]

    def add(self, load: Load, blocks: Sequence[int]) -> None:
        """Note that a replica reads these blocks."""
        for block in blocks:
            holders = self._holders.setdefault(block, {})
            self._holders.move_to_end(block)
            if load.cache not in holders:
                holders[load.cache] = None
                self.num_entries += 1
        while self.num_entries > self._max_entries:
            _, holders = self._holders.popitem(last=False)
            self.num_entries -= len(holders)


def work_of(model: str, body: Mapping[str, Any], num_slots: int) -> Work:
    """What a chat or a completion asks of a replica: the size of its prompt, and the hash chain of its beginning.

    Messages are taken in the order in which every chat template shows them: tools first, then turn by turn. So a
    chat's next turn begins as the turn before it.
    """
    pieces: list[bytes] = []
    num_bytes = 0
    for piece in _pieces(body):
        if num_bytes < MAX_BYTES:
            pieces.append(piece)
        num_bytes += len(piece)
    text = b"".join(pieces)[:MAX_BYTES]
    chain = hash(model)
    blocks = []
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        chain = hash((chain, text[start : start + BLOCK_BYTES]))
        blocks.append(chain)
    return Work(num_slots, num_bytes // BYTES_PER_TOKEN, tuple(blocks))


def _pieces(body: Mapping[str, Any]) -> Iterable[bytes]:
    if tools := body.get("tools"):
        yield orjson.dumps(tools)
    for message in body.get("messages", ()):
        yield b"\n\0" + message["role"].encode() + b"\0"
        yield _bytes_of(message.get("content"))
        if calls := message.get("tool_calls"):
            yield orjson.dumps(calls)
    yield _bytes_of(body.get("prompt"))


def _bytes_of(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode()
    return orjson.dumps(content) if content else b""
