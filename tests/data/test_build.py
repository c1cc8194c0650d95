"""A build keeps the law, and gives the same bytes however many processes worked on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaku.data import phases
from chaku.data.build import build
from chaku.data.inspect.audit import audit
from chaku.data.inspect.story import story
from chaku.data.ledger import LawBroken, StageCounts
from chaku.data.manifest import counts_of
from chaku.data.recipe import DataConfig
from chaku.data.rows.packed import read_rows
from chaku.data.rows.rendering import open_rendering
from chaku.data.shards import read_jsonl
from chaku.data.watcher import Silent
from chaku.errors import NotFound, UsageError
from data.made import built, digests, sharegpt, write_lines

_turn = st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt", "system", "nobody"]), "value": st.text(max_size=60) | st.integers()}
)
_junk = st.one_of(
    st.fixed_dictionaries({"conversations": st.lists(_turn, max_size=6)}),
    st.fixed_dictionaries({"instruction": st.text(max_size=30), "output": st.text(max_size=30)}),
    st.fixed_dictionaries({"prompt": st.text(max_size=30)}),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.text(max_size=30),
    st.none() | st.integers() | st.lists(st.integers(), max_size=3),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_junk, min_size=1, max_size=25))
def test_whatever_comes_in_the_law_holds_and_the_audit_agrees(tmp_path_factory, tokenizer, records):
    folder = tmp_path_factory.mktemp("law")
    source = write_lines(folder / "in.jsonl", [*records, *sharegpt(4)])
    counts = counts_of(built(folder / "set", tokenizer, source, context=128).manifest)
    assert counts["import"].entered == len(records) + 4
    for stage in counts:
        counts[stage].check(stage)
    assert audit(folder / "set").passed


def test_paths_through_a_tree_are_counted_as_expansion(tmp_path, tokenizer):
    def node(text: str, role: str, *replies: object) -> dict[str, object]:
        return {"text": text, "role": role, "replies": list(replies)}

    answers = [node(f"Answer {word} is what I would say.", "assistant") for word in ("one", "two", "three")]
    tree = {"message_tree_id": "t1", "prompt": node("What would you say to this?", "prompter", *answers)}
    source = write_lines(tmp_path / "in.jsonl", [tree, *sharegpt(3)])
    counts = counts_of(built(tmp_path / "set", tokenizer, source, oasst_paths="all").manifest)["import"]
    assert (counts.entered, counts.expanded, counts.kept, counts.dropped) == (4, 2, 6, 0)
    assert {event.id for event in story(tmp_path / "set", "t1") if event.stage == "pack"} == {
        "in:1/0",
        "in:1/1",
        "in:1/2",
    }


def test_a_stage_that_loses_a_conversation_is_caught():
    with pytest.raises(LawBroken, match="split: in 3"):
        StageCounts(entered=3, expanded=1, kept=2, dropped=1).check("split")


def test_the_same_bytes_with_one_two_and_three_processes(tmp_path, tokenizer, mixed, monkeypatch):
    monkeypatch.setattr(phases, "_RECORDS_PER_SHARD", 40)
    sets = []
    for processes in (1, 2, 3):
        built(tmp_path / str(processes), tokenizer, *mixed, processes=processes, test_fraction=0.1)
        sets.append(digests(tmp_path / str(processes)))
    assert sets[0] == sets[1] == sets[2]
    assert {"manifest.json", "report.html", "rows/train-00000.arrow", "messages/test-00000.jsonl"} <= sets[0].keys()


def test_a_build_done_before_is_not_done_again_and_another_one_is_not_overwritten(tmp_path, tokenizer, mixed):
    assert not built(tmp_path / "set", tokenizer, *mixed).was_there
    before = digests(tmp_path / "set")
    assert built(tmp_path / "set", tokenizer, *mixed).was_there
    with pytest.raises(UsageError, match="--overwrite"):
        built(tmp_path / "set", tokenizer, *mixed, seed=9)
    assert digests(tmp_path / "set") == before
    config = DataConfig(inputs=tuple(mixed), tokenizer=str(tokenizer), context=512, seed=9)
    build(config, tmp_path / "set", processes=1, overwrite=True)
    assert digests(tmp_path / "set") != before
    assert not (tmp_path / "set/.work").exists()


def test_two_builds_into_one_folder_refuse_each_other(tmp_path, tokenizer, mixed):
    import fcntl

    (tmp_path / "set/.work").mkdir(parents=True)
    with (tmp_path / "set/.work/lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another build"):
            built(tmp_path / "set", tokenizer, *mixed)


def test_bad_lines_are_quoted_with_their_numbers_and_prompts_are_kept(tmp_path, tokenizer, mixed):
    manifest = built(tmp_path / "set", tokenizer, *mixed).manifest
    assert manifest["counts"]["import"]["drops"] == {"bad_line": 1, "unknown_shape": 1}
    (event,) = story(tmp_path / "set", "more:8")
    assert event.rule == "bad_line" and "more line 8:" in (event.note or "") and '"m7"' in (event.note or "")
    (prompt,) = read_jsonl(tmp_path / "set/messages/prompts-00000.jsonl")
    assert prompt.messages[0].content == "Only a prompt?" and prompt.id == "more:61"
    assert [entry["formats"] for entry in manifest["inputs"]] == [
        {"sharegpt": 102},
        {"bare prompt": 1, "openai messages": 58},
    ]


CANARIES = {
    "secret": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "credit_card": "4111 1111 1111 1111",
    "iban": "AT61 1904 3002 3457 3201",
    "ssn": "536-22-1234",
    "email": "jane.doe@mail.university.edu",
    "phone": "+49 30 901820",
    "ip_address": "8.8.4.4",
}


def test_a_canary_of_every_kind_is_nowhere_in_the_built_folder(tmp_path, tokenizer):
    """In answers, prompts, dropped turns, pairs, ids, facts, tools and records that can't be read."""
    records: list[object] = [*sharegpt(4)]
    for rule, canary in CANARIES.items():
        ask = {"from": "human", "value": f"My {rule} is {canary} and it is mine."}
        reply = {"from": "gpt", "value": f"I noted {canary}, thank you. The harbour is quiet today."}
        more = {"from": "human", "value": f"And {canary} again"}
        refusal = {"from": "gpt", "value": f"I'm sorry, but I can't help with {canary} and the like."}
        loop = {"from": "gpt", "value": f"{canary} is what I say. " * 40}
        records += [
            {"id": canary, "conversations": [ask, reply, more], "source": {"by": canary}},
            {"conversations": [ask]},
            {"conversations": [reply, ask, refusal]},
            {"conversations": [ask, loop]},
            {"conversations": [ask, {"from": "gpt", "value": f"network error {canary}"}]},
            {"conversations": [{"from": canary, "value": "x"}]},
            {canary: "a key"},
            {"prompt": ask["value"], "chosen": reply["value"], "rejected": refusal["value"]},
            {"messages": [{"role": "user", "content": ask["value"], "name": canary},
                          {"role": "assistant", "content": "Fine, I will look it up for you."}]},
            {"conversations": [{**ask, canary: "a turn's key"}, {**reply, "mood": canary}], canary: "a record's key",
             "system": f"Say {canary}.", "title": canary},
        ]  # fmt: skip
    source = write_lines(tmp_path / "in.jsonl", records)
    with source.open("a") as file:
        file.writelines(f'{{"broken": "\\n{canary}\n' for canary in CANARIES.values())
    folder = built(tmp_path / "set", tokenizer, source, rules=dict.fromkeys(CANARIES, "redact")).folder
    import pyarrow.parquet as parquet

    ledgers = "".join(str(parquet.read_table(path).to_pylist()) for path in (folder / "ledger").glob("*.parquet"))
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    everything = ledgers + "".join(path.read_bytes().decode("utf-8", "replace") for path in files)
    assert (folder / "messages/pairs-train-00000.jsonl").stat().st_size and "[IBAN]" in everything
    for canary in CANARIES.values():
        assert canary not in everything
        assert canary[len(canary) // 2 :] not in ledgers


def test_conversations_with_the_same_first_prompt_go_to_the_same_part():
    from chaku.chat.messages import Conversation, Message, Role
    from chaku.data.recipe import DataConfig
    from chaku.data.rows.tokenise import split_of

    config = DataConfig(test_fraction=0.5)
    for number in range(40):
        ask = Message(Role.USER, f"Question {number}?")
        parts = {
            split_of(Conversation(str(n), (ask, Message(Role.ASSISTANT, f"Answer {n}."))), config) for n in range(8)
        }
        assert len(parts) == 1


def test_a_turn_of_weight_0_carries_no_loss(tmp_path, tokenizer):
    turns = [
        {"role": "user", "content": "One?"}, {"role": "assistant", "content": "Not this one.", "weight": 0},
        {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "This one, yes."},
    ]  # fmt: skip
    source = write_lines(tmp_path / "in.jsonl", [{"messages": turns}])
    folder = built(tmp_path / "set", tokenizer, source, test_fraction=0).folder
    (row,) = read_rows(folder / "rows/train-00000.arrow")
    trained = bytes(int(token) for token in row.ids[row.loss_mask == 1] if token < 256)
    assert b"Not" not in trained and row.loss_mask.sum() == len("This one, yes.") + 1


def test_a_story_is_found_by_our_id_by_the_original_id_and_by_a_segments_id(tmp_path, tokenizer, mixed):
    folder = built(tmp_path / "set", tokenizer, *mixed, context=256).folder
    segment = next(one.id for one in read_jsonl(folder / "messages/train-00000.jsonl") if "#1" in one.id)
    ours = segment.partition("#")[0]
    by_segment = [(event.stage, event.id) for event in story(folder, segment)]
    assert ("import", ours) in by_segment and ("pack", segment) in by_segment
    assert ("pack", f"{ours}#0") not in by_segment
    assert ("pack", f"{ours}#0") in [(event.stage, event.id) for event in story(folder, ours)]
    original = next(event for event in story(folder, "chat0-3") if event.stage == "pack")
    assert original.id.startswith("shares:")
    with pytest.raises(NotFound, match="nobody"):
        story(folder, "nobody:1")


def test_the_test_set_is_stable_when_data_is_added(tmp_path, tokenizer, mixed):
    def parts(folder: Path) -> dict[str, set[str]]:
        return {
            part: {one.messages[0].content for path in folder.glob(f"messages/{part}-*") for one in read_jsonl(path)}
            for part in ("train", "test")
        }

    first = parts(built(tmp_path / "one", tokenizer, mixed[0]).folder)
    more = parts(built(tmp_path / "two", tokenizer, *mixed).folder)
    assert first["test"] and first["test"] <= more["test"] and first["train"] <= more["train"]
    assert not more["train"] & more["test"]


def test_without_a_tokenizer_the_build_stops_after_messages_and_says_so(tmp_path, mixed, monkeypatch):
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    open_rendering.cache_clear()  # another test of this process may have opened the default tokenizer
    note: list[str] = []

    class Watcher(Silent):
        def note(self, line):
            note.append(line)

    result = build(DataConfig(inputs=tuple(mixed)), tmp_path / "set", processes=1, watcher=Watcher())
    assert "stops after messages" in note[-1] and "chaku pull smollm2-135m" in note[-1]
    assert list(result.manifest["counts"])[-1] == "split"
    assert not (tmp_path / "set/rows").exists()
    assert sum(1 for _ in read_jsonl(tmp_path / "set/messages/train-00000.jsonl")) > 80
    assert audit(tmp_path / "set").passed


def test_rows_hold_the_rendered_segments_packed_without_padding(tmp_path, tokenizer, mixed):
    result = built(tmp_path / "set", tokenizer, *mixed, test_fraction=0)
    rows = list(read_rows(tmp_path / "set/rows/train-00000.arrow"))
    facts = result.manifest["audit"]["facts"]
    assert all(0 < len(row.ids) <= 512 for row in rows)
    assert (
        sum(len(row.ids) for row in rows) == facts["tokens"] == result.manifest["counts"]["tokenise"]["sums"]["tokens"]
    )
    assert facts["fill"] > 0.8
    assert any(row.doc_ids.max() > 0 for row in rows)


@pytest.mark.parametrize("template", [None, "vicuna_v1.1", "llama2", "zephyr"])
def test_documents_in_rows_are_the_rendered_messages_each_exactly_once(tmp_path, tokenizer, mixed, template):
    from chaku.data.rows.rendering import open_rendering

    built(tmp_path / "set", tokenizer, *mixed, template=template, context=300, test_fraction=0, overlong="reject")
    rendering = open_rendering(str(tokenizer), template)
    rendered = [rendering.render(one) for one in read_jsonl(tmp_path / "set/messages/train-00000.jsonl")]
    packed = [
        (tuple(ids.tolist()), tuple(mask.tolist()))
        for row in read_rows(tmp_path / "set/rows/train-00000.arrow")
        for ids, mask in row.documents()
    ]
    assert sorted(packed) == sorted((tuple(rows.input_ids), tuple(rows.loss_mask)) for rows in rendered)
    assert max(len(ids) for ids, _ in packed) <= 300


def test_templates_and_last_turn_training_are_taken_from_the_configuration(tmp_path, tokenizer, mixed):
    result = built(tmp_path / "all", tokenizer, *mixed, template="vicuna_v1.1")
    last = built(tmp_path / "last", tokenizer, *mixed, template="vicuna_v1.1", train_on="last")
    assert result.manifest["template"]["name"] == "vicuna_v1.1"
    trained = [one.manifest["audit"]["facts"]["trained_tokens"] for one in (result, last)]
    assert trained[0] > trained[1] > 0
    assert result.manifest["audit"]["passed"] and last.manifest["audit"]["passed"]


def test_tool_calls_that_a_template_has_no_place_for_are_dropped_with_the_reason(tmp_path, tokenizer):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    record = {
        "messages": [
            {"role": "user", "content": "What is the time in Rome?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
    }
    source = write_lines(tmp_path / "in.jsonl", [record, *sharegpt(3)])
    manifest = built(tmp_path / "set", tokenizer, source).manifest
    assert manifest["counts"]["split"]["drops"] == {"no_place": 1}


@pytest.mark.parametrize("template", ["llama3", "gemma", "mistral_v3"])
def test_a_built_in_template_whose_marks_are_no_tokens_is_refused(tokenizer, template):
    from chaku.data.rows.rendering import open_rendering
    from chaku.errors import ModelError

    with pytest.raises(ModelError, match=f"template {template} needs the special tokens"):
        open_rendering(str(tokenizer), template)
    assert open_rendering(str(tokenizer), "chatml").template.name == "chatml"
    assert open_rendering(str(tokenizer), "vicuna_v1.1").template.name == "vicuna_v1.1"
