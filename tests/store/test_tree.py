import json
from datetime import timedelta

import pytest
import sqlalchemy as sa

from chaku.errors import InvalidRequest, NotFound
from chaku.store.conversations import KEPT_DELETED, Conversations
from chaku.store.database import open_store
from chaku.store.message_record import EDITED, MessageState
from chaku.store.tables import messages
from chaku.store.transcripts import import_jsonl
from chaku.store.tree import Tree
from processes import run_python


@pytest.fixture
def tree(store, now) -> Tree:
    mine = Conversations(store, None)
    return mine.tree(mine.create("Chat", now=now).id)


def contents(messages) -> list[str]:
    return [message.content for message in messages]


def test_a_chat_reads_from_first_to_last_message(tree, now):
    assert tree.path() == []
    system = tree.append(None, "system", "Be brief.", now=now)
    user = tree.append(system.id, "user", [{"type": "text", "text": "Hi"}], now=now)
    answer = tree.append(user.id, "assistant", "Hello!", now=now, model="m", sampling={"temperature": 0.5})
    assert tree.path() == [system, user, answer]
    assert tree.path(user.id) == [system, user]
    assert tree.get(answer.id) == answer


def test_an_edit_is_a_new_sibling_and_the_old_branch_stays(tree, now):
    user = tree.append(None, "user", "Hi", now=now)
    answer = tree.append(user.id, "assistant", "Hello!", now=now)
    edited = tree.edit(user.id, "Hi there", now=now)
    assert (edited.parent_id, edited.role, edited.position) == (None, "user", 1)
    assert tree.path() == [edited]
    assert tree.path(answer.id) == [user, answer]
    assert tree.siblings(user.id) == tree.siblings(edited.id) == [user.id, edited.id]
    assert tree.switch(user.id) == answer.id
    assert tree.path() == [user, answer]


def test_a_rewritten_answer_is_a_version_beside_the_old_one_and_says_what_it_is(tree, now):
    user = tree.append(None, "user", "Hi", now=now)
    answer = tree.append(user.id, "assistant", "Helo", now=now, model="m")
    edited = tree.edit(answer.id, "Hello", now=now)
    assert (edited.parent_id, edited.model, edited.finish_reason) == (user.id, "m", EDITED)
    assert tree.get(answer.id) == answer


def finished(tree, now, **how):
    user = tree.append(None, "user", "Hi", now=now)
    answer = tree.append(user.id, "assistant", "", now=now, state=MessageState.STREAMING, model="m", gateway_id="g")
    tree.finish(answer.id, how.pop("content", "Hel"), now=now, **how)
    return answer


@pytest.mark.parametrize(
    "how",
    [
        {"finish_reason": "length", "usage": {"completion_tokens": 1}},
        {"state": MessageState.STOPPED},
        {"state": MessageState.FAILED, "error": {"message": "gone"}},
    ],
)
def test_an_answer_that_was_cut_off_can_stream_again_with_its_text_kept(tree, now, how):
    answer = finished(tree, now, **how)
    resumed = tree.resume(answer.id, now=now, model="n", sampling={"max_tokens": 9}, gateway_id="h")
    assert (resumed.state, resumed.content, resumed.model, resumed.error) == (MessageState.STREAMING, "Hel", "n", None)
    assert resumed == tree.get(answer.id) and resumed.usage == how.get("usage")
    tree.grow(answer.id, "Hello", now=now)
    tree.finish(answer.id, "Hello!", now=now, finish_reason="stop")
    assert contents(tree.path()) == ["Hi", "Hello!"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"finish_reason": "stop"}, "it ended by itself"),
        ({"finish_reason": "length", "content": ""}, "it has no text"),
        ({"finish_reason": "length", "extra": {"tool_calls": [{}]}}, "it has no text"),
    ],
)
def test_what_can_not_be_continued_is_refused_with_the_reason(tree, now, how, why):
    answer = finished(tree, now, **how)
    with pytest.raises(InvalidRequest, match=why):
        tree.resume(answer.id, now=now, model=None, sampling={}, gateway_id="h")
    with pytest.raises(InvalidRequest, match="it is the user's"):
        tree.resume(answer.parent_id, now=now, model=None, sampling={}, gateway_id="h")


def test_an_answer_that_others_follow_or_that_is_written_is_not_continued(tree, now):
    answer = finished(tree, now, finish_reason="length")
    below = tree.append(answer.id, "user", "and?", now=now)
    with pytest.raises(InvalidRequest, match="other messages follow it"):
        tree.resume(answer.id, now=now, model=None, sampling={}, gateway_id="h")
    tree.delete(below.id, now=now)
    tree.resume(answer.id, now=now, model=None, sampling={}, gateway_id="h")
    with pytest.raises(InvalidRequest, match="still being written"):
        tree.resume(answer.id, now=now, model=None, sampling={}, gateway_id="h")
    with pytest.raises(InvalidRequest, match="being written"):
        tree.delete(answer.parent_id, now=now)


def test_a_deleted_message_takes_what_follows_and_comes_back_with_it(store, tree, now):
    user = tree.append(None, "user", "apple", now=now)
    first = tree.append(user.id, "assistant", "pear", now=now)
    below = tree.append(first.id, "user", "plum", now=now)
    second = tree.append(user.id, "assistant", "fig", now=now)
    tree.switch(below.id)
    assert tree.delete(first.id, now=now) == [first.id, below.id]
    assert contents(tree.path()) == ["apple", "fig"]  # the sibling that is left is shown
    assert contents(tree.messages()) == ["apple", "fig"] and tree.siblings(second.id) == [second.id]
    mine = Conversations(store, None)
    assert [mine.search(text, limit=9) != [] for text in ("apple", "pear", "plum", "fig")] == [True, False, False, True]
    for gone in (first.id, below.id):
        with pytest.raises(NotFound):
            tree.get(gone)
        with pytest.raises(NotFound):
            tree.append(gone, "user", "x", now=now)
    with pytest.raises(NotFound):
        tree.restore(second.id)
    tree.restore(first.id)
    assert contents(tree.path()) == ["apple", "pear", "plum"]
    assert tree.delete(user.id, now=now) and tree.path() == []
    tree.restore(user.id)
    assert contents(tree.messages()) == ["apple", "pear", "plum", "fig"]


def test_of_two_deletions_each_is_undone_alone(tree, now):
    user = tree.append(None, "user", "a", now=now)
    answer = tree.append(user.id, "assistant", "b", now=now)
    later = now + timedelta(seconds=1)
    tree.delete(answer.id, now=now)
    tree.delete(user.id, now=later)
    with pytest.raises(NotFound):
        tree.restore(answer.id)  # its parent is deleted
    tree.restore(user.id)
    assert contents(tree.messages()) == ["a"]
    tree.restore(answer.id)
    assert contents(tree.messages()) == ["a", "b"]


def test_deleted_messages_are_gone_for_good_after_a_while_and_the_others_stay(store, tree, now):
    user = tree.append(None, "user", "a", now=now)
    answer = tree.append(user.id, "assistant", "b", now=now)
    tree.append(answer.id, "user", "c", now=now)
    tree.delete(answer.id, now=now)
    mine = Conversations(store, None)
    mine.create("x", now=now + KEPT_DELETED - timedelta(seconds=1))
    tree.restore(answer.id)
    tree.delete(answer.id, now=now)
    mine.create("y", now=now + KEPT_DELETED + timedelta(seconds=1))
    with pytest.raises(NotFound):
        tree.restore(answer.id)
    assert contents(tree.messages()) == ["a"]


def test_regenerating_adds_answers_side_by_side_and_switching_goes_down_to_the_newest_leaf(tree, now):
    user = tree.append(None, "user", "Hi", now=now)
    answers = [tree.append(user.id, "assistant", text, now=now) for text in ("a", "b", "c")]
    assert [answer.position for answer in answers] == [0, 1, 2]
    assert tree.siblings(answers[1].id) == [answer.id for answer in answers]
    below = tree.append(answers[0].id, "user", "more", now=now)
    newest = tree.append(below.id, "assistant", "newest", now=now)
    assert tree.switch(answers[2].id) == answers[2].id
    assert tree.switch(answers[0].id) == newest.id
    assert contents(tree.path()) == ["Hi", "a", "more", "newest"]
    assert tree.switch(user.id) == answers[2].id


def test_a_running_answer_is_kept_as_it_grows_and_finished_once(store, tree, now):
    user = tree.append(None, "user", "Hi", now=now)
    answer = tree.append(user.id, "assistant", "", now=now, state=MessageState.STREAMING, model="m")
    tree.grow(answer.id, "Hel", reasoning="They greet", now=now + timedelta(seconds=1))
    seen = tree.path()[-1]
    assert (seen.content, seen.reasoning, seen.state) == ("Hel", "They greet", MessageState.STREAMING)
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    done = now + timedelta(seconds=2)
    tree.finish(answer.id, "Hello!", reasoning="They greet.", usage=usage, finish_reason="stop", now=done)
    seen = tree.get(answer.id)
    assert (seen.content, seen.reasoning, seen.state) == ("Hello!", "They greet.", MessageState.COMPLETE)
    assert (seen.usage, seen.finish_reason, seen.created_at, seen.updated_at) == (usage, "stop", now, done)
    assert Conversations(store, None).get(tree.conversation_id).updated_at == done
    for change in (tree.grow, tree.finish):
        with pytest.raises(NotFound, match="being written"):
            change(answer.id, "again", now=now)
    assert tree.get(answer.id).content == "Hello!"


def test_a_failed_answer_keeps_its_text_and_its_error_apart(tree, now):
    answer = tree.append(None, "assistant", "", now=now, state=MessageState.STREAMING)
    error = {"message": "the engine died", "type": "server_error", "code": "engine_error"}
    tree.finish(answer.id, "Half an ans", state=MessageState.FAILED, error=error, now=now)
    seen = tree.get(answer.id)
    assert (seen.content, seen.state, seen.error) == ("Half an ans", MessageState.FAILED, error)


def test_an_answer_goes_on_growing_while_its_conversation_is_deleted(store, tree, now):
    mine = Conversations(store, None)
    answer = tree.append(None, "assistant", "", now=now, state=MessageState.STREAMING)
    mine.delete(tree.conversation_id, now=now)
    with pytest.raises(NotFound):
        tree.path()
    tree.finish(answer.id, "whole", now=now)
    mine.restore(tree.conversation_id)
    assert contents(tree.path()) == ["whole"]


def test_text_that_databases_dislike_comes_back_as_it_was(tree, now):
    odd = "nul \0 lone \ud800 emoji 🦙 quote ' \" backslash \\ percent % newline \r\n"
    tools = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": odd}}]}
    message = tree.append(None, "assistant", odd, now=now, reasoning=odd, extra=tools)
    assert tree.path() == [message]
    assert (message.content, message.reasoning, message.extra) == (odd, odd, tools)


@pytest.mark.parametrize(
    ("role", "content", "param"),
    [("wizard", "x", "role"), ("user", None, "content"), ("user", 5, "content"), ("user", ["x"], "content")],
)
def test_what_is_no_message_is_refused(tree, now, role, content, param):
    with pytest.raises(InvalidRequest) as caught:
        tree.append(None, role, content, now=now)
    assert caught.value.param == param
    assert tree.nodes() == []


def test_a_parent_in_another_conversation_is_refused_by_code_and_by_the_database(store, tree, now):
    mine = Conversations(store, None)
    stranger = mine.tree(mine.create("Other", now=now).id).append(None, "user", "Hi", now=now)
    own = tree.append(None, "user", "Hi", now=now)
    with pytest.raises(NotFound):
        tree.append(stranger.id, "user", "Hi", now=now)
    with pytest.raises(sa.exc.IntegrityError), store.write() as connection:
        connection.execute(messages.update().where(messages.c.id == own.id).values(parent_id=stranger.id))


def test_a_long_chat_is_read_whole(store, now):
    messages = [{"role": "user", "content": str(index)} for index in range(1200)]  # deeper than the recursion limit
    import_jsonl(store, None, [json.dumps({"messages": messages})], now=now)
    (chat,) = Conversations(store, None).page(limit=10)
    tree = Conversations(store, None).tree(chat.id)
    path = tree.path()
    assert contents(path) == [str(index) for index in range(1200)]
    assert len(tree.nodes()) == 1200
    assert tree.switch(path[0].id) == path[-1].id


def test_siblings_added_by_two_processes_at_once_are_numbered_without_gap_or_repeat(url, now):
    code = """
import sys
from datetime import UTC, datetime
from chaku.store.conversations import Conversations
from chaku.store.database import open_store
with open_store(sys.argv[1]) as store:
    tree = Conversations(store, None).tree(sys.argv[2])
    for _ in range(60):
        tree.append(sys.argv[3], "assistant", "x", now=datetime.now(UTC))
"""
    with open_store(url) as store:
        mine = Conversations(store, None)
        tree = mine.tree(mine.create("Chat", now=now).id)
        user = tree.append(None, "user", "Hi", now=now)
        writers = [run_python(code, url, tree.conversation_id, user.id) for _ in range(2)]
        for writer in writers:
            _, errors = writer.communicate(timeout=60)
            assert writer.returncode == 0, errors
        assert [node.position for node in tree.nodes() if node.parent_id == user.id] == list(range(120))
