"""Duplicates: exact by hash, near by MinHash of word triples and locality-sensitive hashing; the first one stays.

Signatures lie on disk; one band of them at a time is in memory (about 100 bytes a conversation at the peak).
MinHash by rensa: 0.02 ms for 1,500 words, where datasketch takes 100 ms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chaku.chat.messages import Conversation, Role
from chaku.data.inputs.pairs import Pair
from chaku.data.rules.words import words

NUM_PERMUTATIONS = 128
_LEAST_RECALL = 0.98
_HASH_WORDS = 4
SIGNATURE_WIDTH = NUM_PERMUTATIONS + _HASH_WORDS
_SEED = 1

Decisions = NDArray[Any]
"""One row a conversation: `rule` (0 kept, 1 exact, 2 near), `of` (the earlier one's number), `score`."""
DECISION = np.dtype([("rule", "u1"), ("of", "<i8"), ("score", "<f4")])
RULES = (None, "exact_duplicate", "near_duplicate")


def content_hash(conversation: Conversation) -> bytes:
    """16 bytes that are the same for conversations (or pairs) whose turns differ only in spaces and case."""
    digest = hashlib.blake2b(digest_size=16)
    for message in (*conversation.messages, *(conversation.rejected if isinstance(conversation, Pair) else ())):
        text = "\x1f".join((message.content, *(call.arguments for call in message.tool_calls)))
        digest.update(f"{message.role}\x1e{' '.join(text.lower().split())}\x1d".encode("utf-8", "surrogatepass"))
    return digest.digest()


def group_of(conversation: Conversation) -> str:
    """A hash of the first prompt: what shares it belongs together, in train or in test."""
    first = next((message.content for message in conversation.messages if message.role is Role.USER), "")
    text = " ".join(first.lower().split())
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def signature(conversation: Conversation) -> NDArray[np.uint32]:
    """128 MinHash values of the word triples of its turns, then its content hash.

    System prompts are left out: a long one that many share would make unrelated chats alike.
    """
    import rensa

    minhash = rensa.RMinHash(num_perm=NUM_PERMUTATIONS, seed=_SEED)
    exact = content_hash(conversation)
    if isinstance(conversation, Pair):  # near duplicates of pairs are other opinions: only equal pairs meet
        minhash.update([exact.hex()])
        return np.concatenate([np.array(minhash.digest(), np.uint32), np.frombuffer(exact, "<u4")])
    turns = (message.content for message in conversation.messages if message.role is not Role.SYSTEM)
    tokens = words("\n".join(turns))
    triples = [f"{a} {b} {c}" for a, b, c in zip(tokens, tokens[1:], tokens[2:], strict=False)] or [" ".join(tokens)]
    minhash.update(triples)
    return np.concatenate([np.array(minhash.digest(), np.uint32), np.frombuffer(exact, "<u4")])


def band_width(least_similarity: float) -> int:
    """Values in a band: the most with which 98 % of the pairs at the threshold agree in one whole band.

    Wide bands compare fewer pairs. Raises ValueError for a threshold that no bands serve.
    """
    for width in (32, 16, 8, 4, 2):
        if 1 - (1 - least_similarity**width) ** (NUM_PERMUTATIONS // width) >= _LEAST_RECALL:
            return width
    raise ValueError(f"a similarity of {least_similarity} is too low to be found by bands")


def find_duplicates(parts: Sequence[Path], least_similarity: float) -> Decisions:
    """Compare all conversations of some signature files (.npy of uint32, SIGNATURE_WIDTH wide) in their order.

    A conversation is compared with earlier *kept* ones only, so chains of near-duplicates don't swallow each other.
    """
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    starts = np.cumsum([0, *(len(array) for array in arrays)])
    decisions = np.zeros(int(starts[-1]), DECISION)
    decisions["of"] = -1
    if not len(decisions):
        return decisions
    width = band_width(least_similarity)
    groups = np.stack(
        [_groups(arrays, NUM_PERMUTATIONS, SIGNATURE_WIDTH)]
        + [_groups(arrays, start, start + width) for start in range(0, NUM_PERMUTATIONS, width)]
    )

    def minhash(number: int) -> NDArray[np.uint32]:
        part = int(np.searchsorted(starts, number, "right")) - 1
        return np.asarray(arrays[part][number - starts[part], :NUM_PERMUTATIONS])

    firsts: dict[int, int] = {}
    kept: dict[tuple[int, int], list[int]] = {}
    for number in np.flatnonzero((groups >= 0).any(axis=0)):
        exact, *in_bands = groups[:, number]
        if exact >= 0 and (first := firsts.setdefault(int(exact), int(number))) != number:
            earlier = int(decisions[first]["of"]) if decisions[first]["rule"] else first
            decisions[number] = (1, earlier, 1.0)
            continue
        bands = [(band, int(group)) for band, group in enumerate(in_bands) if group >= 0]
        candidates = sorted({other for key in bands for other in kept.get(key, ())})
        if candidates:
            mine = minhash(int(number))
            similar = np.array([(minhash(other) == mine).mean() for other in candidates])
            best = int(similar.argmax())
            if similar[best] >= least_similarity:
                decisions[number] = (2, candidates[best], similar[best])
                continue
        for key in bands:
            kept.setdefault(key, []).append(int(number))
    return decisions


def _groups(arrays: Sequence[NDArray[np.uint32]], start: int, end: int) -> NDArray[np.int32]:
    """Number the groups of rows that agree in columns start:end; -1 for a row that agrees with none."""
    keys = np.concatenate([_mix(np.ascontiguousarray(array[:, start:end])) for array in arrays])
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.where(counts[inverse] > 1, inverse, -1).astype(np.int32)


def _mix(columns: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """64-bit hash of each row (multiply and rotate, as in splitmix64); collisions cost one comparison."""
    mixed = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
    return mixed
