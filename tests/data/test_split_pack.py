"""Splitting loses no round and no supervised token; packing cuts no document and loses no token."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.render import Rendered
from chaku.data.rows.pack import best_fit, row_per_document
from chaku.data.rows.split import rounds_of, split


def render(conversation: Conversation) -> Rendered:
    """Four tokens a message, and one for each letter; the answers' letters and ends carry loss."""
    ids: list[int] = []
    mask: list[int] = []
    for message in conversation.messages:
        trained = int(message.role is Role.ASSISTANT)
        ids += [1, 2, 3, *map(ord, message.content), 4]
        mask += [0, 0, 0, *([trained] * len(message.content)), trained]
    return Rendered(ids, mask)


def trained(rows: Rendered) -> Counter[int]:
    return Counter(token for token, loss in zip(rows.input_ids, rows.loss_mask, strict=True) if loss)


def conversations() -> st.SearchStrategy[Conversation]:
    text = st.text("abcdefgh", min_size=1, max_size=40)
    rounds = st.lists(st.tuples(text, text), min_size=1, max_size=12)

    def talk(system: str | None, pairs: list[tuple[str, str]]) -> Conversation:
        messages = [Message(Role.SYSTEM, system)] if system else []
        for question, answer in pairs:
            messages += [Message(Role.USER, question), Message(Role.ASSISTANT, answer)]
        return Conversation("c", tuple(messages))

    return st.builds(talk, st.none() | st.text("sys", min_size=1, max_size=20), rounds)


@given(conversations(), st.integers(16, 200))
def test_every_round_is_in_exactly_one_segment_and_every_supervised_token_is_kept_or_counted(conversation, context):
    segments = split(conversation, render, context, "cut")
    system, rounds = rounds_of(conversation.messages)
    covered = [turns for one in segments for turns in rounds_of(one.conversation.messages)[1]]
    assert covered == rounds
    assert all(rounds_of(one.conversation.messages)[0] == system for one in segments)
    kept = sum((trained(one.rendered) for one in segments), Counter[int]())
    assert kept.total() + sum(one.num_trained_cut for one in segments) == trained(render(conversation)).total()
    if not any(one.num_cut for one in segments):
        assert kept == trained(render(conversation))


@given(conversations(), st.integers(16, 200))
def test_segments_fit_rendered_whole_and_only_single_rounds_are_cut(conversation, context):
    for segment in split(conversation, render, context, "cut"):
        whole = render(segment.conversation)
        assert len(segment.rendered.input_ids) == min(len(whole.input_ids), context)
        assert segment.num_cut == max(len(whole.input_ids) - context, 0)
        assert not segment.num_cut or segment.end_round - segment.first_round == 1


@given(conversations(), st.integers(16, 200))
def test_segments_are_as_long_as_they_can_be(conversation, context):
    segments = split(conversation, render, context, "cut")
    for one, following in itertools.pairwise(segments):
        joined = (*one.conversation.messages, *rounds_of(following.conversation.messages)[1][0])
        assert len(render(Conversation("j", joined)).input_ids) > context


def test_the_last_round_that_overflows_is_not_lost():
    """The case in which FastChat's split keeps two of four rounds (lengths 500, 500, 900, 900 at 2,048)."""
    pairs = [(size - 8 - 10, 10) for size in (500, 500, 900, 900)]
    messages = tuple(
        message
        for question, answer in pairs
        for message in (Message(Role.USER, "q" * question), Message(Role.ASSISTANT, "a" * answer))
    )
    segments = split(Conversation("c", messages), render, 2048, "cut")
    assert [(one.first_round, one.end_round) for one in segments] == [(0, 3), (3, 4)]
    assert [one.conversation.id for one in segments] == ["c#0", "c#1"]


def test_an_overlong_round_is_rejected_when_asked():
    conversation = Conversation("c", (Message(Role.USER, "q"), Message(Role.ASSISTANT, "a" * 99)))
    (segment,) = split(conversation, render, 50, "reject")
    assert segment.is_rejected and segment.num_trained_cut == 58


lengths = st.lists(st.integers(1, 64), max_size=300).map(lambda values: np.array(values, np.int64))


@given(lengths, st.integers(0, 3))
def test_packing_places_every_document_once_and_overfills_no_row(sizes, seed):
    plan = best_fit(sizes, 64, seed)
    assert sorted(plan.order.tolist()) == list(range(len(sizes)))
    for row in range(plan.num_rows):
        own = plan.order[plan.starts[row] : plan.starts[row + 1]]
        assert 0 < sizes[own].sum() <= 64


@given(lengths)
def test_best_fit_leaves_no_two_rows_that_would_fit_together(sizes):
    plan = best_fit(sizes, 64, 0)
    loads = sorted(np.add.reduceat(sizes[plan.order], plan.starts[:-1]).tolist()) if len(sizes) else []
    assert len(loads) < 2 or loads[0] + loads[1] > 64


def test_another_seed_orders_rows_differently_and_the_same_seed_does_not():
    sizes = np.arange(1, 60, dtype=np.int64)
    first, again, other = (best_fit(sizes, 64, seed).order.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_without_packing_each_document_has_its_row():
    assert row_per_document(np.array([5, 6, 7]), 0).num_rows == 3


def test_a_document_longer_than_a_row_is_our_mistake():
    with pytest.raises(ValueError, match="65"):
        best_fit(np.array([65]), 64, 0)
