"""What people have is read, each format with the right value, and text that no reader uses is refused or counted."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.html.clean import clean_text
from chaku.data.inputs import shapes, sources
from chaku.data.inputs.fields import BadMessage, Imported, UnknownShape
from chaku.data.inputs.pairs import Pair
from chaku.data.prepare import parse
from chaku.data.rules.content import judge_content
from chaku.data.rules.dedup import signature
from chaku.data.rules.normalise import normalise
from chaku.data.rules.privacy import judge_personal
from chaku.data.rules.quality import judge_quality
from chaku.data.rules.table import actions

Q, A, B = "How deep is the harbour?", "It is twelve metres deep.", "No idea."
TURNS = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]


def read(value: object, paths: shapes.Paths = "best") -> list[list[tuple[str, str]]]:
    return [spoken(one.messages) for one in shapes.read(value, paths).conversations]


def spoken(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(str(message.role), message.content) for message in messages]


def gpt_node(parent: str | None, role: str, *parts: object, **extra: object) -> dict[str, object]:
    message = {"author": {"role": role}, "content": {"content_type": "text", "parts": list(parts)}, "recipient": "all"}
    return {"parent": parent, "message": {**message, **extra}}


CHATGPT = {
    "title": "Harbour",
    "current_node": "4",
    "mapping": {
        "0": {"parent": None, "message": None},
        "1": gpt_node("0", "system", "", metadata={"is_visually_hidden_from_conversation": True}),
        "2": gpt_node("1", "user", Q),
        "3": gpt_node("2", "assistant", B),
        "4": gpt_node("2", "assistant", A),
        "5": gpt_node("3", "user", "Really?"),
    },
}
WEBUI = {
    "id": "w",
    "chat": {
        "title": "Harbour",
        "history": {
            "currentId": "c",
            "messages": {
                "a": {"id": "a", "parentId": None, "childrenIds": ["b", "c"], "role": "user", "content": Q},
                "b": {"id": "b", "parentId": "a", "childrenIds": [], "role": "assistant", "content": B},
                "c": {"id": "c", "parentId": "a", "childrenIds": [], "role": "assistant", "content": A},
            },
        },
    },
}
CLAUDE = {
    "uuid": "u",
    "name": "Harbour",
    "chat_messages": [
        {"uuid": "1", "sender": "human", "text": Q, "content": [{"type": "text", "text": Q}], "attachments": []},
        {"uuid": "2", "sender": "assistant", "text": A, "content": [{"type": "text", "text": A}]},
    ],
}
PLAIN = [("user", Q), ("assistant", A)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CHATGPT, PLAIN),
        (WEBUI, PLAIN),
        (CLAUDE, PLAIN),
        ({"conversations": [{"role": "User", "content": Q}, {"from": "GPT", "value": A}]}, PLAIN),
        ({"prompt": [TURNS[0]], "completion": [TURNS[1]]}, PLAIN),
        ({"prompt": Q, "completion": A}, PLAIN),
        ({"text": f"### Human: {Q}### Assistant: {A}"}, PLAIN),
        ({"question": Q, "answers": {"text": [A, B]}}, PLAIN),
        ({"system": "Be brief.", "messages": TURNS}, [("system", "Be brief."), *PLAIN]),
        ({"system_prompt": "Be brief.", "question": Q, "response": A}, [("system", "Be brief."), *PLAIN]),
        (
            {"instruction": Q, "context": "A list of depths.", "response": A, "category": "closed_qa"},
            [("user", f"{Q}\n\nA list of depths."), ("assistant", A)],
        ),
    ],
)
def test_each_format_gives_the_conversation_that_it_holds(value, expected):
    assert read(value) == [expected]
    assert shapes.read(value, "best").unused == {}


def test_every_branch_of_an_export_is_taken_when_asked_for():
    assert read(CHATGPT, "all") == [PLAIN, [("user", Q), ("assistant", B), ("user", "Really?")]]
    assert read(WEBUI, "all") == [[("user", Q), ("assistant", B)], PLAIN]
    assert shapes.read(CHATGPT, "best").num_branches_left == 1


def test_function_calls_keep_their_arguments_and_results():
    call = {"from": "function_call", "value": '{"name": "depth", "arguments": {"place": "harbour"}}'}
    result = {"from": "observation", "value": "12"}
    value = {"conversations": [{"from": "human", "value": Q}, call, result, {"from": "gpt", "value": A}]}
    messages = shapes.read(value, "best").conversations[0].messages
    assert [str(message.role) for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert (messages[1].tool_calls[0].name, messages[1].tool_calls[0].arguments) == ("depth", '{"place": "harbour"}')


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": Q, "chosen": A, "rejected": B},
        {"chosen": [*TURNS], "rejected": [TURNS[0], {"role": "assistant", "content": B}]},
        {"prompt": Q, "chosen": [TURNS[1]], "rejected": [{"role": "assistant", "content": B}]},
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {B}"},
        {"conversations": [{"from": "human", "value": Q}], "chosen": {"from": "gpt", "value": A},
         "rejected": {"from": "gpt", "value": B}},
        {"input": {"messages": [TURNS[0]]}, "preferred_output": [TURNS[1]],
         "non_preferred_output": [{"role": "assistant", "content": B}]},
        {"conversation_a": [TURNS[0], {"role": "assistant", "content": B}], "conversation_b": TURNS, 
         "winner": "model_b", "model_a": "x", "model_b": "y"},
    ],
)  # fmt: skip
def test_preferences_are_read_as_pairs(value):
    (pair,) = shapes.read(value, "best").conversations
    assert isinstance(pair, Pair)
    prompt, chosen, rejected = map(spoken, pair.parts())
    assert (prompt, chosen, rejected) == ([("user", Q)], [("assistant", A)], [("assistant", B)])


def test_a_tie_is_two_conversations_and_a_battle_that_both_lost_is_none():
    battle = {"conversation_a": TURNS, "conversation_b": [TURNS[0], {"role": "assistant", "content": B}]}
    assert len(read({**battle, "winner": "tie"})) == 2
    with pytest.raises(BadMessage, match="neither"):
        read({**battle, "winner": "tie (bothbad)"})


@pytest.mark.parametrize(
    ("switch", "weight"),
    [({"weight": 0}, 0), ({"weight": 1}, 1), ({"train": False}, 0), ({"training": False}, 0), ({"loss": False}, 0),
     ({"masked": True}, 0), ({"masked": False}, 1), ({}, 1)],
)  # fmt: skip
def test_a_turn_that_is_switched_off_is_not_trained(switch, weight):
    for key, text in (("messages", "content"), ("conversations", "value")):
        value = {key: [{"role": "user", text: Q}, {"role": "assistant", text: A, **switch}]}
        assert shapes.read(value, "best").conversations[0].messages[1].weight == weight


@pytest.mark.parametrize(
    "switch", [{"weight": 0.5}, {"train_detail": [{"begin_offset": 0, "train": True}]}, {"loss": "some"}]
)
def test_a_switch_that_is_not_known_refuses_the_record_by_name(switch):
    with pytest.raises(BadMessage, match=next(iter(switch))):
        read({"messages": [TURNS[0], {**TURNS[1], **switch}]})


def test_text_that_no_reader_uses_is_counted_and_images_are_refused():
    imported = shapes.read(
        {"messages": [{**TURNS[0], "mood": "sad"}, TURNS[1]], "notes": "look here", "score": 3}, "best"
    )
    assert imported.unused == {"turn.mood": 1, "notes": 1}
    with pytest.raises(BadMessage, match="images"):
        read({"messages": TURNS, "images": ["a.png"]})
    with pytest.raises(BadMessage, match="label"):
        read({"prompt": Q, "completion": A, "label": False})


TREE: dict[str, Any] = {
    "message_tree_id": "t",
    "prompt": {"text": Q, "role": "prompter", "replies": [{"text": A, "role": "assistant", "replies": []}]},
}
EVERY_FORMAT = [
    CHATGPT, WEBUI, CLAUDE, TREE, {"messages": TURNS}, {"conversations": TURNS}, {"instruction": Q, "output": A},
    {"prompt": Q, "completion": A}, {"question": Q, "answers": {"text": [A]}}, {"prompt": Q},
    {"question_id": 1, "turns": [Q]}, {"text": f"### Human: {Q}### Assistant: {A}"},
    {"prompt": Q, "chosen": A, "rejected": B},
    {"conversation_a": TURNS, "conversation_b": [TURNS[0], {"role": "assistant", "content": B}], "winner": "model_a"},
]  # fmt: skip


@given(
    st.sampled_from(EVERY_FORMAT),
    st.text("bcdfghjklm", min_size=6, max_size=12),
    st.sampled_from(["x", ["x"], {"y": "x"}]),
)
def test_a_text_key_that_no_reader_knows_is_counted_in_every_format(value, key, text):
    assert shapes.read({**value, key: text}, "best").unused[key] == 1
    assert shapes.read(value, "best").unused == {}


def test_a_tree_has_a_system_prompt_beside_it_and_no_key_of_its_messages_is_ignored():
    tree = {**TREE, "system": "Be brief.", "prompt": {**TREE["prompt"], "mood": "sad"}}
    assert read(tree) == [[("system", "Be brief."), *PLAIN]]
    assert shapes.read(tree, "best").unused == {"turn.mood": 1}


def stored(path: Path) -> list[object]:
    return [json.loads(record.data) for record in sources.records(path) if record.error is None]


ROWS = [{"instruction": f"{Q} {number}", "output": A} for number in range(3)]


def test_tables_archives_wrappers_and_encodings_hold_the_same_records(tmp_path):
    import pyarrow as pa

    table = io.StringIO()
    writer = csv.DictWriter(table, ["instruction", "output"])
    writer.writeheader()
    writer.writerows(ROWS)
    lines = "\n".join(map(json.dumps, ROWS))
    files = {
        "a.csv": table.getvalue().encode(),
        "a.tsv": table.getvalue().replace(",", "\t").encode(),
        "wrapped.json": json.dumps({"version": 1, "data": ROWS}, indent=1).encode(),
        "rows.json": json.dumps({"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}).encode(),
        "utf16.jsonl": lines.encode("utf-16"),
        "utf16be.jsonl": lines.encode("utf-16-be"),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/a.json", json.dumps(ROWS))
        archive.writestr("page.html", "<p>")
    files["a.zip"] = packed.getvalue()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    arrow = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), arrow.schema) as stream:
        stream.write_table(arrow)
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), arrow.schema) as file:
        file.write_table(arrow)
    for path in tmp_path.iterdir():
        assert stored(path) == ROWS, path.name
    (tmp_path / "keyed.json").write_text(json.dumps({f"k{n}": row for n, row in enumerate(ROWS)}))
    assert stored(tmp_path / "keyed.json") == [{"id": f"k{n}", **row} for n, row in enumerate(ROWS)]
    assert [one.error for one in sources.records(tmp_path / "a.zip")][
        -1
    ] == "files such as .html in an archive are not read"
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.7\n")
    assert [one.error for one in sources.records(tmp_path / "x.pdf")] == ["PDF is not read"]


KEYS = st.sampled_from(
    """conversations messages from value role content turns prompt chosen rejected mapping parent message author chat
    history chat_messages sender text winner conversation_a conversation_b instruction input output system weight
    tool_calls function arguments name reasoning_content history replies label parts tools source id""".split()  # noqa: SIM905
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from(["human", "gpt", "user", "assistant", "system", "tool", "function_call", "\ud800", "model_a"]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=14
)


def stages(conversation: Conversation) -> None:
    """Every stage that judges one conversation."""
    from chaku.data.rules.cleaning import judge_cleaned

    chosen = actions({})
    for stage in (
        lambda one: judge_cleaned(one, chosen),
        lambda one: judge_personal(one, chosen),
        normalise,
        lambda one: judge_quality(one, chosen),
        lambda one: judge_content(one, chosen),
    ):
        decision = stage(conversation)
        if decision.kept is None:
            return
        conversation = decision.kept
    signature(conversation)
    assert Conversation.from_json(orjson.loads(orjson.dumps(conversation.to_json()))).messages == conversation.messages


@given(JSON, st.sampled_from(["best", "all"]))
@settings(max_examples=400, deadline=None)
def test_any_record_is_read_or_refused_and_never_stops_a_stage(value, paths):
    try:
        parsed = parse(json.dumps(value).encode())
        imported: Imported = shapes.read(parsed, paths)
    except (ValueError, UnknownShape, BadMessage):
        return
    for conversation in imported.conversations:
        if not any(message.parts for message in conversation.messages):
            stages(conversation)


@pytest.mark.parametrize(
    "value",
    [
        {"turns": None, "question_id": 1},
        {"messages": [TURNS[0], {**TURNS[1], "reasoning_content": {"steps": []}}]},
        {"messages": [TURNS[0], {**TURNS[1], "tool_calls": {"name": "f"}}]},
        {"messages": TURNS, "tools": "none"},
        {"mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}},
        {"prompt": {"replies": 3, "role": "prompter", "text": Q}},
        {"instruction": Q, "output": A, "history": 3},
    ],
)
def test_an_odd_record_is_refused_with_a_reason(value):
    with pytest.raises((BadMessage, UnknownShape), match=r"."):
        shapes.read(value, "best")


def test_deep_nesting_and_half_surrogates_cost_one_record():
    deep = "[" * 5000 + "]" * 5000
    with pytest.raises((ValueError, RecursionError)):
        parse(f'{{"a": {deep}, "b": "\\ud800"}}'.encode())
    assert parse(b'{"a": "\\ud83d"}') == {"a": "\ufffd"}


def test_clean_text_takes_any_string():
    assert clean_text("\ud800<p>").text


def test_an_unanswered_prompt_is_kept_without_the_answers_that_follow_an_empty_one():
    messages = (
        Message(Role.USER, Q),
        Message(Role.ASSISTANT, " "),
        Message(Role.USER, "?"),
        Message(Role.ASSISTANT, A),
    )
    assert normalise(Conversation("x", messages)).rule == "no_assistant"
