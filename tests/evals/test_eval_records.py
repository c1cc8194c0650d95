"""The records of an evaluation: written and read again they are the same, and a broken file is named by its line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.cli.main import root
from chaku.errors import UsageError
from chaku.evals.records import (
    ContestantAnswer,
    Judgement,
    Manifest,
    Question,
    Record,
    Run,
    content_key,
    read_records,
    write_records,
    write_run,
)
from chaku.records import append_only
from chaku.settings import Contestant

TEXTS = st.text(st.characters(codec="utf-8"))
SCORES = st.floats(1, 10)


def write_some_run(folder: Path) -> None:
    questions = [Question(id="1", turns=("one?",), category="math"), Question(id="2", turns=("two?", "more?"))]
    contestants = (Contestant(name="a", model="a"), Contestant(name="b", model="b", sampling={"temperature": 0}))
    manifest = Manifest(suite="my.jsonl", created="2026-11-28T00:00:00Z", contestants=contestants, num_answers=4)
    write_run(folder, manifest, questions)


@settings(max_examples=25, deadline=None)  # each example writes files
@given(TEXTS, st.lists(TEXTS, min_size=1), st.lists(SCORES, max_size=2), st.sampled_from(["ok", "unparsed", "failed"]))
def test_records_survive_writing_and_reading(text: str, turns: list[str], scores: list[float], state: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        records: list[Record]
        for records in (
            [Question(id=text, turns=tuple(turns), reference=tuple(turns), temperature=0.7)],
            [ContestantAnswer(key="k", question_id=text, model="m", turns=tuple(turns), error=text or None)],
            [
                Judgement(
                    key="k", question_id="1", mode="pair-score", judge="j", models=("a", "b"), text=text,
                    scores=tuple(scores), state=state,  # type: ignore[arg-type]
                )
            ],
        ):  # fmt: skip
            write_records(path, records)
            assert read_records(path, type(records[0])) == records


def test_a_half_written_last_line_is_not_read_and_the_next_line_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first, second = (ContestantAnswer(key=key, question_id="1", model="m", turns=("hi",)) for key in "ab")
    path.write_bytes(first.line() + second.line()[:-4])
    assert read_records(path, ContestantAnswer) == [first]
    with append_only(path) as file:
        assert file.lines == [first.line().rstrip()]
        assert path.read_bytes().endswith(second.line()[:-4]), "nothing is cut before something is written"
        file.add(second.line())
    assert read_records(path, ContestantAnswer) == [first, second]


def test_of_two_lines_with_one_key_the_later_one_counts(tmp_path: Path) -> None:
    write_some_run(tmp_path)
    failed = ContestantAnswer(key="k", question_id="1", model="a", error="the server is gone")
    answered = ContestantAnswer(key="k", question_id="1", model="a", turns=("1",))
    write_records(tmp_path / "answers.jsonl", [failed, ContestantAnswer(key="l", question_id="2", model="a"), answered])
    run = Run.load(tmp_path)
    assert [answer.key for answer in run.answers] == ["k", "l"]
    assert run.answer_of("1", "a") == answered


def test_a_wrong_record_is_named_by_file_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"id": "1", "turns": ["a"]}\n{"id": "2", "turns": []}\n')
    with pytest.raises(UsageError, match=r"questions\.jsonl:2: turns: at least 1 is needed"):
        read_records(path, Question)
    with pytest.raises(UsageError, match=r"is not a run of `chaku eval`"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("scores", "outcome"), [((8.0, 9.0), "b"), ((9.0, 8.5), "a"), ((7.0, 7.0), "tie")], ids=["b", "a", "tie"]
)
def test_two_scores_are_an_outcome(scores: tuple[float, ...], outcome: str) -> None:
    judgement = Judgement(key="k", question_id="1", mode="pair-score", judge="j", models=("x", "y"), scores=scores)
    game = judgement.comparison(Question(id="1", turns=("?",), category="math"))
    assert game is not None
    assert (game.model_a, game.model_b, game.outcome, game.category) == ("x", "y", outcome, "math")


def test_what_could_not_be_read_is_no_comparison() -> None:
    for state in ("unparsed", "failed"):
        judgement = Judgement(key="k", question_id="1", mode="verdict", judge="j", models=("x", "y"), state=state)
        assert judgement.comparison() is None


def test_keys_differ_when_anything_that_was_asked_differs() -> None:
    assert content_key("a", {"x": 1, "y": 2}) == content_key("a", {"y": 2, "x": 1})
    assert len({content_key("a", "b"), content_key("ab"), content_key(["a", "b"]), content_key("b", "a")}) == 4


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with append_only(path), pytest.raises(UsageError, match="another run writes"), append_only(path):
        pass
    assert path.stat().st_size == 0


def test_show_counts_what_a_run_holds(tmp_path: Path) -> None:
    write_some_run(tmp_path)
    write_records(tmp_path / "answers.jsonl", [ContestantAnswer(key="k", question_id="1", model="a", error="gone")])
    shown = CliRunner().invoke(root, ["eval", "show", str(tmp_path)], catch_exceptions=False)
    assert "planned 4, ok 0, failed 1" in shown.output
