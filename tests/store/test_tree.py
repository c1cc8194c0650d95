from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from chaku.errors import InvalidRequest, NotFound
from chaku.store.conversations import Conversations
from chaku.store.database import open_store
from chaku.store.tables import messages
from chaku.store.transcripts import export_jsonl, import_jsonl
from chaku.store.tree import MessageState, Tree
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


def test_a_long_chat_is_read_whole(tree, now):
    parent_id = None
    for index in range(1200):  # deeper than Python's recursion limit
        parent_id = tree.append(parent_id, "user", str(index), now=now).id
    assert contents(tree.path()) == [str(index) for index in range(1200)]
    assert len(tree.nodes()) == 1200
    assert tree.switch(tree.path()[0].id) == parent_id


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
        known = [None, *self.parent]
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
            assert self.shown not in self.children
            assert target in self._ancestors(self.shown)

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
            assert {node.id: node.parent_id for node in nodes} == self.parent
            seen: dict[str | None, list[str]] = {}
            for node in nodes:
                assert node.parent_id is None or node.parent_id in {n for ids in seen.values() for n in ids}
                assert node.position == len(seen.setdefault(node.parent_id, []))
                seen[node.parent_id].append(node.id)
            assert seen == self.children

    @rule()
    def export_and_import_give_the_same_tree(self):
        lines = list(export_jsonl(self.store, None, [self.tree.conversation_id], all_branches=True))
        imported = import_jsonl(self.store, None, lines, now=self.now)
        assert imported.num_messages == len(self.parent) and imported.num_conversations == 1
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


def test_any_series_of_edits_keeps_the_tree_whole(tmp_path_factory):
    def machine() -> TreeMachine:
        made = TreeMachine()
        made.url = f"sqlite:///{tmp_path_factory.mktemp('tree') / 'chaku.db'}"
        return made

    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
