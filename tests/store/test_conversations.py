import json
from datetime import timedelta

import pytest

from chaku.errors import InvalidRequest, NotFound
from chaku.store import keys, transcripts
from chaku.store.conversations import KEPT_DELETED, Conversations, ListPlace
from chaku.store.message_record import MessageState
from chaku.store.transcripts import export_jsonl, import_jsonl


@pytest.fixture
def mine(store) -> Conversations:
    return Conversations(store, None)


@pytest.fixture
def place(mine):
    def found(conversation_id: str) -> ListPlace:
        conversation = mine.get(conversation_id)
        return ListPlace(conversation.is_pinned, conversation.updated_at, conversation.id)

    return found


def titles(listed) -> list[str]:
    return [conversation.title for conversation in listed]


def test_conversations_are_listed_newest_first_with_pinned_ones_on_top(mine, place, now):
    made = [mine.create(title, now=now + timedelta(minutes=i)) for i, title in enumerate(["old", "mid", "new"])]
    assert titles(mine.page(limit=10)) == ["new", "mid", "old"]
    mine.tree(made[1].id).append(None, "user", "Hi", now=now + timedelta(hours=1))
    mine.change(made[0].id, {"is_pinned": True})
    assert titles(mine.page(limit=10)) == ["old", "mid", "new"]
    assert titles(mine.page(limit=1, after=place(made[0].id))) == ["mid"]
    mine.change(made[0].id, {"is_pinned": False})
    assert titles(mine.page(limit=10)) == ["mid", "new", "old"]


def test_pages_that_follow_each_other_show_every_conversation_once(mine, place, now):
    made = [mine.create(str(number), now=now + timedelta(minutes=number // 3)) for number in range(20)]
    for pinned in made[3:8]:
        mine.change(pinned.id, {"is_pinned": True})
    whole = mine.page(limit=100)
    for size in (1, 3, 7):
        seen: list = []
        while some := mine.page(limit=size, after=place(seen[-1].id) if seen else None):
            seen += some
        assert seen == whole
    assert len(whole) == 20


def test_a_conversation_keeps_its_system_prompt_model_and_settings(mine, now):
    chat = mine.create("x", now=now, system="Be brief. \0", model="m", settings={"temperature": 0.5})
    assert (chat.system, chat.model, chat.settings) == ("Be brief. \0", "m", {"temperature": 0.5})
    assert mine.get(chat.id) == chat
    mine.change(chat.id, {"system": None, "settings": {"seed": 1}})
    assert (mine.get(chat.id).system, mine.get(chat.id).model, mine.get(chat.id).settings) == (None, "m", {"seed": 1})


def test_renaming_does_not_move_a_conversation(mine, now):
    old = mine.create("old", now=now)
    mine.create("new", now=now + timedelta(minutes=1))
    mine.change(old.id, {"title": " Vicuñas\n and wool "})
    assert titles(mine.page(limit=10)) == ["new", "Vicuñas  and wool"]
    with pytest.raises(InvalidRequest, match="201 characters, 200 fit"):
        mine.change(old.id, {"title": "x" * 201})


def test_a_deletion_can_be_undone_until_it_is_too_old(store, mine, now):
    kept = mine.create("kept", now=now)
    gone = mine.create("gone", now=now)
    mine.tree(gone.id).append(None, "user", "Hi", now=now)
    mine.delete(gone.id, now=now)
    assert titles(mine.page(limit=10)) == ["kept"]
    for change in (
        lambda: mine.change(gone.id, {"title": "x"}),
        lambda: mine.get(gone.id),
        lambda: mine.restore(kept.id),
    ):
        with pytest.raises(NotFound):
            change()
    mine.create("later", now=now + KEPT_DELETED)
    mine.restore(gone.id)
    assert [message.content for message in mine.tree(gone.id).path()] == ["Hi"]
    mine.delete(gone.id, now=now)
    mine.create("too late", now=now + KEPT_DELETED + timedelta(seconds=1))
    with pytest.raises(NotFound):
        mine.restore(gone.id)
    with store.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM messages").scalar() == 0


def test_search_finds_titles_and_every_branch_whatever_the_case(mine, now):
    chat = mine.create("About wool", now=now)
    tree = mine.tree(chat.id)
    first = tree.append(None, "user", "Wie groß ist ein VICUÑA?", now=now)
    tree.edit(first.id, [{"type": "text", "text": "100% wool_x"}, {"type": "image_url", "image_url": {}}], now=now)
    other = mine.create("Ｆｕｌｌ width", now=now + timedelta(minutes=1))
    (found,) = mine.search("vicuña", limit=5)
    assert (found.conversation.id, found.message_id, found.text) == (chat.id, first.id, "Wie groß ist ein VICUÑA?")
    assert mine.search("GROSS", limit=5) == [found]
    (by_title,) = mine.search("full", limit=5)
    assert (by_title.conversation, by_title.message_id, by_title.text) == (other, None, None)
    assert [hit.text for hit in mine.search("0% wool_", limit=5)] == ["100% wool_x"]
    assert mine.search("0_ wool", limit=5) == mine.search("alpaca", limit=5) == mine.search("  ", limit=5) == []
    mine.delete(chat.id, now=now)
    assert mine.search("vicuña", limit=5) == []


def test_search_sees_a_running_answer_and_names_the_newest_hit_of_each_conversation(mine, now):
    for minute in range(3):
        chat = mine.create(str(minute), now=now)
        tree = mine.tree(chat.id)
        tree.append(None, "user", "llama one", now=now)
        answer = tree.append(None, "assistant", "", now=now + timedelta(minutes=minute), state=MessageState.STREAMING)
        tree.grow(answer.id, "a llama two", now=now)
    found = mine.search("llama", limit=2)
    assert [(hit.conversation.title, hit.text) for hit in found] == [("2", "a llama two"), ("1", "a llama two")]


def test_one_owner_never_sees_or_changes_what_another_has(store, mine, now):
    owners = [None, *(keys.create(store, name, now=now).key.id for name in ("bob", "eve"))]
    everyone = [Conversations(store, owner) for owner in owners]
    chats = [theirs.create("secret plan", now=now) for theirs in everyone]
    answers = [
        theirs.tree(chat.id).append(None, "assistant", "secret", now=now, state=MessageState.STREAMING)
        for theirs, chat in zip(everyone, chats, strict=True)
    ]
    for theirs, chat in zip(everyone, chats, strict=True):
        assert theirs.page(limit=10) == [theirs.get(chat.id)]
        assert [hit.conversation.id for hit in theirs.search("secret", limit=10)] == [chat.id]
    eve = everyone[2]
    for chat, answer in list(zip(chats, answers, strict=True))[:2]:
        tree = eve.tree(chat.id)
        for forbidden in (
            lambda chat=chat: eve.get(chat.id),
            lambda chat=chat: eve.change(chat.id, {"title": "x"}),
            lambda chat=chat: eve.change(chat.id, {"is_pinned": True}),
            lambda chat=chat: eve.delete(chat.id, now=now),
            lambda chat=chat: list(export_jsonl(store, owners[2], [chat.id])),
            tree.path,
            tree.nodes,
            lambda tree=tree, answer=answer: tree.get(answer.id),
            lambda tree=tree, answer=answer: tree.switch(answer.id),
            lambda tree=tree, answer=answer: tree.siblings(answer.id),
            lambda tree=tree, answer=answer: tree.edit(answer.id, "x", now=now),
            lambda tree=tree: tree.append(None, "user", "x", now=now),
            lambda tree=tree, answer=answer: tree.grow(answer.id, "x", now=now),
            lambda tree=tree, answer=answer: tree.finish(answer.id, "x", now=now),
        ):
            with pytest.raises(NotFound):
                forbidden()
    assert all(
        [message.content for message in theirs.tree(chat.id).path()] == ["secret"]
        for theirs, chat in zip(everyone, chats, strict=True)
    )


def test_an_export_is_messages_jsonl_of_the_path_shown(store, mine, now):
    chat = mine.create("Wool", now=now)
    tree = mine.tree(chat.id)
    user = tree.append(None, "user", "Hi 🦙", now=now)
    tree.append(user.id, "assistant", "old answer", now=now)
    tree.append(user.id, "assistant", "Hello!", now=now, model="m", reasoning="Greet.")
    (line,) = export_jsonl(store, None, [chat.id])
    assert "🦙".encode() in line and line.endswith(b"\n")
    record = json.loads(line)
    facts = [message.pop("chaku") for message in record["messages"]]
    assert record["messages"] == [
        {"role": "user", "content": "Hi 🦙"},
        {"role": "assistant", "content": "Hello!", "reasoning_content": "Greet."},
    ]
    assert (record["id"], record["title"], facts[1]["model"]) == (chat.id, "Wool", "m")


def test_an_import_of_all_branches_gives_back_everything_but_the_ids(store, mine, now):
    bob = keys.create(store, "bob", now=now).key.id
    chat = mine.create("Wool", now=now, system="Be \ud800 brief.", model="m", settings={"top_k": 3})
    mine.change(chat.id, {"is_pinned": True})
    tree = mine.tree(chat.id)
    user = tree.append(None, "user", [{"type": "text", "text": "odd \0 \ud800"}], now=now, extra={"name": "Ana"})
    calls = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    tree.append(user.id, "assistant", None, now=now, extra=calls, model="m", sampling={"seed": 1})
    answer = tree.append(user.id, "assistant", "", now=now, state=MessageState.STREAMING)
    tree.finish(answer.id, "Half", now=now, state=MessageState.FAILED, error={"message": "died"},
                usage={"total_tokens": 1},
                timings={"duration_s": 1.5, "tokens_per_s": None})  # fmt: skip
    tree.switch(tree.nodes()[1].id)
    mine.create("Empty", now=now)
    ids = [conversation.id for conversation in mine.page(limit=10)]
    lines = list(export_jsonl(store, None, ids, all_branches=True))
    imported = import_jsonl(store, bob, lines, now=now + timedelta(days=1))
    assert (imported.num_conversations, imported.num_messages, imported.ignored) == (2, 3, {})

    def told(owner):
        theirs = Conversations(store, owner)
        for conversation in theirs.page(limit=10):
            tree = theirs.tree(conversation.id)
            numbers = {node.id: number for number, node in enumerate(tree.nodes())}
            yield (
                conversation.title, conversation.is_pinned, conversation.created_at, conversation.updated_at,
                numbers.get(conversation.leaf_id), conversation.system, conversation.model, conversation.settings,
            )  # fmt: skip
            for node in tree.nodes():
                values = vars(tree.get(node.id)) | {"id": numbers[node.id], "conversation_id": None}
                yield values | {"parent_id": numbers.get(node.parent_id)}

    assert list(told(bob)) == list(told(None))


def test_plain_messages_jsonl_from_elsewhere_is_taken_and_what_has_no_place_is_counted(store, mine, now):
    lines = [
        '{"messages": [{"role": "user", "content": "Hi", "name": "Ana"}, {"role": "assistant", "content": "Yo"}]}\n',
        "\n",
        '{"id": "x", "title": "T", "lang": "de", "messages": []}\n',
        '{"id": "x", "lang": "de", "split": 1, "messages": [{"role": "user", "content": "same id, other chat"}]}\n',
    ]
    imported = import_jsonl(store, None, lines, now=now)
    assert (imported.num_conversations, imported.num_messages) == (3, 3)
    assert imported.ignored == {"lang": 2, "split": 1}
    (hit,) = mine.search("Yo", limit=5)
    path = mine.tree(hit.conversation.id).path()
    assert [(message.content, message.extra, message.created_at) for message in path] == [
        ("Hi", {"name": "Ana"}, now),
        ("Yo", None, now),
    ]


def test_an_answer_that_was_streaming_is_imported_as_stopped(store, mine, now):
    chat = mine.create("x", now=now)
    mine.tree(chat.id).append(None, "assistant", "Hal", now=now, state=MessageState.STREAMING)
    lines = list(export_jsonl(store, None, [chat.id]))
    mine.delete(chat.id, now=now)
    import_jsonl(store, None, lines, now=now)
    (copy,) = mine.page(limit=5)
    assert [(m.content, m.state) for m in mine.tree(copy.id).path()] == [("Hal", MessageState.STOPPED)]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: : Input should be"),
        ('{"title": "x"}', "line 2: messages: Field required"),
        ('{"messages": [{"role": "wizard", "content": ""}]}', "line 2: role 'wizard' is not one of"),
        ('{"messages": [{"role": "user", "content": 5}]}', "line 2: content of a user message"),
        ('{"messages": [{"role": "assistant", "reasoning_content": 5}]}', "line 2: reasoning_content is not text"),
        ('{"messages": [], "chaku": {"odd": 1}}', "line 2: chaku"),
        ('{"messages": [], "title": "%s"}' % ("x" * 201), "line 2: the title has 201 characters"),
    ],
)
def test_one_bad_line_is_named_and_nothing_is_imported(store, mine, now, line, cause):
    good = '{"messages": [{"role": "user", "content": "Hi"}]}'
    with pytest.raises(InvalidRequest) as caught:
        import_jsonl(store, None, [good, line], now=now)
    assert str(caught.value).startswith(cause)
    assert mine.page(limit=5) == []


def test_an_import_that_skips_bad_lines_keeps_the_good_ones_and_the_tree_whole(store, mine, now):
    chat = mine.create("Tree", now=now)
    tree = mine.tree(chat.id)
    user = tree.append(None, "user", "Hi", now=now)
    for text in ("one", "two", "three"):
        tree.append(user.id, "assistant", text, now=now)
    lines = list(export_jsonl(store, None, [chat.id], all_branches=True))
    hurt = json.loads(lines[1])
    hurt["messages"].append({"role": "wizard", "content": "x"})
    stranger = '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Yo"}]}'
    given = ["{", lines[0], json.dumps(hurt), lines[2], "[]", stranger]
    imported = import_jsonl(store, None, given, now=now, skips_bad_lines=True)
    assert (imported.num_conversations, imported.num_messages) == (2, 4)
    assert [(one.line, one.reason.split(" ")[0]) for one in imported.skipped] == [(1, "not"), (3, "role"), (5, ":")]
    copies = [one for one in mine.page(limit=9) if one.id != chat.id]
    (tree_copy,) = [one for one in copies if one.title == "Tree"]
    told = [(node.position, mine.tree(tree_copy.id).get(node.id).content) for node in mine.tree(tree_copy.id).nodes()]
    assert told == [(0, "Hi"), (0, "one"), (1, "three")]
    assert [one.system for one in copies if one.title == "Yo"] == ["Be brief."]


def test_an_export_is_whole_although_an_answer_arrives_in_the_middle_of_it(store, mine, now, monkeypatch):
    tree = mine.tree(mine.create("x", now=now).id)
    user = tree.append(None, "user", "Hi", now=now)
    read = transcripts.message_record.read
    arrived = []

    def slowly(row):
        if not arrived:
            arrived.append(True)
            tree.append(user.id, "assistant", "Hello", now=now)
        return read(row)

    monkeypatch.setattr(transcripts.message_record, "read", slowly)
    for all_branches in (True, False):
        arrived.clear()
        exported = list(export_jsonl(store, None, [tree.conversation_id], all_branches=all_branches))
        assert [json.loads(line)["messages"][0]["content"] for line in exported] == ["Hi"] * len(exported)
        assert exported
