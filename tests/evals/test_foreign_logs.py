"""Logs of inspect and lm-eval are read as questions, answers and recorded scores."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from chaku.errors import UsageError
from chaku.evals.benchmarks import results_in
from chaku.evals.foreign_logs import ForeignLog, is_foreign_log, read_foreign_log

SAMPLES = [
    {
        "id": 7, "epoch": 1, "input": "2 + 2?", "target": "4", "metadata": {"category": "math"},
        "output": {"model": "m", "completion": "It is 4.", "choices": []},
        "scores": {"match": {"value": "C", "explanation": "found"}, "model_graded": {"value": {"tone": 0.5}}},
    },
    {
        "id": 7, "epoch": 2, "input": [{"role": "system", "content": "s"}, {"role": "user", "content": "2 + 2?"}],
        "target": ["4"],
        "output": {"choices": [{"message": {"content": [{"type": "text", "text": "5"}]}}]},
        "scores": {"match": {"value": "I"}},
    },
    {"id": "x", "epoch": 1, "input": "?", "target": "", "output": {}, "error": {"message": "out of time"}},
]  # fmt: skip
HEAD = {"version": 2, "status": "success", "eval": {"task": "t", "model": "openai/m"}}


def assert_holds_the_samples(log: ForeignLog) -> None:
    assert log.model == "openai/m"
    assert {question.id: question.turns for question in log.questions.values()} == {"7": ("2 + 2?",), "x": ("?",)}
    assert [(answer.question_id, answer.sample, answer.turns, answer.error) for answer in log.answers] == [
        ("7", 0, ("It is 4.",), None),
        ("7", 1, ("5",), None),
        ("x", 0, (), "out of time"),
    ]
    assert [(score.judge, score.sample, score.scores) for score in log.scores] == [
        ("match", 0, (1.0,)),
        ("model_graded/tone", 0, (0.5,)),
        ("match", 1, (0.0,)),
    ]


def test_an_inspect_log_is_read_as_json_and_as_an_archive(tmp_path: Path) -> None:
    plain = tmp_path / "log.json"
    plain.write_text(json.dumps({**HEAD, "samples": SAMPLES}))
    archive = tmp_path / "log.eval"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("header.json", json.dumps(HEAD))
        for sample in SAMPLES:
            file.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    for path in (plain, archive):
        assert is_foreign_log(path)
        assert_holds_the_samples(read_foreign_log(path))


def test_lm_eval_samples_are_read_with_one_answer_and_a_score_per_filter(tmp_path: Path) -> None:
    path = tmp_path / "org__model" / "samples_gsm8k_2026-01-01T00-00-00.jsonl"
    path.parent.mkdir()
    row = {
        "doc_id": 0, "doc": {"question": "2+2?"}, "target": "4", "arguments": {"gen_args_0": {"arg_0": "Q: 2+2?"}},
        "resps": [["It is 4"]], "metrics": ["exact_match"],
    }  # fmt: skip
    strict = {**row, "filter": "strict-match", "exact_match": 0.0}
    flexible = {**row, "filter": "flexible-extract", "exact_match": 1.0}
    likelihood = {"doc_id": 1, "target": "1", "arguments": [["a", " b"]], "resps": [[[-3.2, False]]], "filter": "none",
                  "metrics": ["acc"], "acc": 1.0}  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in (strict, flexible, likelihood)))
    assert is_foreign_log(path)
    log = read_foreign_log(path)
    assert (log.model, [answer.turns for answer in log.answers]) == ("org__model", [("It is 4",)])
    assert [(score.question_id, score.judge, score.scores) for score in log.scores] == [
        ("0", "exact_match,strict-match", (0.0,)),
        ("0", "exact_match,flexible-extract", (1.0,)),
        ("1", "acc", (1.0,)),
    ]
    assert log.questions["0"].category == "gsm8k"
    only = {result.metric: result for result in results_in(tmp_path)}["acc"]
    assert (only.task, only.value, only.num, only.estimate) == ("gsm8k", 1.0, 1, None)  # one item has no interval


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"eval": {}}')
    with pytest.raises(UsageError, match="is not a log of inspect or lm-eval"):
        read_foreign_log(wrong)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "a"}\n')
    assert not is_foreign_log(questions)
