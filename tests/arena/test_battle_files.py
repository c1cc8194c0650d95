"""Files of comparisons as they lie about: every format, and what is wrong with single records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.arena.battle_files import Reading, read_battles
from chaku.comparison import Comparison, Style, redacted, write_comparisons
from chaku.errors import UsageError

CLEANED = {
    "question_id": "q1", "model_a": "vicuna-13b", "model_b": "alpaca-13b", "winner": "tie (bothbad)",
    "judge": "arena_user_7", "turn": 2, "anony": True, "language": "English", "tstamp": 1682351591.13,
    "conv_metadata": {
        "sum_assistant_a_tokens": 120, "header_count_a": {"h1": 1, "h2": 2}, "list_count_a": {"ordered": 3},
        "bold_count_a": {"**": 4}, "sum_assistant_b_tokens": 80, "header_count_b": {}, "list_count_b": {},
        "bold_count_b": {},
    },
}  # fmt: skip


def logged(kind: str, models: tuple[str, str] = ("", ""), answer: str = "# Yes\n\n- **one**") -> dict[str, Any]:
    """A line of FastChat's arena log, as its web server writes one."""
    states = [
        {"model_name": name, "conv_id": f"c-{name}", "messages": [["USER", "Hello?"], ["ASSISTANT", answer]]}
        for name in ("koala", "dolly")
    ]
    return {"tstamp": 1682351591.13, "type": kind, "models": list(models), "states": states, "ip": "10.0.0.1"}


def read(tmp_path: Path, *records: Any, name: str = "votes.jsonl") -> Reading:
    path = tmp_path / name
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records))
    return read_battles([path])


def test_a_cleaned_battle_is_read_with_its_style(tmp_path: Path) -> None:
    (game,) = read(tmp_path, CLEANED).comparisons
    assert (game.model_a, game.model_b, game.outcome, game.score) == ("vicuna-13b", "alpaca-13b", "both_bad", 0.5)
    assert (game.source, game.voter, game.cluster, game.turn) == ("human", "arena_user_7", "arena_user_7", 2)
    assert (
        game.style_a == Style(tokens=120, headers=3, lists=3, bold=4)
        and game.created == "2023-04-24T15:53:11.130000+00:00"
    )


def test_a_json_array_is_read_like_lines(tmp_path: Path) -> None:
    lines = read(tmp_path, CLEANED, {**CLEANED, "question_id": "q2"}).comparisons
    array = read(tmp_path, json.dumps([CLEANED, {**CLEANED, "question_id": "q2"}]), name="clean.json").comparisons
    assert [game.id for game in lines] == [game.id for game in array]


def test_the_arenas_log_is_read_without_addresses_and_what_is_no_vote_is_counted(tmp_path: Path) -> None:
    reading = read(tmp_path, logged("leftvote"), logged("chat"), logged("bothbad_vote"))
    assert [game.outcome for game in reading.comparisons] == ["a", "both_bad"]
    assert reading.skipped == {"no vote, but 'chat'": 1}
    assert reading.comparisons[0].style_a == Style(tokens=4, headers=1, lists=1, bold=1)
    assert b"10.0.0.1" not in reading.comparisons[0].line()


def test_a_vote_among_named_models_is_kept_and_not_counted(tmp_path: Path) -> None:
    reading = read(tmp_path, logged("leftvote", ("koala", "dolly")), {**CLEANED, "anony": False})
    assert len(reading.comparisons) == 2 and not reading.counted
    assert {game.reason for game in reading.comparisons} == {"the models' names were shown"}


def test_mt_benchs_labels_tell_people_from_judges(tmp_path: Path) -> None:
    label = {"judge": "expert_17", "model_a": "a", "model_b": "b", "question_id": 81, "turn": 1, "winner": "model_b"}
    person, judge = read(tmp_path, label, {**label, "judge": "gpt4_pair", "winner": "tie (inconsistent)"}).comparisons
    assert (person.source, person.voter, person.judge, person.cluster) == ("human", "expert_17", None, "expert_17")
    assert (judge.source, judge.voter, judge.judge, judge.cluster) == ("judge", None, "gpt4_pair", "81")
    assert judge.outcome == "tie"


def test_rows_of_a_csv_that_are_alike_are_games_each(tmp_path: Path) -> None:
    reading = read(tmp_path, "model_a,model_b,winner", "x,y,model_a", "x,y,model_a", "x,y,tie", name="votes.csv")
    assert [game.score for game in reading.comparisons] == [1.0, 1.0, 0.5] and not reading.skipped


def test_the_same_game_in_two_files_counts_once(tmp_path: Path) -> None:
    write_comparisons(tmp_path / "ours.jsonl", read(tmp_path, CLEANED).comparisons)
    reading = read_battles([tmp_path / "votes.jsonl", tmp_path / "ours.jsonl"])
    assert len(reading.comparisons) == 1 and reading.skipped == {"the same game again": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**CLEANED, "winner": "model_c"}, "winner 'model_c' is unknown"),
        ({**CLEANED, "winner": None}, "no winner"),
        ({**CLEANED, "model_b": ""}, "a model without a name"),
        ({**CLEANED, "model_b": "vicuna-13b"}, "a model against itself"),
        ({**CLEANED, "tstamp": "yesterday"}, "a field has another shape"),
        ({**CLEANED, "turn": "two"}, "a field has another shape"),
        ({**CLEANED, "turn": 10**30}, "a field has another shape"),
        ({**CLEANED, "conv_metadata": {"sum_assistant_a_tokens": "many"}}, "a field has another shape"),
        (
            {**CLEANED, "conv_metadata": {f"sum_assistant_{side}_tokens": 10**30 for side in "ab"}},
            "a field has another",
        ),
        ({**logged("leftvote"), "states": [{}]}, "a vote needs two sides"),
        ({**logged("leftvote"), "states": 7}, "a field has another shape"),
        ({"schema": 9, "outcome": "a"}, "a field has another shape (schema 9"),
        ([1, 2], "not a JSON object"),
        ("{broken", "not a JSON object"),
    ],
)
def test_a_record_that_can_t_be_read_costs_only_itself(tmp_path: Path, record: Any, reason: str) -> None:
    reading = read(tmp_path, CLEANED, record)
    assert len(reading.comparisons) == 1
    (found,) = reading.skipped
    assert found.startswith(reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from([*CLEANED, "states", "type", "schema", "outcome", "conversation_a"]), value=JSON)
def test_whatever_stands_in_a_field_no_other_record_is_lost(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    reading = read(tmp_path_factory.mktemp("fuzz"), {**CLEANED, field: value}, CLEANED, logged("tievote"))
    assert len(reading.comparisons) + reading.skipped.total() == 3
    assert {"tie", "both_bad"} <= {game.outcome for game in reading.comparisons}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,score\nx,1\n", "no column model_a, model_b, winner"),
        (b"\xff\xfe\x00", "neither JSON nor CSV"),
        (b"[1, 2", "is not JSON"),
        (b"", "no column"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "other.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_battles([tmp_path / "other.txt"])
    with pytest.raises(UsageError, match=r"can't read .*absent: no such file"):
        read_battles([tmp_path / "absent"])


def test_a_record_goes_through_its_line_unchanged_and_a_forged_one_is_seen() -> None:
    game = Comparison(source="human", model_a="a", model_b="b", outcome=0.25, style_a=Style(tokens=3), consent=True)
    record = json.loads(game.line())
    assert Comparison.of(record) == game and Comparison.of(record).id == game.id
    with pytest.raises(ValueError, match="changed after its id"):
        Comparison.of({**record, "outcome": 1.0})


def test_a_changed_copy_has_an_id_of_its_own() -> None:
    game = Comparison(
        source="human", model_a="x", model_b="y", outcome="a", voter="v", created="2026-01-01T10:00:00+00:00"
    )
    assert game.replaced(outcome="b").id not in (game.id, "")
    [copy] = redacted([game])  # its id was asked for before
    assert copy.voter == "voter-1"
    assert Comparison.of(json.loads(copy.line())) == copy
