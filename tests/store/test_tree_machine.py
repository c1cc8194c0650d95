"""Any series of edits keeps a tree of messages whole: a state machine against a simple model."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from chaku.errors import NotFound
from chaku.store.conversations import Conversations
from chaku.store.database import open_store
from chaku.store.transcripts import export_jsonl, import_jsonl


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
        assert [one.content for one in other.path()] == [one.content for one in self.tree.path()]
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
