"""Thumbs on answers: one for each visitor and answer, with consent, in exports too."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from chaku.errors import InvalidRequest, NotFound
from chaku.store import keys
from chaku.store.conversations import Conversations
from chaku.store.feedback import FeedbackBook
from chaku.store.transcripts import export_jsonl, import_jsonl


def answered(store, now, owner=None):
    """A chat of one question and its answer: ids of chat, question, answer."""
    mine = Conversations(store, owner)
    tree = mine.tree(mine.create("Chat", now=now).id)
    user = tree.append(None, "user", "Hi", now=now)
    return tree.conversation_id, user.id, tree.append(user.id, "assistant", "Hello", now=now).id


def test_the_first_thumb_needs_consent_and_later_ones_keep_it(store, now):
    chat, _, answer = answered(store, now)
    other_chat, _, other = answered(store, now)
    book = FeedbackBook(store, None)
    with pytest.raises(InvalidRequest) as refused:
        book.give(chat, answer, "up", now=now)
    assert refused.value.code == "consent_needed" and book.of(chat) == {}
    assert book.give(chat, answer, "up", now=now, consent=False).consent is False
    assert book.give(other_chat, other, "down", now=now + timedelta(seconds=1)).consent is False
    assert book.give(chat, answer, "up", now=now + timedelta(seconds=2), consent=True).consent is True
    assert book.give(other_chat, other, "down", now=now + timedelta(seconds=3)).consent is True


def test_a_thumb_can_be_changed_and_taken_back(store, now):
    chat, _, answer = answered(store, now)
    book = FeedbackBook(store, None)
    book.give(chat, answer, "up", now=now, consent=True)
    book.give(chat, answer, "down", now=now, reasons=["Not correct", "nul \0 and \ud800"])
    (given,) = book.of(chat).values()
    assert (given.value, given.reasons) == ("down", ["Not correct", "nul \0 and \ud800"])
    book.take_back(chat, answer)
    book.take_back(chat, answer)
    assert book.of(chat) == {}


def test_only_answers_are_rated_and_only_in_ones_own_chats(store, now):
    key = keys.create(store, "ana", now=now).key
    chat, user, answer = answered(store, now)
    with pytest.raises(InvalidRequest, match="only answers are rated"):
        FeedbackBook(store, None).give(chat, user, "up", now=now, consent=True)
    for book, of_chat, message in (
        (FeedbackBook(store, key.id), chat, answer),
        (FeedbackBook(store, None), chat, "no-such-message"),
        (FeedbackBook(store, None), "no-such-chat", answer),
    ):
        with pytest.raises(NotFound):
            book.give(of_chat, message, "up", now=now, consent=True)
        with pytest.raises(NotFound):
            book.take_back(of_chat, message)


def test_an_export_carries_thumbs_and_an_import_brings_them_back(store, now):
    chat, _, answer = answered(store, now)
    book = FeedbackBook(store, None)
    given = book.give(chat, answer, "down", now=now, reasons=["Too long"], consent=True)
    lines = list(export_jsonl(store, None, [chat], all_branches=True))
    told = json.loads(lines[0])["messages"][-1]["chaku"]["feedback"]
    assert (told["value"], told["reasons"], told["consent"]) == ("down", ["Too long"], True)
    key = keys.create(store, "ana", now=now).key
    import_jsonl(store, key.id, lines, now=now)
    (copy,) = Conversations(store, key.id).page(limit=9)
    (back,) = FeedbackBook(store, key.id).of(copy.id).values()
    assert (back.value, back.reasons, back.consent, back.created_at) == ("down", ["Too long"], True, given.created_at)
    assert back.visitor == key.id


def test_thumbs_go_with_their_chat(store, now):
    chat, _, answer = answered(store, now)
    book = FeedbackBook(store, None)
    book.give(chat, answer, "up", now=now, consent=True)
    mine = Conversations(store, None)
    mine.delete(chat, now=now)
    mine.create("x", now=now + timedelta(days=31))
    assert book.of(chat) == {}
