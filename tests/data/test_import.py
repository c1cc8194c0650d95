"""Files of every format and container come in as conversations; what can't is counted, quoted and never stops a run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from chaku.chat.messages import Role
from chaku.data.inputs import json_stream, shapes, sources
from chaku.data.prepare import parse
from chaku.errors import UsageError

TURNS = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]
MESSAGES = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]


def texts(value: object, paths: shapes.Paths = "best") -> list[list[tuple[str, str]]]:
    read = shapes.read(value, paths)
    return [[(str(message.role), message.content) for message in one.messages] for one in read.conversations]


@pytest.mark.parametrize(
    ("value", "format_name"),
    [
        ({"id": "a", "conversations": TURNS}, "sharegpt"),
        ({"conversation": [{"role": "user", "text": "Hi?"}, {"role": "chatgpt", "text": "Hello."}]}, "sharegpt"),
        ({"messages": MESSAGES}, "openai messages"),
        ({"instruction": "Hi?", "input": "", "output": "Hello."}, "alpaca"),
        ({"prompt": "Hi?", "completion": "Hello."}, "prompt and completion"),
        ({"question": "Hi?", "response": "Hello."}, "prompt and completion"),
        (TURNS, "list of turns"),
        (MESSAGES, "list of turns"),
    ],
)
def test_each_format_is_told_by_its_keys_and_says_the_same(value, format_name):
    assert shapes.read(value, "best").format == format_name
    assert texts(value) == [[("user", "Hi?"), ("assistant", "Hello.")]]


def test_alpaca_input_follows_the_instruction():
    assert texts({"instruction": "Sum up:", "input": "A text.", "output": "x"})[0][0] == ("user", "Sum up:\n\nA text.")


@pytest.mark.parametrize(
    "value",
    [
        "Hi?",
        {"prompt": "Hi?"},
        {"question_id": 1, "turns": ["Hi?"]},
        {"question_id": 1, "text": "Hi?"},
        {"id": "a-1", "turns": ["Hi?"], "category": "writing"},
        {"id": "a-1", "turns": ["Hi?"], "checker": {"kind": "number", "expected": "42"}},
    ],
)
def test_bare_prompts_are_read_without_an_answer(value):
    assert shapes.read(value, "best").format == "bare prompt"
    assert texts(value) == [[("user", "Hi?")]]


def node(text: str, role: str, *replies: object, rank: int | None = None, deleted: bool = False) -> dict[str, object]:
    return {"message_id": text, "text": text, "role": role, "rank": rank, "deleted": deleted, "replies": list(replies)}


TREE = {
    "message_tree_id": "t",
    "prompt": node(
        "Q", "prompter",
        node("second", "assistant", rank=1),
        node("first", "assistant", node("more", "prompter", node("end", "assistant")), rank=0),
        node("gone", "assistant", rank=0, deleted=True),
        node("open", "assistant", node("unanswered", "prompter"), rank=2),
    ),
}  # fmt: skip


def test_the_best_path_through_a_tree_follows_the_ranks():
    assert [[text for _, text in one] for one in texts(TREE)] == [["Q", "first", "more", "end"]]
    assert shapes.read(TREE, "best").num_branches_left == 2


def test_all_paths_through_a_tree_end_with_an_answer_and_skip_deleted_messages():
    found = [[text for _, text in one] for one in texts(TREE, "all")]
    assert found == [["Q", "first", "more", "end"], ["Q", "second"], ["Q", "open"]]


def test_a_tree_without_answers_gives_its_prompt():
    assert texts({"prompt": node("Q", "prompter")}, "all") == [[("user", "Q")]]


def test_unknown_objects_and_speakers_are_refused_by_name():
    with pytest.raises(shapes.UnknownShape, match="judge, winner"):
        shapes.read({"judge": 1, "winner": 2}, "best")
    with pytest.raises(shapes.BadMessage, match="narrator"):
        shapes.read({"conversations": [{"from": "narrator", "value": "x"}]}, "best")
    with pytest.raises(shapes.BadMessage, match="int"):
        shapes.read({"conversations": [{"from": "human", "value": 3}]}, "best")


def test_tool_calls_survive_the_import():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    value = {"messages": [MESSAGES[0], {"role": "assistant", "content": None, "tool_calls": [call]}]}
    message = shapes.read(value, "best").conversations[0].messages[1]
    assert message.role is Role.ASSISTANT and message.tool_calls[0].name == "f"


def values(path: Path) -> list[object]:
    return [json.loads(record.data) for record in sources.records(path) if record.error is None]


RECORDS = [{"id": str(n), "conversations": [{"from": "human", "value": 'é 😀 \\ " ] } , [' * n}]} for n in range(40)]


@pytest.mark.parametrize("form", ["jsonl", "array", "indented", "one line", "pretty values"])
@pytest.mark.parametrize("packing", ["plain", "gz", "zst"])
def test_every_container_gives_the_same_records(tmp_path, form, packing, monkeypatch):
    monkeypatch.setattr(json_stream, "READ_BYTES", 57)  # borders everywhere, inside characters too
    text = {
        "jsonl": "\n".join(json.dumps(one, ensure_ascii=False) for one in RECORDS) + "\n\n",
        "array": "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in RECORDS) + "\n]\n",
        "indented": "\ufeff" + json.dumps(RECORDS, indent=2, ensure_ascii=False),
        "one line": json.dumps(RECORDS),
        "pretty values": "\n".join(json.dumps(one, indent=1) for one in RECORDS),
    }[form].encode()
    path = tmp_path / "file"
    if packing == "plain":
        path.write_bytes(text)
    elif packing == "gz":
        path.write_bytes(gzip.compress(text))
    else:
        import pyarrow as pa

        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(text)
    assert values(path) == RECORDS


def test_records_of_an_array_on_one_line_are_told_apart(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(RECORDS))
    assert [(one.line, one.place) for one in sources.records(path)] == [(1, str(n + 1)) for n in range(len(RECORDS))]


def test_parquet_gives_the_same_records(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "file.parquet")
    assert sources.detect(tmp_path / "file.parquet") == "parquet"
    assert values(tmp_path / "file.parquet") == RECORDS


def test_a_broken_element_of_an_array_costs_only_itself(tmp_path):
    good = [json.dumps({"id": str(n), "conversations": TURNS * 3}) for n in range(6)]
    good[2] = good[2].replace('"from": "gpt"', '"from": gpt', 1)
    path = tmp_path / "file.json"
    path.write_text("[\n" + ",\n".join(good) + "\n]")
    read = list(sources.records(path))
    assert [json.loads(one.data)["id"] for one in read if one.error is None] == ["0", "1", "3", "4", "5"]
    (broken,) = [one for one in read if one.error is not None]
    assert broken.line == 4 and b'"id": "2"' in broken.data


def test_an_array_that_is_cut_short_gives_what_is_whole_and_says_so(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(RECORDS, indent=1)[:-200])
    read = list(sources.records(path))
    assert [json.loads(one.data) for one in read if one.error is None] == RECORDS[:-1]
    assert read[-1].error is not None


def test_a_list_in_the_first_line_of_jsonl_is_a_record_and_text_after_an_array_is_reported(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("[]\n" + json.dumps(RECORDS[0]) + "\n")
    assert values(path) == [[], RECORDS[0]]
    path.write_text("[\n" + json.dumps(RECORDS[0]) + "\n]\nmore")
    read = list(sources.records(path))
    assert [one.error for one in read] == [None, "text after the end of the array"] and read[1].line == 4


def test_a_compressed_file_that_is_cut_short_gives_what_is_whole_and_says_so(tmp_path):
    path = tmp_path / "file.jsonl.gz"
    text = "".join(json.dumps(one) + "\n" for one in RECORDS * 200)
    path.write_bytes(gzip.compress(text.encode())[:-500])
    read = list(sources.records(path))
    assert read[-1].error is not None and "further" in read[-1].error
    assert all(one.error is None for one in read[:-1]) and len(read) > 100


def test_half_surrogates_become_replacement_characters():
    assert parse(rb'"a\ud83d b \ud83d\ude00"') == "a\ufffd b 😀"
    with pytest.raises(ValueError):
        parse(b'{"a": NaN}')
    for text in (b'{"a": 123456789012345678901}', rb'["\ud83d", 123456789012345678901]'):
        with pytest.raises(ValueError, match="64 bits"):
            parse(text)


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        sources.detect(tmp_path / "none.json")
    with pytest.raises(UsageError, match="folder"):
        sources.detect(tmp_path)
