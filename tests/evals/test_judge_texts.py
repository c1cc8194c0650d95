"""What judges write is read as they meant it, or not at all."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.evals.parse import Unparsed, parse_pair, parse_score, parse_verdict, parsed
from chaku.evals.records import Judgement

VICUNA = Path(__file__).parents[2] / "../shared/data/vicuna80"
PARSERS = (parse_verdict, parse_pair, parse_score)
LETTERS = st.text(st.sampled_from("abcXYZ ,.\n()[]{}:\"*0123456789/'AB-") | st.sampled_from("é漢"))
WHOLE_SCORES = st.integers(1, 10)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


QUOTED_FORMAT = 'I was told to write "[[A]]" if assistant A is better and "[[B]]" if assistant B is better.'


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("[[A]]", "a"),
        ("Both are fine.\n\n[[C]]", "tie"),
        ("B is clearer.\n**[[B]]**", "b"),
        ("[[tie]]", "tie"),
        (f"{QUOTED_FORMAT}\nMy verdict:\n[[B]]", "b"),
        ("First I thought [[A]]. But it is wrong.\nFinal verdict: [[B]]", "b"),
        ("[[A]] … as I said: [[A]]", "a"),
        ("B", "b"),
        ("It is a close call.\n[B]", "b"),
        ("Verdict: Assistant A", "a"),
        ('{"explanation": "so", "winner": "B"}', "b"),
        ('```json\n{"explanation": "so", "winner": "tie"}\n```', "tie"),
    ],
)
def test_a_verdict_is_read(text: str, winner: str) -> None:
    assert parse_verdict(text) == winner


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I can't decide.",
        QUOTED_FORMAT,
        "[[A]] and [[B]]",
        "Assistant A is good. Assistant B is bad.",
        "The verdict is A or B",
        '{"winner": "both"}',
        "A nice answer.",
        "[[D]]",
    ],
)
def test_a_text_without_one_verdict_is_not_read(text: str) -> None:
    with pytest.raises(Unparsed):
        parse_verdict(text)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("8 9\nBoth are good.", (8, 9)),
        ("9, 8.5\nWhy", (9, 8.5)),
        ("8/10 9/10", (8, 9)),
        ("Scores:\nAssistant 1: 10\nAssistant 2: 4\n\nAssistant 1 was right.", (10, 4)),
        ("Assistant 1: 1 (wrong)\nAssistant 2: 8 (a small slip)", (1, 8)),
        ("Assistant 1: 1/10\nAssistant 2: 2/10", (1, 2)),
        ("The points (2, -2) and (10, 4) are 10 apart.\n\nOutput: (1, 7)", (1, 7)),
        ("In conclusion, the scores are (1, 5).", (1, 5)),
        ("So:\n\n(9, 3)", (9, 3)),
        ("[[8, 7]]", (8, 7)),
        ('{"explanation": "e", "score_1": 3, "score_2": 7.5}', (3, 7.5)),
        ("First 7 8.\nFinal scores: (6, 9)", (6, 9)),
    ],
)
def test_two_scores_are_read(text: str, scores: tuple[float, float]) -> None:
    assert parse_pair(text) == scores


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The segment ends in (10, 4).",
        "Solve it first: the end points are\n(10, 4)",
        "1. The steps are right.\n2. The result is 8.",
        "8\n9",
        "11 9",
        "8 9\nOn reflection: Assistant 1: 3\nAssistant 2: 4",
        "Assistant 1: 5 apples\nAssistant 2: 6 apples",
        "Assistant 1: 7",
        '{"score_1": true, "score_2": 3}',
    ],
)
def test_numbers_that_are_no_scores_are_not_read(text: str) -> None:
    with pytest.raises(Unparsed):
        parse_pair(text, question="How long is the segment from (2, -2) to (10, 4)?")


@pytest.mark.parametrize(
    ("text", "score"),
    [("Rating: [[5]]", 5), ("Fine.\nScore: 7/10", 7), ("8", 8), ('For example "Rating: [[5]]".\nRating: [[9]]', 9),
     ('{"explanation": "", "score": 2}', 2), ("The rating is 6.5.", 6.5), ("8/10\nIt is short.", 8)],
)  # fmt: skip
def test_one_score_is_read(text: str, score: float) -> None:
    assert parse_score(text) == score


@pytest.mark.parametrize("text", ["", "on a scale of 1 to 10", 'write "Rating: [[5]]"', "[[3]] or [[4]]", "[[12]]"])
def test_a_text_without_one_score_is_not_read(text: str) -> None:
    with pytest.raises(Unparsed):
        parse_score(text)


@given(LETTERS)
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for parser in PARSERS:
        with contextlib.suppress(Unparsed):
            parser(text)


@given(
    WHOLE_SCORES, WHOLE_SCORES, st.sampled_from(["{} {}\nWhy.", "Assistant 1: {}\nAssistant 2: {}", "Scores: ({}, {})"])
)
def test_swapped_answers_have_swapped_scores(first: int, second: int, form: str) -> None:
    assert parse_pair(form.format(first, second)) == parse_pair(form.format(second, first))[::-1] == (first, second)


def test_an_answer_that_can_not_be_read_is_neither_a_tie_nor_a_zero() -> None:
    judgement = Judgement(key="k", question_id="1", mode="pair-score", judge="j", models=("a", "b"), text="Well.")
    read = parsed(judgement)
    assert (read.state, read.outcome, read.scores) == ("unparsed", None, ())
    again = parsed(read.model_copy(update={"text": "8 9"}))
    assert (again.state, again.scores, again.error) == ("ok", (8, 9), None)


@pytest.mark.skipif(not VICUNA.exists(), reason="../shared/data/vicuna80 is not here")
def test_318_of_the_320_recorded_reviews_are_read_as_they_were_recorded() -> None:
    questions = {row["question_id"]: row["text"] for row in lines_of(VICUNA / "question.jsonl")}
    conflicts, num_compared = [], 0
    for path in sorted((VICUNA / "review").glob("*.jsonl")):
        for row in lines_of(path):
            num_compared += 1
            scores = parse_pair(row["text"], question=questions[row["question_id"]])
            if scores != tuple(row["score"]):
                conflicts.append((path.stem, row["question_id"], scores, row["score"]))
    assert num_compared == 320
    assert conflicts == [
        ("review_bard_vicuna-13b", 70, (10, 4), [10, 2]),
        ("review_llama-13b_vicuna-13b", 70, (10, 4), [10, 2]),
    ]
