"""Suites: our 80 questions, FastChat's files and files with nothing but prompts; what a program can check."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from chaku.errors import UsageError
from chaku.evals import checkers
from chaku.evals.checkers import check, code_of
from chaku.evals.records import Checker
from chaku.evals.suites import load_suite, read_questions, temperature_of

SHARED = Path(__file__).parents[2] / "../shared/data"
CATEGORIES = {"writing", "roleplay", "common-sense", "fermi", "counterfactual", "coding", "math", "knowledge"}
CHAKU_80 = load_suite("chaku-80")
CHECKED = [question for question in CHAKU_80 if question.checker]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_chaku_80_has_ten_questions_in_each_of_eight_categories_and_no_question_twice() -> None:
    assert Counter(question.category for question in CHAKU_80) == dict.fromkeys(CATEGORIES, 10)
    assert len({question.turns for question in CHAKU_80}) == 80
    assert {question.category for question in CHECKED} == {"coding", "math"} and len(CHECKED) == 20
    with_reference = {question.category for question in CHAKU_80 if question.reference}
    assert with_reference == {"coding", "math", "knowledge", "common-sense", "fermi"}


@pytest.mark.parametrize("question", CHECKED, ids=lambda question: question.id)
def test_each_reference_passes_its_checker_and_a_refusal_does_not(question) -> None:  # type: ignore[no-untyped-def]
    passed = check(question.checker, question.reference[0])
    assert passed.passed, passed.reason
    assert not check(question.checker, "I can't help with that.").passed


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_fastchats_question_files_load_with_their_references() -> None:
    old = load_suite(str(SHARED / "vicuna80/question.jsonl"))
    assert len(old) == 80 and old[0].id == "1" and Counter(question.category for question in old)["math"] == 3
    mt_bench = load_suite(str(SHARED / "mt_bench/question.jsonl"), references=SHARED / "mt_bench/reference_gpt-4.jsonl")
    assert len(mt_bench) == 80 and all(len(question.turns) == 2 for question in mt_bench)
    with_reference = Counter(question.category for question in mt_bench if question.reference)
    assert [with_reference[category] for category in ("math", "reasoning", "coding")] == [10, 10, 10]
    by_category = {question.category: temperature_of(question) for question in mt_bench}
    assert (by_category["writing"], by_category["math"], by_category["stem"]) == (0.7, 0.0, 0.1)


def test_files_with_nothing_but_prompts_load(tmp_path: Path) -> None:
    rows = write(
        tmp_path / "my.jsonl",
        {"prompt": "one"},
        '"two"',
        {"question": "three", "id": "x", "reference": "3", "category": "math"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "four"}]},
        {"instruction": "five", "input": "5", "output": "unused"},
    )
    questions = read_questions(rows)
    assert [question.turns for question in questions] == [("one",), ("two",), ("three",), ("four",), ("five\n\n5",)]
    assert [question.id for question in questions] == ["1", "2", "x", "4", "5"]
    assert questions[2].reference == ("3",)
    table = tmp_path / "my.csv"
    table.write_text('Prompt,category,temperature\n"a, ""b""\nc",math,0\nd,,\n')
    first, second = read_questions(table)
    assert (first.turns, first.category, first.temperature) == (('a, "b"\nc',), "math", 0.0)
    assert (second.turns, second.category, second.temperature) == (("d",), None, None)
    column = tmp_path / "bare.csv"
    column.write_text("What is love?\nAnd hate?\n")
    assert [question.turns for question in read_questions(column)] == [("What is love?",), ("And hate?",)]
    column.write_bytes(b"What is na\xefve?\n")
    with pytest.raises(UsageError, match=r"bare\.csv is not UTF-8 text: byte 10 is invalid"):
        read_questions(column)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}], r":2: a second question has the id '1'"),
        ([{"anwser": "a"}], r":1: there is no prompt"),
        (["{broken"], r":1 is not JSON"),
        ([[1]], r":1: neither an object nor a text"),
        ([{"turns": ["a"], "checker": {"kind": "magic", "expected": "1"}}], r":1: checker.kind: one of"),
        ([{"prompt": 3}], r":1: turns.0: a text is needed"),
        ([], r"holds no questions"),
    ],
)
def test_a_wrong_question_file_is_refused_with_the_line(tmp_path: Path, lines: list[object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_questions(write(tmp_path / "q.jsonl", *lines))


def test_an_unknown_suite_names_the_nearest_and_a_published_one_says_how_to_get_it() -> None:
    with pytest.raises(UsageError) as unknown:
        load_suite("chaku-8")
    assert "chaku-80" in str(unknown.value)
    with pytest.raises(UsageError, match="chaku eval fetch mt-bench"):
        load_suite("mt-bench")


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("Answer: 1,200", True),
        ("So 3 boxes of 400 make 1200.", True),
        ("**Answer:** 1200 metres in 3 hours", True),
        ("The answer is 1200. That is 2 more than 1198.", True),
        ("Answer: 120", False),
        ("1200 or 1300", False),
        ("none", False),
        ("Answer: 2400/2", True),
    ],
)
def test_a_number_is_found_where_it_is_the_answer(answer: str, passed: bool) -> None:
    assert check(Checker(kind="number", expected="1200"), answer).passed is passed


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit(0)", "code 0"),
        ("def f():\n    return 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("x = ' ' * 10 ** 11", "MemoryError"),
        ("import os; os.abort()", "code -6"),
    ],
)
def test_code_that_does_not_pass_the_tests_fails_with_the_reason(code: str, reason: str) -> None:
    result = check(Checker(kind="python", expected="assert f() == 1"), f"```python\n{code}\n```")
    assert not result.passed and reason in result.reason


def test_code_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkers, "TIMEOUT_S", 0.5)
    result = check(Checker(kind="python", expected=""), "import time\nwhile True: time.sleep(1)")
    assert "still running" in result.reason


def test_code_gets_neither_the_environment_nor_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "x")
    code = "import os\nassert 'SECRET_KEY' not in os.environ\nassert os.listdir() == []"
    assert check(Checker(kind="python", expected=""), code).passed


def test_of_several_blocks_only_python_is_taken() -> None:
    answer = "```bash\nls\n```\n```python\nx = 1\n```\ntext\n```\ny = 2\n```"
    assert code_of(answer) == "x = 1\n\ny = 2\n"
