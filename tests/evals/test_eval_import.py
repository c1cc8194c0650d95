"""`chaku eval import`: the published numbers from the published files, and every shape of old file by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaku.arena.battle_files import read_battles
from chaku.cli.eval.import_files import import_files
from chaku.errors import UsageError
from chaku.evals.fastchat import read_old_files
from chaku.evals.pairs import pairs_of
from chaku.evals.records import Run
from shared_data import shared

BASELINES = ("llama-13b", "alpaca-13b", "bard", "gpt35")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(import_files, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def review(question: int, text: str, score: list[float]) -> dict[str, Any]:
    return {
        "review_id": f"r{question}", "question_id": question, "answer1_id": f"a{question}",
        "answer2_id": f"b{question}", "text": text, "score": score, "reviewer_id": "gpt-4-0328-generic", "metadata": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def vicuna80() -> list[Path]:
    folder = shared("vicuna80") / "review"
    return [folder / f"review_{name}_vicuna-13b.jsonl" for name in BASELINES]


def test_recorded_scores_give_table_2_and_figure_1_of_the_vicuna_post(vicuna80: list[Path]) -> None:
    content = json.loads(run(*vicuna80, "--json"))
    pairs = content["pairs"]
    assert [(pair["model_a"], pair["model_b"]) for pair in pairs] == [(name, "vicuna-13b") for name in BASELINES]
    totals = [(pair["total_a"], pair["total_b"]) for pair in pairs]
    assert totals == [(513.0, 694.0), (583.0, 704.0), (664.0, 655.5), (693.0, 638.0)]
    wins = [(pair["wins_b"], pair["ties"], pair["wins_a"]) for pair in pairs]
    assert wins == [(77, 0, 3), (76, 1, 3), (40, 10, 30), (14, 22, 44)]
    assert (wins[3][0] + wins[3][1]) / 80 == 0.45
    assert min(wins[0][0], wins[1][0]) / 80 > 0.9
    differences = [tuple(round(pair[name], 2) for name in ("difference", "low", "high")) for pair in pairs]
    assert differences == [(2.26, 1.82, 2.71), (1.51, 1.26, 1.77), (-0.11, -0.54, 0.33), (-0.69, -1.04, -0.33)]
    assert [(one["model"], round(one["percent"], 1)) for one in content["quality"]] == [
        ("llama-13b", 68.1), ("alpaca-13b", 76.2), ("vicuna-13b", 92.1), ("bard", 93.3), ("gpt35", 100.0),
    ]  # fmt: skip
    assert all(one["low"] <= one["percent"] <= one["high"] for one in content["quality"])


def test_texts_give_the_second_table_and_name_the_two_conflicts(vicuna80: list[Path]) -> None:
    content = json.loads(run(*vicuna80, "--json", "--reparse"))
    totals = [(pair["total_a"], pair["total_b"]) for pair in content["pairs"]]
    assert totals == [(513.0, 696.0), (583.0, 704.0), (664.0, 657.5), (693.0, 638.0)]
    assert (content["equal"], content["compared"], content["unparsed"]) == (318, 320, [])
    assert content["conflicts"] == [
        {"question_id": "70", "models": [model, "vicuna-13b"], "recorded": [10.0, 2.0], "parsed": [10.0, 4.0]}
        for model in ("llama-13b", "bard")
    ]


def test_people_prints_the_same_numbers(vicuna80: list[Path]) -> None:
    shown = run(*vicuna80, "--reparse")
    assert "318 of 320 texts say what was recorded" in shown
    assert "question 70, bard and vicuna-13b" in shown


def test_mt_benchs_labels_give_the_published_agreements() -> None:
    folder = shared("mt_bench")
    content = json.loads(run(folder / "human.jsonl", folder / "gpt4_pair.jsonl", "--json"))
    found = {
        (one["judge"], one["turn"]): [round(100 * one[kind]["share"]) for kind in ("with_ties", "without_ties")]
        for one in content["agreements"]
    }
    assert found == {
        ("gpt4_pair", 1): [66, 85], ("people", 1): [63, 81], ("gpt4_pair", 2): [66, 85], ("people", 2): [67, 82],
    }  # fmt: skip


def test_an_imported_run_keeps_answers_questions_and_labels(vicuna80: list[Path], tmp_path: Path) -> None:
    labels = shared("vicuna80") / "human/gpt35_vicuna-13b.jsonl"
    content = json.loads(run(*vicuna80, labels, "--json", "-o", tmp_path / "old"))
    whole = Run.load(tmp_path / "old")
    assert (len(whole.questions), len(whole.answers), len(whole.judgements)) == (80, 400, 320)
    assert whole.questions["70"].category == "math"
    answer = whole.answer_of("1", "bard")
    assert answer is not None
    assert answer.turns[0]
    assert [pair.as_json() for pair in pairs_of(whole.judgements)] == content["pairs"]
    assert len(read_battles([tmp_path / "old/labels.jsonl"]).comparisons) == 80
    [agreement] = [one for one in content["agreements"] if one["judge"] == "gpt-4"]
    assert agreement["with_ties"]["compared"] == 80


def test_models_are_named_by_the_answer_files_or_else_by_the_reviews_name(tmp_path: Path) -> None:
    reviews = write(tmp_path / "review/review_x_y.jsonl", review(1, "8 9\nBoth.", [8, 9]))
    assert read_old_files([reviews]).judgements[0].models == ("x", "y")
    write(tmp_path / "answer/answer_left.jsonl", {"answer_id": "a1", "question_id": 1, "model_id": "l:1", "text": "A"})
    write(tmp_path / "answer/answer_right.jsonl", {"answer_id": "b1", "question_id": 1, "model_id": "r:1", "text": "B"})
    old = read_old_files([reviews])
    assert old.judgements[0].models == ("left", "right")
    assert {answer.model: answer.turns for answer in old.answers} == {"left": ("A",), "right": ("B",)}


def test_a_text_that_nobody_could_read_is_no_tie_and_no_zero(tmp_path: Path) -> None:
    rows = [review(1, "I can't say.", [-1, -1]), review(2, "9 7\nFine.", [9, 7]), review(3, "7 8\nFine.", [7, 8])]
    reviews = write(tmp_path / "review_x_y.jsonl", *rows)
    content = json.loads(run(reviews, "--json", "--reparse"))
    assert content["unread"] == 1
    assert (content["equal"], content["compared"]) == (2, 2)
    [pair] = content["pairs"]
    assert (pair["wins_a"], pair["ties"], pair["wins_b"], pair["total_a"]) == (1, 0, 1, 16.0)


def test_a_recorded_score_whose_text_says_nothing_is_named(tmp_path: Path) -> None:
    reviews = write(tmp_path / "review_x_y.jsonl", review(1, "Both are fine.", [8, 9]), review(2, "9 7\n", [9, 7]))
    content = json.loads(run(reviews, "--json", "--reparse"))
    assert [case["question_id"] for case in content["unparsed"]] == ["1"]
    assert (content["equal"], content["compared"]) == (1, 2)


def test_both_games_of_mt_bench_are_read_from_their_own_side(tmp_path: Path) -> None:
    row = {
        "question_id": 81, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": "model_1",
        "judge": ["gpt-4", "pair-v2"], "g1_user_prompt": "", "g1_judgment": "[[A]]", "g2_user_prompt": "",
        "g2_judgment": "[[B]]", "turn": 2, "tstamp": 1.0,
    }  # fmt: skip
    games = read_old_files([write(tmp_path / "gpt-4_pair.jsonl", row, {**row, "g2_winner": "error"})]).judgements
    assert [(game.models, game.winner, game.turn) for game in games[:2]] == [(("x", "y"), "a", 2), (("y", "x"), "b", 2)]
    assert [game.state for game in games] == ["ok", "ok", "ok", "unparsed"]
    [pair] = pairs_of(games[:2])
    assert (pair.count("a"), pair.count("tie"), pair.count("b"), pair.has_scores) == (1, 0, 0, False)


def test_orders_that_contradict_each_other_are_a_tie(tmp_path: Path) -> None:
    row = {"question_id": 1, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": "model_2", "turn": 1}
    games = read_old_files([write(tmp_path / "pair.jsonl", row)]).judgements
    [pair] = pairs_of(games)
    assert pair.outcomes == ("tie",)
    assert (pair.values_a[0], pair.values_b[0]) == (0.5, 0.5)


def test_scores_of_single_answers_keep_their_missing_ones(tmp_path: Path) -> None:
    row = {"question_id": 81, "model": "x", "judge": ["gpt-4", "single-v1"], "judgment": "[[7]]", "score": 7, "turn": 1}
    old = read_old_files([write(tmp_path / "gpt-4_single.jsonl", row, {**row, "question_id": 82, "score": -1})])
    assert [(one.scores, one.state) for one in old.judgements] == [((7.0,), "ok"), ((), "unparsed")]


def test_the_same_judgement_twice_in_a_file_counts_once(tmp_path: Path) -> None:
    row = {"question_id": 81, "model": "x", "judge": ["gpt-4", "single-v1"], "judgment": "[[7]]", "score": 7, "turn": 1}
    rows = write(tmp_path / "gpt-4_single.jsonl", row, row)
    run(rows, "-o", tmp_path / "run")
    assert len(Run.load(tmp_path / "run").judgements) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"answer1_id": "a", "answer2_id": "b", "score": [1, 2], "text": ""},
            "review_x_y.jsonl:1: there is no question_id",
        ),
        ({"answer1_id": "a", "answer2_id": "b", "score": [1], "text": "", "question_id": 1}, "review_x_y.jsonl:1: "),
        ({"what": 1}, "has no answers, judgements or labels"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(write(tmp_path / "review_x_y.jsonl", row))
