"""Duplicates are found, the first stays, and what only shares a subject is not a duplicate."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.recipe import DataConfig
from chaku.data.rules.dedup import NUM_PERMUTATIONS, SIGNATURE_WIDTH, find_duplicates, signature
from data.made import sentence


def talk(*turns: str) -> Conversation:
    return Conversation("x", tuple(Message((Role.USER, Role.ASSISTANT)[n % 2], text) for n, text in enumerate(turns)))


def decide(tmp_path: Path, conversations: list[Conversation], shard: int = 7) -> list[tuple[int, int]]:
    parts = []
    for start in range(0, len(conversations), shard):
        parts.append(tmp_path / f"{start}.npy")
        np.save(parts[-1], np.stack([signature(one) for one in conversations[start : start + shard]]))
    return [(int(row["rule"]), int(row["of"])) for row in find_duplicates(parts, 0.85)]


def test_exact_duplicates_differ_in_spaces_and_case_alone_and_the_first_stays(tmp_path):
    same = [
        talk("Hello  there", "Good day"),
        talk("other", "thing"),
        talk("hello there", "good\nday"),
        talk("Hello there", "Good day"),
    ]
    assert decide(tmp_path, same, shard=2) == [(0, -1), (0, -1), (1, 0), (1, 0)]


def test_a_system_prompt_that_many_share_makes_no_duplicates(tmp_path):
    chooser = random.Random(5)
    shared = Message(Role.SYSTEM, " ".join(sentence(chooser) for _ in range(80)))
    chats = [talk(sentence(chooser, 9), sentence(chooser, 30)) for _ in range(6)]
    assert decide(tmp_path, [Conversation("x", (shared, *chat.messages)) for chat in chats]) == [(0, -1)] * 6


@pytest.mark.parametrize("threshold", [0, 0.29, 1.01])
def test_a_threshold_that_the_bands_do_not_serve_is_refused(threshold):
    with pytest.raises(ValueError, match="near_duplicate_similarity"):
        DataConfig(near_duplicate_similarity=threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.85, 0.95])
def test_pairs_at_the_threshold_meet_in_a_band(tmp_path, threshold):
    draw = np.random.default_rng(0)
    first = draw.integers(0, 2**32, (150, SIGNATURE_WIDTH), dtype=np.uint32)
    second = draw.integers(0, 2**32, (150, SIGNATURE_WIDTH), dtype=np.uint32)
    for row in range(150):
        same = draw.permutation(NUM_PERMUTATIONS)[: int(np.ceil((threshold + 0.02) * NUM_PERMUTATIONS))]
        second[row, same] = first[row, same]
    np.save(tmp_path / "s.npy", np.concatenate([first, second]))
    found = find_duplicates([tmp_path / "s.npy"], threshold)
    assert (found["rule"][150:] == 2).mean() >= 0.95 and not found["rule"][:150].any()


def test_near_duplicates_are_found_and_different_conversations_are_not(tmp_path):
    chooser = random.Random(3)
    originals = [" ".join(sentence(chooser) for _ in range(25)) for _ in range(40)]
    edited = [text.replace(text.split()[50], "changed", 1) for text in originals]
    found = decide(tmp_path, [talk("Tell me a story.", text) for text in originals + edited])
    assert found[:40] == [(0, -1)] * 40
    assert found[40:] == [(2, index) for index in range(40)]


def test_the_estimate_is_close_to_the_true_similarity():
    chooser = random.Random(5)
    words = [f"w{chooser.randrange(10**6)}" for _ in range(1200)]
    triples = [set(zip(text, text[1:], text[2:], strict=False)) for text in (words, words[200:])]
    true = len(triples[0] & triples[1]) / len(triples[0] | triples[1])
    one, other = (signature(talk(" ".join(text)))[:128] for text in (words, words[200:]))
    assert abs(float((one == other).mean()) - true) < 0.12


def test_a_chain_of_small_changes_does_not_swallow_its_end(tmp_path):
    """Each step is near the one before; the last is far from the first, and from every kept one."""
    chooser = random.Random(9)
    words = [f"w{chooser.randrange(10**6)}" for _ in range(600)]
    steps = []
    for step in range(12):
        words[step * 50 : step * 50 + 12] = [f"n{step}{n}" for n in range(12)]
        steps.append(talk(" ".join(words)))
    kept = [rule for rule, _ in decide(tmp_path, steps)]
    assert kept[0] == 0 and 2 in kept and kept.count(0) >= 2
