import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from chaku.errors import InvalidRequest, NotFound
from chaku.store.conversations import KEPT_DELETED, Conversations
from chaku.store.database import open_store
from chaku.store.message_record import EDITED, MessageState
from chaku.store.tables import messages
from chaku.store.transcripts import export_jsonl, import_jsonl
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


class TreeMachine(RuleBasedStateMachine):
    """Random chats against a model of them in plain lists and dicts."""

    url = ""  # set by the test that runs it

    @initialize()
    def begin(self):
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.store = open_store(self.url)
        mine = Conversations(self.store, None)
        self.tree = mine.tree(mine.create("Chat", now=self.now).id)
        self.parent: dict[str, str | None] = {}
        self.content: dict[str, str] = {}
        self.children: dict[str | None, list[str]] = {}
        self.deleted: dict[str, datetime] = {}
        self.shown: str | None = None

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()

    def _added(self, message):
        self.parent[message.id] = message.parent_id
        self.content[message.id] = message.content
        self.children.setdefault(message.parent_id, []).append(message.id)
        self.shown = message.id

    def _pick(self, number: int) -> str | None:
        known = [None, *self._live()]
        return known[number % len(known)]

    @rule(number=st.integers(0, 1000), text=st.text(max_size=5))
    def append(self, number, text):
        self._added(self.tree.append(self._pick(number), "user", text, now=self.now))

    @rule(number=st.integers(0, 1000), text=st.text(max_size=5))
    def edit(self, number, text):
        if (target := self._pick(number)) is not None:
            message = self.tree.edit(target, text, now=self.now)
            assert message.parent_id == self.parent[target]
            self._added(message)

    @rule(number=st.integers(0, 1000))
    def switch(self, number):
        if (target := self._pick(number)) is not None:
            self.shown = self.tree.switch(target)
            assert self._children(self.shown) == []
            assert target in self._ancestors(self.shown)

    @rule(number=st.integers(0, 1000))
    def delete(self, number):
        if (target := self._pick(number)) is None:
            return
        below = [node for node in self._live() if target in self._ancestors(node)]
        self.now += timedelta(seconds=1)
        assert sorted(self.tree.delete(target, now=self.now)) == sorted(below)
        self.deleted |= dict.fromkeys(below, self.now)
        if self.shown in below:
            siblings = self._children(self.parent[target])
            self.shown = self._newest_leaf(siblings[-1]) if siblings else self.parent[target]

    @rule(number=st.integers(0, 1000))
    def restore(self, number):
        if not self.deleted:
            return
        target = list(self.deleted)[number % len(self.deleted)]
        if self.parent[target] in self.deleted:
            with pytest.raises(NotFound):
                self.tree.restore(target)
            return
        self.tree.restore(target)
        moment = self.deleted[target]
        for node in [n for n, when in self.deleted.items() if when == moment and target in self._ancestors(n)]:
            del self.deleted[node]
        self.shown = self._newest_leaf(target)

    def _live(self) -> list[str]:
        return [node for node in self.parent if node not in self.deleted]

    def _children(self, node: str | None) -> list[str]:
        return [child for child in self.children.get(node, []) if child not in self.deleted]

    def _newest_leaf(self, node: str) -> str:
        while children := self._children(node):
            node = children[-1]
        return node

    def _ancestors(self, message_id: str | None) -> list[str]:
        path = []
        while message_id is not None:
            path.append(message_id)
            message_id = self.parent[message_id]
        return path

    @invariant()
    def the_path_shown_is_the_models(self):
        if hasattr(self, "tree"):
            assert [message.id for message in self.tree.path()] == self._ancestors(self.shown)[::-1]

    @invariant()
    def nothing_is_lost_and_siblings_are_numbered_in_order(self):
        if hasattr(self, "tree"):
            nodes = self.tree.nodes()
            assert {node.id: node.parent_id for node in nodes} == {n: self.parent[n] for n in self._live()}
            seen: dict[str | None, list[str]] = {}
            for node in nodes:
                assert node.parent_id is None or node.parent_id in {n for ids in seen.values() for n in ids}
                assert self.children[node.parent_id][node.position] == node.id
                seen.setdefault(node.parent_id, []).append(node.id)
            assert all(children == self._children(parent) for parent, children in seen.items())

    @rule()
    def export_and_import_give_the_same_tree(self):
        lines = list(export_jsonl(self.store, None, [self.tree.conversation_id], all_branches=True))
        imported = import_jsonl(self.store, None, lines, now=self.now)
        assert imported.num_messages == len(self._live()) and imported.num_conversations == 1
        (copy,) = [c for c in Conversations(self.store, None).page(limit=1000) if c.id != self.tree.conversation_id]
        other = Conversations(self.store, None).tree(copy.id)
        assert self._shape(other) == self._shape(self.tree)
        assert contents(other.path()) == contents(self.tree.path())
        with self.store.write() as connection:
            connection.exec_driver_sql("DELETE FROM conversations WHERE id = ?", (copy.id,))

    def _shape(self, tree):
        """The tree as nested lists, ids aside."""
        inside: dict[str | None, list] = {None: []}
        for node in tree.nodes():
            inside[node.id] = [tree.get(node.id).content]
            inside[node.parent_id].append(inside[node.id])
        return inside[None]


def test_any_series_of_edits_keeps_the_tree_whole(empty_database, tmp_path_factory):
    def machine() -> TreeMachine:
        made = TreeMachine()
        made.url = f"sqlite:///{shutil.copy(empty_database, tmp_path_factory.mktemp('tree'))}"
        return made

    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
